//! Counters that are told apart by a label, as every output has them.

use crate::{figures, json, protocol, v1};

/// Failed connections by reason.  Every reason is there from the start, so that
/// its first failure shows as an increase.
#[must_use]
pub fn connections_failed(counters: &v1::Counters) -> Vec<(String, u64)> {
    let failed = counters.connections_failed.unwrap_or_default();
    let reasons = figures::CONNECTIONS_FAILED.iter();
    reasons
        .map(|reason| (reason.name.to_owned(), (reason.read)(&failed)))
        .collect()
}

/// Requests by method, ordered by it.  What the methods do not add up to is of
/// `_OTHER`; where requests cannot be seen there is nothing.
#[must_use]
pub fn requests_by_method(counters: &v1::Counters) -> Vec<(String, u64)> {
    let Some(http) = protocol::seen(counters) else {
        return Vec::new();
    };
    let methods = http.requests_by_method.values();
    let named = methods.fold(0u64, |sum, &n| sum.saturating_add(n));
    let mut methods = http.requests_by_method.clone();
    let rest = http.requests.saturating_sub(named);
    if rest > 0 || methods.is_empty() {
        let other = methods.entry("_OTHER".to_owned()).or_default();
        *other = other.saturating_add(rest);
    }
    let mut methods: Vec<_> = methods.into_iter().collect();
    methods.sort_unstable();
    methods
}

/// Responses by class of their status code; where they cannot be seen there is
/// nothing.
#[must_use]
pub fn responses(counters: &v1::Counters) -> Vec<(String, u64)> {
    let Some(http) = protocol::seen(counters) else {
        return Vec::new();
    };
    let r = json::Responses::from_codes(&http.responses_by_code);
    let classes = [
        ("1xx", r.informational),
        ("2xx", r.successful),
        ("3xx", r.redirection),
        ("4xx", r.client_error),
        ("5xx", r.server_error),
    ];
    classes.map(|(class, n)| (class.to_owned(), n)).into()
}

/// Time in which tasks waited since boot, in microseconds, by resource and by
/// whether some or all (`full`) of them did.  Of the whole host's CPUs the latter
/// says nothing: the kernel has 0 there.
pub fn pressure(host: &v1::HostMetrics) -> impl Iterator<Item = (&str, &'static str, u64)> {
    host.pressure.iter().flat_map(|p| {
        let full = (p.resource != "cpu").then_some(("full", p.full_total_us));
        let stalls = [("some", p.some_total_us)].into_iter().chain(full);
        stalls.map(|(stall, us)| (p.resource.as_str(), stall, us))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_named_method_are_of_another_one() {
        let mut counters = v1::Counters::default();
        assert!(requests_by_method(&counters).is_empty());
        assert!(responses(&counters).is_empty());
        counters.http = Some(v1::HttpCounters::default());
        assert_eq!(requests_by_method(&counters), [("_OTHER".to_owned(), 0)]);
        counters.http = Some(v1::HttpCounters {
            requests: 5,
            requests_by_method: [("PUT".to_owned(), 1), ("GET".to_owned(), 3)].into(),
            ..Default::default()
        });
        let expected = [("GET", 3), ("PUT", 1), ("_OTHER", 1)];
        let expected = expected.map(|(method, n)| (method.to_owned(), n));
        assert_eq!(requests_by_method(&counters), expected);
    }

    #[test]
    fn hostile_counts_are_taken() {
        let mut counters = v1::Counters {
            http: Some(v1::HttpCounters::default()),
            ..Default::default()
        };
        let http = counters.http.as_mut().unwrap();
        http.requests_by_method = [("A".to_owned(), u64::MAX), ("B".to_owned(), 1)].into();
        assert_eq!(requests_by_method(&counters).len(), 2);
    }
}
