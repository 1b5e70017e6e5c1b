//! What an endpoint's connections speak, as far as its counters tell: the one
//! place that decides which figures of HTTP can be seen.
//!
//! Of streams that are not HTTP/1, TLS and HTTP/2 above all, only turns are
//! seen.  How many requests and errors these hold nobody knows, and so they have
//! none to show: a 0 would say that all is well.

use std::fmt;

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

    /// Why not all requests and responses are seen: what is spoken, as far as that is
    /// known; `None` where all are.
    #[must_use]
    pub fn reason(self, spoken: Spoken) -> Option<String> {
        let spoken = if spoken == Spoken::default() {
            "not HTTP/1".to_owned()
        } else {
            spoken.to_string()
        };
        match self {
            Self::Http1 => None,
            Self::Other => Some(spoken),
            Self::Mixed => Some(format!("in part {spoken}")),
        }
    }
}

/// What an endpoint's connections speak besides HTTP/1, by the first bytes of their
/// clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    seen: [bool; SPOKEN.len()],
}

/// The protocols that have a counter, and the counter's name.
const SPOKEN: [(&str, &str); 7] = [
    ("TLS", "tls_handshakes"),
    ("HTTP/2", "connections_http2"),
    ("FastCGI", "connections_fastcgi"),
    ("uwsgi", "connections_uwsgi"),
    ("memcached", "connections_memcached"),
    ("Redis", "connections_redis"),
    ("PostgreSQL", "connections_postgresql"),
];

/// From a struct that has these counters as its fields.
macro_rules! spoken {
    ($counters:expr) => {
        $crate::protocol::Spoken::by(|name| match name {
            "tls_handshakes" => $counters.tls_handshakes,
            "connections_http2" => $counters.connections_http2,
            "connections_fastcgi" => $counters.connections_fastcgi,
            "connections_uwsgi" => $counters.connections_uwsgi,
            "connections_memcached" => $counters.connections_memcached,
            "connections_redis" => $counters.connections_redis,
            "connections_postgresql" => $counters.connections_postgresql,
            _ => None,
        })
    };
}
pub(crate) use spoken;

impl Spoken {
    /// From counters by their names.
    #[must_use]
    pub fn by(counter: impl Fn(&str) -> Option<u64>) -> Self {
        let seen = SPOKEN.map(|(_, name)| counter(name) > Some(0));
        Self { seen }
    }

    /// What an endpoint's connections ever spoke.
    #[must_use]
    pub fn of(endpoint: &v1::Endpoint) -> Self {
        let totals = endpoint.totals.as_ref();
        let http = totals.and_then(|totals| totals.http.as_ref());
        http.map_or_else(Self::default, |http| spoken!(http))
    }

    /// Whether there were TLS handshakes.
    #[must_use]
    pub fn has_tls(self) -> bool {
        self.seen[0]
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = SPOKEN.iter().zip(self.seen);
        let seen: Vec<_> = names
            .filter_map(|((name, _), seen)| seen.then_some(*name))
            .collect();
        f.write_str(&seen.join(", "))
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

    /// In a report, in its JSON, and in a summary's.
    #[test]
    fn each_protocol_is_told_by_its_counter() {
        type Set = fn(&mut v1::HttpCounters) -> &mut Option<u64>;
        let counters: [(&str, &str, Set); 7] = [
            ("TLS", "tls_handshakes", |h| &mut h.tls_handshakes),
            ("HTTP/2", "connections_http2", |h| &mut h.connections_http2),
            ("FastCGI", "connections_fastcgi", |h| {
                &mut h.connections_fastcgi
            }),
            ("uwsgi", "connections_uwsgi", |h| &mut h.connections_uwsgi),
            ("memcached", "connections_memcached", |h| {
                &mut h.connections_memcached
            }),
            ("Redis", "connections_redis", |h| &mut h.connections_redis),
            ("PostgreSQL", "connections_postgresql", |h| {
                &mut h.connections_postgresql
            }),
        ];
        for (name, counter, set) in counters {
            let mut e = endpoint(Some((0, 0)), Some((0, 9)));
            let http = e.totals.as_mut().and_then(|totals| totals.http.as_mut());
            *set(http.unwrap()) = Some(2);
            assert_eq!(Spoken::of(&e).to_string(), name);
            assert_eq!(Spoken::of(&e).has_tls(), name == "TLS");
            assert_eq!(crate::json::Endpoint::from(&e).spoken(), Spoken::of(&e));
            let figures = crate::json::SummaryFigures {
                counters: [(counter.to_owned(), Some(2))].into(),
                ..Default::default()
            };
            assert_eq!(figures.spoken(), Spoken::of(&e));
        }
        assert_eq!(Spoken::of(&endpoint(None, None)), Spoken::default());
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
