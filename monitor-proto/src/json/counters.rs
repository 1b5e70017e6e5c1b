//! The counters of an endpoint, of a window or in total.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{histogram, protocol, v1};

/// Every counter of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections that were open before counting began.
    pub connections_adopted: u64,
    /// Connections begun: a SYN sent (upstream), a handshake done (downstream).
    pub connections_opened: u64,
    /// Connections whose handshake was completed.
    pub connections_established: u64,
    /// Connections that failed before they were established, by reason.
    pub connections_failed: ConnectionsFailed,
    /// Attempts that died before a SYN; not among the opened ones.
    pub failed_before_syn: u64,
    /// Established connections that ended.
    pub connections_closed: u64,
    /// Payload that arrived in order.
    pub bytes_received: u64,
    /// Payload that the peer acknowledged.
    pub bytes_sent: u64,
    /// Payload sent and never acknowledged before the end.
    pub bytes_unacked: u64,
    /// TCP segments received.
    pub packets_received: u64,
    /// TCP segments sent.
    pub packets_sent: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// SYN to established, of actively opened connections.
    pub connect_duration: Histogram,
    /// HTTP/1 requests; `null` at level tcp, and where none can be seen: on
    /// connections that are not HTTP/1.
    pub requests: Option<u64>,
    /// The same by method.
    pub requests_by_method: Option<BTreeMap<String, u64>>,
    /// HTTP/1 responses by class; `null` as requests are.
    pub responses: Option<Responses>,
    /// The same by status code.
    pub responses_by_code: Option<BTreeMap<String, u64>>,
    /// Requests whose connection ended before a final response.
    pub requests_without_response: Option<u64>,
    /// Exchanges of streams that are not HTTP/1, such as TLS; `null` at level tcp.
    pub exchanges: Option<u64>,
    /// First byte of the request to first byte of the final response, and of the
    /// exchanges of streams that are not HTTP/1 alike: `protocol` tells.
    pub exchange_duration: Option<Histogram>,
    /// Start lines that were expected and could not be read.
    pub unparsed: Option<u64>,
    /// Sockets on which requests were pipelined.
    pub pipelined: Option<u64>,
    /// Turns that may belong to a request that was counted already.
    pub suspected: Option<u64>,
}

/// Failed connections by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsFailed {
    /// Answered by a reset.
    pub refused: u64,
    /// Never answered.
    pub timeout: u64,
    /// Reset while the handshake was under way.
    pub reset: u64,
    /// Answered by an ICMP error.
    pub unreachable: u64,
    /// Closed locally before it was established.
    pub aborted: u64,
    /// None of these.
    pub other: u64,
}

impl ConnectionsFailed {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let reasons = [
            self.refused,
            self.timeout,
            self.reset,
            self.unreachable,
            self.aborted,
        ];
        reasons.into_iter().fold(self.other, u64::saturating_add)
    }
}

/// Responses by class of their status code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responses {
    /// 100 to 199; interim, so a request may have several.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    pub successful: u64,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 500 to 599.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// A histogram of durations with its quantiles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// The median; `null` where there is no value.
    pub p50_ms: Option<f64>,
    /// 90 % lie below.
    pub p90_ms: Option<f64>,
    /// 99 % lie below.
    pub p99_ms: Option<f64>,
    /// 2^scale buckets per octave.
    pub scale: i32,
    /// The index of the first bucket.
    pub offset: i32,
    /// The counts; empty buckets at both ends are left out.
    pub buckets: Vec<u64>,
}

impl From<&v1::Histogram> for Histogram {
    fn from(h: &v1::Histogram) -> Self {
        let quantile_ms = |q| histogram::quantile_seconds(h, q).map(|s| s * 1e3);
        Self {
            count: h.count,
            sum_ns: h.sum_ns,
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p99_ms: quantile_ms(0.99),
            scale: h.scale,
            offset: h.offset,
            buckets: h.buckets.clone(),
        }
    }
}

impl From<&v1::ConnectionsFailed> for ConnectionsFailed {
    fn from(f: &v1::ConnectionsFailed) -> Self {
        Self {
            refused: f.refused,
            timeout: f.timeout,
            reset: f.reset,
            unreachable: f.unreachable,
            aborted: f.aborted,
            other: f.other,
        }
    }
}

impl Responses {
    /// Sums codes ("200") and class remainders ("2XX") by their first digit.
    #[must_use]
    pub fn from_codes(codes: &BTreeMap<String, u64>) -> Self {
        let mut sums = Self::default();
        for (code, &n) in codes {
            let class = match code.as_bytes().first() {
                Some(b'1') => &mut sums.informational,
                Some(b'2') => &mut sums.successful,
                Some(b'3') => &mut sums.redirection,
                Some(b'4') => &mut sums.client_error,
                Some(b'5') => &mut sums.server_error,
                _ => continue,
            };
            *class = class.saturating_add(n);
        }
        sums
    }
}

impl From<&v1::Counters> for Counters {
    fn from(c: &v1::Counters) -> Self {
        Self::new(c, protocol::seen(c))
    }
}

impl Counters {
    /// The counters, of which requests and responses are those of `seen`.
    pub(super) fn new(c: &v1::Counters, seen: Option<&v1::HttpCounters>) -> Self {
        let http = c.http.as_ref();
        Self {
            connections_adopted: c.connections_adopted,
            connections_opened: c.connections_opened,
            connections_established: c.connections_established,
            connections_failed: c
                .connections_failed
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            failed_before_syn: c.failed_before_syn,
            connections_closed: c.connections_closed,
            bytes_received: c.bytes_received,
            bytes_sent: c.bytes_sent,
            bytes_unacked: c.bytes_unacked,
            packets_received: c.packets_received,
            packets_sent: c.packets_sent,
            retransmits: c.retransmits,
            connect_duration: c
                .connect_duration
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            requests: seen.map(|h| h.requests),
            requests_by_method: seen.map(|h| h.requests_by_method.clone()),
            responses: seen.map(|h| Responses::from_codes(&h.responses_by_code)),
            responses_by_code: seen.map(|h| h.responses_by_code.clone()),
            requests_without_response: seen.map(|h| h.requests_without_response),
            exchanges: http.map(|h| h.exchanges),
            exchange_duration: http.map(|h| {
                h.exchange_duration
                    .as_ref()
                    .map(Into::into)
                    .unwrap_or_default()
            }),
            unparsed: http.map(|h| h.unparsed),
            pipelined: http.map(|h| h.pipelined),
            suspected: http.map(|h| h.suspected),
        }
    }
}
