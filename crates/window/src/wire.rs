//! The kernel's counters as the report's messages.

use kernel_sample::Level;
use monitor_common::{
    counters::{Durations, EndpointCounters, Failure},
    ending::{ENDINGS, Ending},
    endpoint::Role,
    histogram::{OFFSET, SCALE},
    http::{self, Method},
    protocol::Protocol,
    tls::Outcome,
};
use monitor_proto::{histogram, http_counters, tcp_counters, v1};

/// An endpoint's counters.  Without `http` (level tcp), what level http alone
/// counts is absent.
pub(super) fn counters(c: &EndpointCounters, http: bool) -> v1::Counters {
    tcp_counters!(
        c,
        connections_failed: Some(failed(c)),
        connections_closed: c.closed(),
        closed_fin_sent: by(&c.connections_closed, Ending::FinSent),
        closed_fin_received: by(&c.connections_closed, Ending::FinReceived),
        closed_reset_sent: by(&c.connections_closed, Ending::ResetSent),
        closed_reset_received: by(&c.connections_closed, Ending::ResetReceived),
        closed_timeout: by(&c.connections_closed, Ending::Timeout),
        closed_other: by(&c.connections_closed, Ending::Other),
        connect_duration: Some(durations(&c.connect)),
        http: http.then(|| http_counters(c)),
    )
}

/// Whether anything was counted that level http alone counts.
pub(super) fn has_http(c: &EndpointCounters) -> bool {
    http_counters(c) != http_counters(&EndpointCounters::ZERO)
}

/// How many ended so.
fn by(ends: &[u64; ENDINGS], ending: Ending) -> Option<u64> {
    Some(ends[ending as usize])
}

fn failed(c: &EndpointCounters) -> v1::ConnectionsFailed {
    let by = |reason: Failure| c.connections_failed[reason as usize];
    v1::ConnectionsFailed {
        refused: by(Failure::Refused),
        timeout: by(Failure::Timeout),
        reset: by(Failure::Reset),
        unreachable: by(Failure::Unreachable),
        aborted: by(Failure::Aborted),
        other: by(Failure::Other),
    }
}

fn http_counters(c: &EndpointCounters) -> v1::HttpCounters {
    let methods = Method::ALL.iter().map(|m| m.name()).zip(c.requests);
    let codes = c.responses.iter().enumerate();
    let codes = codes.filter_map(|(i, &n)| Some((http::code_name(i)?, n)));
    let named = |(name, n): (&str, u64)| (n > 0).then(|| (name.to_owned(), n));
    http_counters!(
        c,
        requests: c.requests.iter().sum(),
        requests_by_method: methods.filter_map(named).collect(),
        responses_by_code: codes.filter_map(named).collect(),
        closed_before_response_fin_sent: by(&c.closed_before_response, Ending::FinSent),
        closed_before_response_fin_received: by(&c.closed_before_response, Ending::FinReceived),
        closed_before_response_reset_sent: by(&c.closed_before_response, Ending::ResetSent),
        closed_before_response_reset_received: by(&c.closed_before_response, Ending::ResetReceived),
        closed_before_response_timeout: by(&c.closed_before_response, Ending::Timeout),
        closed_before_response_other: by(&c.closed_before_response, Ending::Other),
        closed_within_response_fin_sent: by(&c.closed_within_response, Ending::FinSent),
        closed_within_response_fin_received: by(&c.closed_within_response, Ending::FinReceived),
        closed_within_response_reset_sent: by(&c.closed_within_response, Ending::ResetSent),
        closed_within_response_reset_received: by(&c.closed_within_response, Ending::ResetReceived),
        closed_within_response_timeout: by(&c.closed_within_response, Ending::Timeout),
        closed_within_response_other: by(&c.closed_within_response, Ending::Other),
        connections_http1: Some(c.of_protocol(Protocol::Http1)),
        connections_http2: Some(c.of_protocol(Protocol::Http2)),
        connections_fastcgi: Some(c.of_protocol(Protocol::Fastcgi)),
        connections_uwsgi: Some(c.of_protocol(Protocol::Uwsgi)),
        connections_memcached: Some(c.of_protocol(Protocol::Memcached)),
        connections_redis: Some(c.of_protocol(Protocol::Redis)),
        connections_postgresql: Some(c.of_protocol(Protocol::Postgresql)),
        connections_other_protocol: Some(c.of_protocol(Protocol::Other)),
        connections_unknown_protocol: Some(c.of_protocol(Protocol::Unknown)),
        tls_handshakes_completed: Some(c.tls_ended(Outcome::Completed)),
        tls_handshakes_failed_alert: Some(c.tls_ended(Outcome::Alert)),
        tls_handshakes_failed_end: Some(c.tls_ended(Outcome::End)),
        tls_handshakes_unknown: Some(c.tls_ended(Outcome::Unknown)),
        // Hardly any endpoint speaks TLS: no histogram for all others.
        tls_handshake_duration: saw_tls(c).then(|| durations(&c.tls_handshake)),
        exchange_duration: Some(durations(&c.exchange)),
    )
}

/// A handshake may begin in one window and be over in another one.
fn saw_tls(c: &EndpointCounters) -> bool {
    c.tls_handshakes != 0 || c.tls_handshake.buckets.iter().any(|n| *n != 0)
}

fn durations(d: &Durations) -> v1::Histogram {
    let mut histogram = v1::Histogram {
        count: d.buckets.iter().sum(),
        sum_ns: d.sum_ns,
        scale: SCALE,
        offset: OFFSET,
        buckets: d.buckets.to_vec(),
    };
    histogram::trim(&mut histogram);
    histogram
}

pub(super) fn role(role: Role) -> v1::Role {
    match role {
        Role::Downstream => v1::Role::Downstream,
        Role::Upstream => v1::Role::Upstream,
    }
}

pub(super) fn level(level: Level) -> v1::Level {
    match level {
        Level::Tcp => v1::Level::Tcp,
        Level::Http => v1::Level::Http,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_has_its_name_and_all_of_them_are_what_was_closed() {
        let mut c = EndpointCounters::ZERO;
        c.connections_closed = [1, 2, 3, 4, 5, 6];
        c.closed_before_response = [7, 0, 0, 0, 0, 8];
        c.closed_within_response[Ending::ResetReceived as usize] = 9;
        c.closed_response_unknown = 10;
        let told = counters(&c, true);
        assert_eq!(told.connections_closed, 21);
        let ends = [
            told.closed_fin_sent,
            told.closed_fin_received,
            told.closed_reset_sent,
            told.closed_reset_received,
            told.closed_timeout,
            told.closed_other,
        ];
        assert_eq!(ends, [1, 2, 3, 4, 5, 6].map(Some));
        let http = told.http.unwrap();
        assert_eq!(http.closed_before_response_fin_sent, Some(7));
        assert_eq!(http.closed_before_response_other, Some(8));
        assert_eq!(http.closed_within_response_reset_received, Some(9));
        assert_eq!(http.closed_response_unknown, Some(10));
    }

    #[test]
    fn tls_handshakes_have_their_ends() {
        let mut c = EndpointCounters::ZERO;
        c.tls_handshakes = 11;
        c.tls_handshakes_ended = [1, 2, 3, 4];
        c.tls_handshake.buckets[40] = 1;
        let http = counters(&c, true).http.unwrap();
        assert_eq!(
            [
                http.tls_handshakes,
                http.tls_handshakes_completed,
                http.tls_handshakes_failed_alert,
                http.tls_handshakes_failed_end,
                http.tls_handshakes_unknown,
            ],
            [11, 1, 2, 3, 4].map(Some)
        );
        assert_eq!(http.tls_handshake_duration.unwrap().count, 1);
        // It began in the window before.
        c.tls_handshakes = 0;
        let http = counters(&c, true).http.unwrap();
        assert_eq!(http.tls_handshake_duration.unwrap().count, 1);
        c.tls_handshake.buckets[40] = 0;
        assert_eq!(
            counters(&c, true).http.unwrap().tls_handshake_duration,
            None
        );
    }

    #[test]
    fn connections_have_their_protocols() {
        let mut c = EndpointCounters::ZERO;
        c.connections_by_protocol = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let http = counters(&c, true).http.unwrap();
        assert_eq!(
            [
                http.connections_http1,
                http.connections_http2,
                http.connections_fastcgi,
                http.connections_uwsgi,
                http.connections_memcached,
                http.connections_redis,
                http.connections_postgresql,
                http.connections_other_protocol,
                http.connections_unknown_protocol,
            ],
            [1, 2, 3, 4, 5, 6, 7, 8, 9].map(Some)
        );
    }

    #[test]
    fn requests_and_responses_have_their_names() {
        let mut c = EndpointCounters::ZERO;
        c.requests[Method::Get as usize] = 3;
        c.responses[http::code_index(200).unwrap()] = 2;
        c.responses[http::code_index(404).unwrap()] = 1;
        let http = counters(&c, true).http.unwrap();
        assert_eq!(http.requests, 3);
        assert_eq!(http.requests_by_method, [("GET".to_owned(), 3)].into());
        let codes = [("200".to_owned(), 2), ("404".to_owned(), 1)];
        assert_eq!(http.responses_by_code, codes.into());
        assert!(has_http(&c) && !has_http(&EndpointCounters::ZERO));
    }

    #[test]
    fn at_level_tcp_what_is_not_counted_is_absent() {
        let c = counters(&EndpointCounters::ZERO, false);
        assert_eq!(c.http, None);
    }

    #[test]
    fn histograms_begin_at_their_first_value() {
        let mut c = EndpointCounters::ZERO;
        c.connect.buckets[10] = 4;
        c.connect.buckets[12] = 1;
        c.connect.sum_ns = 99;
        let h = counters(&c, false).connect_duration.unwrap();
        assert_eq!(
            (h.count, h.sum_ns, h.scale, h.offset),
            (5, 99, 2, OFFSET + 10)
        );
        assert_eq!(h.buckets, [4, 0, 1]);
    }
}
