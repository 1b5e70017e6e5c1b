//! The series of an endpoint.

use monitor_proto::{histogram, split, v1};

use super::{
    HostSample,
    families::{Family, Source},
    text::{Kind, Labels, Sink, line},
};
use crate::names;

/// What is read of an endpoint.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// A counter of the totals.
    Total(fn(&v1::Counters) -> Option<u64>),
    /// A counter split by one label.
    Split(&'static str, fn(&v1::Counters) -> Vec<(String, u64)>),
    /// A gauge, left out where the host is silent.
    Now(fn(&v1::Endpoint) -> u64),
    /// A gauge as well, of endpoints of which a round trip was seen.
    RoundTrip(fn(&v1::RoundTripTime) -> f64),
    Histogram(fn(&v1::Counters) -> Option<&v1::Histogram>),
}

const fn family(name: &'static str, kind: Kind, help: &'static str, read: Read) -> Family {
    Family {
        name,
        kind,
        help,
        source: Source::Endpoint(read),
    }
}

pub(super) const FAMILIES: &[Family] = &[
    family(
        "speedmimi_connections_active",
        Kind::Gauge,
        "Connections open now.",
        Read::Now(|e| e.connections_active),
    ),
    family(
        "speedmimi_srtt_samples",
        Kind::Gauge,
        "Smoothed round-trip times seen in the newest window.",
        Read::RoundTrip(|t| t.samples as f64),
    ),
    family(
        "speedmimi_srtt_min_seconds",
        Kind::Gauge,
        "The smallest of them.",
        Read::RoundTrip(|t| t.min_us as f64 / 1e6),
    ),
    family(
        "speedmimi_srtt_mean_seconds",
        Kind::Gauge,
        "Their mean.",
        Read::RoundTrip(|t| t.mean_us as f64 / 1e6),
    ),
    family(
        "speedmimi_srtt_max_seconds",
        Kind::Gauge,
        "The largest of them.",
        Read::RoundTrip(|t| t.max_us as f64 / 1e6),
    ),
    family(
        "speedmimi_connections_adopted_total",
        Kind::Counter,
        "Connections that were open before counting began.",
        Read::Total(|c| Some(c.connections_adopted)),
    ),
    family(
        "speedmimi_connections_opened_total",
        Kind::Counter,
        "Connections begun.",
        Read::Total(|c| Some(c.connections_opened)),
    ),
    family(
        "speedmimi_connections_closed_total",
        Kind::Counter,
        "Established connections that ended.",
        Read::Total(|c| Some(c.connections_closed)),
    ),
    family(
        "speedmimi_connections_failed_total",
        Kind::Counter,
        "Connections that failed before they were established, by reason.",
        Read::Split("reason", |c| owned(split::failed_by_reason(c))),
    ),
    family(
        "speedmimi_bytes_received_total",
        Kind::Counter,
        "Payload that arrived in order.",
        Read::Total(|c| Some(c.bytes_received)),
    ),
    family(
        "speedmimi_bytes_sent_total",
        Kind::Counter,
        "Payload that the peer acknowledged.",
        Read::Total(|c| Some(c.bytes_sent)),
    ),
    family(
        "speedmimi_bytes_unacked_total",
        Kind::Counter,
        "Payload sent and never acknowledged before the end.",
        Read::Total(|c| Some(c.bytes_unacked)),
    ),
    family(
        "speedmimi_packets_received_total",
        Kind::Counter,
        "TCP segments received.",
        Read::Total(|c| Some(c.packets_received)),
    ),
    family(
        "speedmimi_packets_sent_total",
        Kind::Counter,
        "TCP segments sent.",
        Read::Total(|c| Some(c.packets_sent)),
    ),
    family(
        "speedmimi_retransmits_total",
        Kind::Counter,
        "Segments sent again.",
        Read::Total(|c| Some(c.retransmits)),
    ),
    family(
        "speedmimi_requests_total",
        Kind::Counter,
        "HTTP/1 requests, by method.",
        Read::Split("method", split::requests_by_method),
    ),
    family(
        "speedmimi_responses_total",
        Kind::Counter,
        "HTTP/1 responses, by class of their status code.",
        Read::Split("code_class", |c| owned(split::responses_by_class(c))),
    ),
    family(
        "speedmimi_requests_without_response_total",
        Kind::Counter,
        "Requests whose connection ended before a final response.",
        Read::Total(|c| c.http.as_ref().map(|h| h.requests_without_response)),
    ),
    family(
        "speedmimi_exchanges_total",
        Kind::Counter,
        "Turns of streams that do not speak HTTP/1.",
        Read::Total(|c| c.http.as_ref().map(|h| h.exchanges)),
    ),
    family(
        "speedmimi_exchange_duration_seconds",
        Kind::Histogram,
        "First byte of the request to first byte of the final response.",
        Read::Histogram(|c| c.http.as_ref()?.exchange_duration.as_ref()),
    ),
    family(
        "speedmimi_connect_duration_seconds",
        Kind::Histogram,
        "SYN to established, of actively opened connections.",
        Read::Histogram(|c| c.connect_duration.as_ref()),
    ),
];

pub(super) fn write(out: &mut dyn Sink, name: &str, host: &HostSample, read: Read) {
    let none = v1::Counters::default();
    for endpoint in &host.report.endpoints {
        let totals = endpoint.totals.as_ref().unwrap_or(&none);
        let labels = || labels(host, endpoint);
        match read {
            Read::Total(read) => {
                if let Some(value) = read(totals) {
                    line(out, name, &labels(), value);
                }
            }
            Read::Split(label, read) => {
                for (value, n) in read(totals) {
                    line(out, name, &labels().with(label, &value), n);
                }
            }
            Read::Now(read) if host.up => line(out, name, &labels(), read(endpoint)),
            Read::RoundTrip(read) if host.up => {
                if let Some(times) = &endpoint.srtt {
                    line(out, name, &labels(), read(times));
                }
            }
            Read::Now(_) | Read::RoundTrip(_) => {}
            Read::Histogram(read) => {
                if let Some(histogram) = read(totals) {
                    buckets(out, name, &labels(), histogram);
                }
            }
        }
    }
}

/// The proxy's names come after what identifies the endpoint.
fn labels(host: &HostSample, endpoint: &v1::Endpoint) -> Labels {
    let (host_name, host_id) = host.host();
    Labels::default()
        .with("host", host_name)
        .with("host_id", host_id)
        .with("target", &endpoint.target)
        .with("role", names::role(endpoint.role))
        .with("endpoint", &endpoint.address)
        .with_known("upstream", &endpoint.upstream)
        .with_known("backend", &endpoint.backend)
}

fn owned(split: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<(String, u64)> {
    split
        .into_iter()
        .map(|(by, n)| (by.to_owned(), n))
        .collect()
}

/// The boundaries are 2^k seconds, 7.6 µs to 64 s: a subset of the histogram's
/// own, so that no value is moved, and few enough for a scrape.
const BOUNDARY_LOG2_MIN: i32 = -17;
const BOUNDARY_LOG2_MAX: i32 = 6;

fn buckets(out: &mut dyn Sink, name: &str, labels: &Labels, h: &v1::Histogram) {
    let bucket = format!("{name}_bucket");
    for k in BOUNDARY_LOG2_MIN..=BOUNDARY_LOG2_MAX {
        let boundary = f64::from(k).exp2();
        let labels = labels.clone().with("le", &boundary.to_string());
        line(out, &bucket, &labels, not_above(h, boundary));
    }
    let in_buckets: u64 = h.buckets.iter().sum();
    line(out, &bucket, &labels.clone().with("le", "+Inf"), in_buckets);
    line(out, &format!("{name}_sum"), labels, h.sum_ns as f64 / 1e9);
    line(out, &format!("{name}_count"), labels, in_buckets);
}

/// How many values lie in buckets that end at `boundary` or below.
fn not_above(h: &v1::Histogram, boundary: f64) -> u64 {
    // Between two boundaries of any scale lies more than this.
    let limit = boundary * (1.0 + 1e-9);
    (h.offset..)
        .zip(&h.buckets)
        .take_while(|(index, _)| histogram::upper_bound_seconds(h.scale, *index) <= limit)
        .map(|(_, n)| n)
        .sum()
}
