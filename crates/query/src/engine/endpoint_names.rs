//! What the proxy's configuration calls endpoints, from the labels of their series.

use std::collections::HashMap;

use rollup::EndpointId;

use super::{Series, series};
use crate::named_series::{EndpointNames, NamedSeries};

/// A total that every endpoint has, whose labels tell its names.
pub(super) const NAMED: &str = "speedmimi_bytes_received_total";

/// Gives each series the names that its endpoint had last: they may have changed while
/// its totals went on, so that of two in one step those with the larger total are later.
pub(super) fn give(series: &mut [NamedSeries], labels: &[Series]) {
    let last = |labels: &Series| labels.values.last().copied().unwrap_or_default();
    let mut by_age: Vec<&Series> = labels.iter().collect();
    by_age.sort_by(|a, b| {
        let ((at_a, total_a), (at_b, total_b)) = (last(a), last(b));
        at_a.total_cmp(&at_b).then(total_a.total_cmp(&total_b))
    });
    // The later ones replace the earlier.
    let newest: HashMap<(&str, EndpointId), &Series> = by_age
        .into_iter()
        .map(|labels| {
            (
                (labels.label("host_id"), series::endpoint_id(labels)),
                labels,
            )
        })
        .collect();
    for one in series {
        let Some(id) = one.endpoint.clone() else {
            continue;
        };
        if let Some(labels) = newest.get(&(one.host_id.as_str(), id)) {
            one.names = EndpointNames {
                name: labels.label("listener").to_owned(),
                upstream: labels.label("upstream").to_owned(),
                backend: labels.label("backend").to_owned(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Samples;

    fn labels(backend: &str, values: &[(f64, f64)]) -> Series {
        let labels = [
            ("host_id", "h"),
            ("role", "upstream"),
            ("endpoint", "e"),
            ("upstream", "api"),
            ("backend", backend),
        ];
        Series {
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn an_endpoint_has_the_names_that_it_had_last() {
        let named = |old: &[(f64, f64)], new: &[(f64, f64)]| {
            let old = labels("old", old);
            let mut series = ["h", "other"].map(|host| NamedSeries {
                host_name: String::new(),
                host_id: host.to_owned(),
                endpoint: Some(series::endpoint_id(&old)),
                names: EndpointNames::default(),
                samples: Samples::Endpoint(Vec::new()),
            });
            give(&mut series, &[labels("new", new), old]);
            assert_eq!(series[1].names, EndpointNames::default(), "of another host");
            let EndpointNames {
                name,
                upstream,
                backend,
            } = series[0].names.clone();
            assert_eq!((name.as_str(), upstream.as_str()), ("", "api"));
            backend
        };
        assert_eq!(named(&[(60.0, 9.0)], &[(120.0, 1.0)]), "new");
        assert_eq!(named(&[(60.0, 9.0), (120.0, 9.0)], &[(60.0, 1.0)]), "old");
        // It was named anew within the last step.
        assert_eq!(named(&[(120.0, 9.0)], &[(120.0, 12.0)]), "new");
    }
}
