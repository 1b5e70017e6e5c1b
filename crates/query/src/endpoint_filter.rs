//! Which endpoints a question is about.

use std::collections::HashSet;

use monitor_proto::v1;
use rollup::EndpointId;

use crate::named_series::EndpointNames;

/// Which endpoints; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct EndpointFilter {
    pub role: Option<i32>,
    pub address: Option<String>,
    /// A listener's name, or its address where it has none.
    pub listener: Option<String>,
    pub upstream: Option<String>,
    /// A backend's name or address.
    pub backend: Option<String>,
}

/// The same for one host, by the names that its newest report has.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFilter {
    asked: EndpointFilter,
    /// The endpoints whose names make a difference.
    differ: HashSet<EndpointId>,
}

impl HostFilter {
    /// Of a host whose newest report is this.
    pub(crate) fn new(asked: &EndpointFilter, newest: Option<&v1::Report>) -> Self {
        let endpoints = newest.iter().flat_map(|report| &report.endpoints);
        let differ = endpoints.filter_map(|e| {
            let id = EndpointId::from(e);
            let named = asked.is_called(&id, &EndpointNames::from(e));
            let nameless = asked.is_called(&id, &EndpointNames::default());
            (asked.is_at(&id) && named != nameless).then_some(id)
        });
        Self {
            differ: differ.collect(),
            asked: asked.clone(),
        }
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> u64 {
        let ids = self.differ.iter();
        let ids = ids.map(|id| size_of::<EndpointId>() + id.target.len() + id.address.len());
        2 * ids.sum::<usize>() as u64
    }

    pub(crate) fn takes(&self, id: &EndpointId) -> bool {
        let nameless = self.asked.is_called(id, &EndpointNames::default());
        self.asked.is_at(id) && nameless != self.differ.contains(id)
    }
}

impl EndpointFilter {
    /// Whether names are asked for.
    pub fn is_by_name(&self) -> bool {
        self.listener.is_some() || self.upstream.is_some() || self.backend.is_some()
    }

    fn is_at(&self, id: &EndpointId) -> bool {
        let address = self.address.as_ref();
        self.role.is_none_or(|role| role == id.role)
            && address.is_none_or(|address| *address == id.address)
    }

    /// Whether an endpoint with these names is one that is asked for.
    pub(crate) fn is_called(&self, id: &EndpointId, names: &EndpointNames) -> bool {
        let listener = match names.name.as_str() {
            "" => id.address.as_str(),
            name => name,
        };
        let is = |asked: &Option<String>, names: &[&str]| {
            let asked = asked.as_deref();
            asked.is_none_or(|asked| names.contains(&asked))
        };
        is(&self.listener, &[listener])
            && is(&self.upstream, &[&names.upstream])
            && is(&self.backend, &[&names.backend, &id.address])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(
        role: v1::Role,
        address: &str,
        [name, upstream, backend]: [&str; 3],
    ) -> v1::Endpoint {
        v1::Endpoint {
            role: role.into(),
            address: address.to_owned(),
            name: name.to_owned(),
            upstream: upstream.to_owned(),
            backend: backend.to_owned(),
            ..v1::Endpoint::default()
        }
    }

    #[test]
    fn names_are_those_of_the_newest_report_and_addresses_where_there_is_none() {
        let (down, up) = (v1::Role::Downstream, v1::Role::Upstream);
        let newest = v1::Report {
            endpoints: vec![
                endpoint(down, "a:80", ["shop", "", ""]),
                endpoint(down, "b:80", ["", "", ""]),
                endpoint(down, "c:80", ["b:80", "", ""]),
                endpoint(up, "d:80", ["", "api", "one"]),
                endpoint(up, "e:80", ["", "api", "two"]),
                endpoint(up, "f:80", ["", "other", "one"]),
            ],
            ..v1::Report::default()
        };
        let taken = |role: v1::Role, [listener, upstream, backend]: [&str; 3]| {
            let asked = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let filter = EndpointFilter {
                role: Some(role.into()),
                listener: asked(listener),
                upstream: asked(upstream),
                backend: asked(backend),
                ..EndpointFilter::default()
            };
            let own = HostFilter::new(&filter, Some(&newest));
            // One that the newest report does not have any more.
            let gone = endpoint(role, "z:80", ["", "", ""]);
            let all = newest.endpoints.iter().chain([&gone]);
            let taken = all.filter(|e| own.takes(&EndpointId::from(*e)));
            taken.map(|e| e.address.clone()).collect::<Vec<_>>()
        };
        for (role, names, expected) in [
            (down, ["shop", "", ""], &["a:80"][..]),
            (down, ["a:80", "", ""], &[]),
            (down, ["b:80", "", ""], &["b:80", "c:80"]),
            (down, ["z:80", "", ""], &["z:80"]),
            (up, ["", "api", ""], &["d:80", "e:80"]),
            (up, ["", "api", "one"], &["d:80"]),
            (up, ["", "api", "e:80"], &["e:80"]),
            (up, ["", "", "one"], &["d:80", "f:80"]),
            (up, ["", "", "z:80"], &["z:80"]),
            (up, ["", "gone", ""], &[]),
        ] {
            assert_eq!(taken(role, names), expected, "{names:?}");
        }
    }
}
