//! What the endpoints of a host are sorted by.

use std::cmp::Ordering;

use monitor_proto::json::{Endpoint, Report};

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    #[default]
    Name,
    Requests,
    Errors,
    P99,
    Bytes,
    Active,
}

impl SortBy {
    /// By the key that chooses it, and what the line of keys says.
    pub(super) const ALL: [(char, &'static str, Self); 6] = [
        ('n', "name", Self::Name),
        ('r', "req/s", Self::Requests),
        ('e', "5xx", Self::Errors),
        ('l', "p99", Self::P99),
        ('b', "bytes", Self::Bytes),
        ('a', "active", Self::Active),
    ];

    /// What cannot be seen is less than any figure.
    fn figure(self, e: &Endpoint) -> Option<f64> {
        let w = &e.window;
        match self {
            Self::Name => None,
            Self::Requests => w.requests.map(|n| n as f64),
            Self::Errors => w.responses.map(|r| r.server_error as f64),
            Self::P99 => w.exchange_duration.as_ref().and_then(|d| d.p99_ms),
            Self::Bytes => Some(w.bytes_received as f64 + w.bytes_sent as f64),
            Self::Active => Some(e.connections_active as f64),
        }
    }
}

/// What an endpoint is called: with its upstream, where the configuration names
/// one.
pub(super) fn label(e: &Endpoint) -> String {
    match (e.upstream.as_str(), e.name.as_str()) {
        ("", "") => e.address.clone(),
        ("", name) => format!("{name} {}", e.address),
        (upstream, "") => format!("{upstream}/{}", e.address),
        (upstream, name) => format!("{upstream}/{name}"),
    }
}

/// The endpoints in this order: figures from the largest on, names from the
/// first, or the other way round.
pub(super) fn sorted(report: &Report, by: SortBy, inverted: bool) -> Vec<&Endpoint> {
    let mut all: Vec<&Endpoint> = report.endpoints.iter().collect();
    let name = |e: &Endpoint| (e.role.clone(), label(e), e.target.clone());
    all.sort_by(|a, b| {
        let figures = by.figure(b).partial_cmp(&by.figure(a));
        let order = match by {
            SortBy::Name => name(a).cmp(&name(b)),
            _ => figures.unwrap_or(Ordering::Equal),
        };
        let order = if inverted { order.reverse() } else { order };
        // Among equals the order stays the same from report to report.
        order.then_with(|| name(a).cmp(&name(b)))
    });
    all
}

#[cfg(test)]
mod tests {
    use monitor_proto::v1;

    use super::*;

    fn report() -> Report {
        let endpoint = |address: &str, requests, bytes_sent| v1::Endpoint {
            address: address.to_owned(),
            window: Some(v1::Counters {
                bytes_sent,
                http: Some(v1::HttpCounters {
                    requests,
                    exchanges: u64::from(requests == 0),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Report::from(&v1::Report {
            endpoints: vec![
                endpoint("b", 7, 1),
                endpoint("tls", 0, 9),
                endpoint("a", 8, 1),
            ],
            ..Default::default()
        })
    }

    #[test]
    fn endpoints_come_in_the_order_that_is_asked() {
        let report = report();
        for (by, inverted, expected) in [
            (SortBy::Name, false, ["a", "b", "tls"]),
            (SortBy::Name, true, ["tls", "b", "a"]),
            // What cannot be seen comes last.
            (SortBy::Requests, false, ["a", "b", "tls"]),
            (SortBy::Bytes, false, ["tls", "a", "b"]),
            (SortBy::Bytes, true, ["a", "b", "tls"]),
        ] {
            let sorted = sorted(&report, by, inverted);
            let addresses: Vec<_> = sorted.iter().map(|e| e.address.as_str()).collect();
            assert_eq!(addresses, expected, "{by:?} {inverted}");
        }
    }
}
