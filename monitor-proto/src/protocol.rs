//! What an endpoint's connections speak, as far as its counters tell: the one
//! place that decides which figures of HTTP can be seen.
//!
//! Of streams that are not HTTP/1, TLS and HTTP/2 above all, only turns are
//! seen.  How many requests and errors these hold nobody knows, and so they have
//! none to show: a 0 would say that all is well.

use serde::{Deserialize, Serialize};

use crate::v1;

/// What was seen on an endpoint's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1 alone: every request and response is counted.
    Http1,
    /// Streams that are not HTTP/1 alone: requests and responses cannot be seen,
    /// and durations are those of exchanges.
    Other,
    /// Both: requests and responses are those of HTTP/1, durations of both.
    Mixed,
}

impl Protocol {
    /// What these counters tell; `None` at level tcp, and where there was no turn.
    #[must_use]
    pub fn of(counters: &v1::Counters) -> Option<Self> {
        let http = counters.http.as_ref()?;
        // A response may come in the window after its request.
        let is_http1 = http.requests > 0
            || http.requests_without_response > 0
            || http.responses_by_code.values().any(|&n| n > 0);
        match (is_http1, http.exchanges) {
            (true, 0) => Some(Self::Http1),
            (true, _) => Some(Self::Mixed),
            (false, 0) => None,
            (false, _) => Some(Self::Other),
        }
    }

    /// What an endpoint's window tells; where it was idle, its totals.
    #[must_use]
    pub fn of_window(endpoint: &v1::Endpoint) -> Option<Self> {
        let window = endpoint.window.as_ref()?;
        window.http.as_ref()?;
        Self::of(window).or_else(|| Self::of(endpoint.totals.as_ref()?))
    }

    /// Why not all requests and responses are seen, where there were TLS handshakes or
    /// not; `None` where all are.
    #[must_use]
    pub fn reason(self, has_tls: bool) -> Option<&'static str> {
        match (self, has_tls) {
            (Self::Http1, _) => None,
            (Self::Other, true) => Some("TLS"),
            (Self::Other, false) => Some("not HTTP/1"),
            (Self::Mixed, true) => Some("in part TLS"),
            (Self::Mixed, false) => Some("in part not HTTP/1"),
        }
    }
}

/// The counters of HTTP, where requests and responses can be seen in them.
#[must_use]
pub fn seen(counters: &v1::Counters) -> Option<&v1::HttpCounters> {
    counters
        .http
        .as_ref()
        .filter(|_| Protocol::of(counters) != Some(Protocol::Other))
}

/// The same of an endpoint's window.
#[must_use]
pub fn seen_in_window(endpoint: &v1::Endpoint) -> Option<&v1::HttpCounters> {
    let http = endpoint.window.as_ref()?.http.as_ref();
    http.filter(|_| Protocol::of_window(endpoint) != Some(Protocol::Other))
}

/// TLS handshakes that failed; `None` where they were not counted.
#[must_use]
pub fn tls_failed(http: &v1::HttpCounters) -> Option<u64> {
    let (alert, end) = (
        http.tls_handshakes_failed_alert,
        http.tls_handshakes_failed_end,
    );
    Some(alert?.saturating_add(end?))
}

/// Whether an endpoint has had TLS handshakes.
#[must_use]
pub fn has_tls(endpoint: &v1::Endpoint) -> bool {
    let totals = endpoint.totals.as_ref();
    let http = totals.and_then(|totals| totals.http.as_ref());
    http.is_some_and(|http| http.tls_handshakes > Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(http: Option<(u64, u64)>) -> v1::Counters {
        v1::Counters {
            http: http.map(|(requests, exchanges)| v1::HttpCounters {
                requests,
                exchanges,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn endpoint(window: Option<(u64, u64)>, totals: Option<(u64, u64)>) -> v1::Endpoint {
        v1::Endpoint {
            window: Some(counters(window)),
            totals: Some(counters(totals)),
            ..Default::default()
        }
    }

    #[test]
    fn requests_are_seen_where_there_are_some_or_nothing_hid_them() {
        for (window, totals, protocol, shown) in [
            (Some((5, 0)), Some((9, 0)), Some(Protocol::Http1), true),
            (Some((0, 7)), Some((0, 9)), Some(Protocol::Other), false),
            (Some((5, 7)), Some((9, 9)), Some(Protocol::Mixed), true),
            // A stray plain request long ago does not make TLS visible.
            (Some((0, 7)), Some((1, 900)), Some(Protocol::Other), false),
            // An idle window tells nothing; the totals do.
            (Some((0, 0)), Some((0, 9)), Some(Protocol::Other), false),
            (Some((0, 0)), Some((3, 0)), Some(Protocol::Http1), true),
            (Some((0, 0)), Some((0, 0)), None, true),
            (None, Some((9, 0)), None, false),
        ] {
            let endpoint = endpoint(window, totals);
            assert_eq!(
                Protocol::of_window(&endpoint),
                protocol,
                "{window:?} {totals:?}"
            );
            assert_eq!(
                seen_in_window(&endpoint).is_some(),
                shown,
                "{window:?} {totals:?}"
            );
        }
        assert!(seen(&counters(Some((0, 9)))).is_none());
        let mut answered = counters(Some((0, 9)));
        answered.http.as_mut().unwrap().responses_by_code = [("503".to_owned(), 1)].into();
        assert!(
            seen(&answered).is_some(),
            "of a request in the window before"
        );
        assert!(seen(&counters(Some((1, 9)))).is_some());
        assert!(seen(&counters(Some((0, 0)))).is_some());
    }
}
