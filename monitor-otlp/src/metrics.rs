//! Every metric by name: what it is called, what it counts, where it is read.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions where
//! there are such; the others are chosen so that a Prometheus that takes OTLP
//! shows them under the very names and labels of the collector's `/metrics`.

use monitor_proto::{split, v1};

/// What a metric's points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cumulative, monotonic sum.
    Counter,
    /// A value that may fall.
    Gauge,
    /// A cumulative exponential histogram.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// The family of `/metrics` that says the same; empty where there is none.
    pub prometheus: &'static str,
    /// In UCUM.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What its points are.
    pub kind: Kind,
    pub(crate) read: Read,
}

type Splits = Vec<(String, u64)>;

/// Where points come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    /// A gauge of the host, by what, and its fixed attributes.
    Host(
        fn(&v1::Report) -> Option<f64>,
        &'static [(&'static str, &'static str)],
    ),
    /// By interface and direction.
    NetworkIo,
    Losses,
    Now(fn(&v1::Endpoint) -> u64),
    /// Of endpoints of which a round trip was seen.
    RoundTrip(fn(&v1::RoundTripTime) -> f64),
    Total(fn(&v1::Counters) -> Option<u64>),
    Split(&'static str, fn(&v1::Counters) -> Splits),
    /// Of endpoints with this role alone; of all where there is none.
    Histogram(
        Option<v1::Role>,
        fn(&v1::Counters) -> Option<&v1::Histogram>,
    ),
}

/// Every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    HOST.iter().chain(ENDPOINT)
}

macro_rules! host {
    ($name:literal = $prometheus:literal, $unit:literal, $description:literal,
     $field:ident * $factor:literal, $attributes:expr) => {
        Metric {
            name: $name,
            prometheus: $prometheus,
            unit: $unit,
            description: $description,
            kind: Kind::Gauge,
            read: Read::Host(
                |r| r.host_metrics.as_ref()?.$field.map(|g| g.last * $factor),
                $attributes,
            ),
        }
    };
}

pub(crate) const HOST: &[Metric] = &[
    Metric {
        name: "system.network.io",
        prometheus: "",
        unit: "By",
        description: "Bytes through each interface, by direction.",
        kind: Kind::Counter,
        read: Read::NetworkIo,
    },
    host!(
        "system.cpu.utilization" = "speedmimi_host_cpu_usage_ratio",
        "1",
        "Share of all cores in use.",
        cpu_usage * 0.01,
        &[]
    ),
    host!(
        "system.memory.utilization" = "speedmimi_host_memory_usage_ratio",
        "1",
        "Share of memory not available.",
        memory_usage * 0.01,
        &[("system.memory.state", "used")]
    ),
    host!(
        "system.filesystem.utilization" = "speedmimi_host_disk_usage_ratio",
        "1",
        "Share of the root filesystem in use.",
        disk_usage * 0.01,
        &[
            ("system.filesystem.mountpoint", "/"),
            ("system.filesystem.state", "used"),
        ]
    ),
    Metric {
        name: "system.cpu.logical.count",
        prometheus: "speedmimi_host_cores",
        unit: "{cpu}",
        description: "Cores of the host.",
        kind: Kind::Gauge,
        read: Read::Host(|r| Some(r.host.as_ref()?.cores.into()), &[]),
    },
    host!(
        "speedmimi.host.load1" = "speedmimi_host_load1",
        "{process}",
        "Load average of 1 minute.",
        load_avg_1 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.load5" = "speedmimi_host_load5",
        "{process}",
        "Load average of 5 minutes.",
        load_avg_5 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.load15" = "speedmimi_host_load15",
        "{process}",
        "Load average of 15 minutes.",
        load_avg_15 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.network.receive" = "speedmimi_host_network_receive_bytes_per_second",
        "By/s",
        "Received over all interfaces but loopback.",
        network_in * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.network.transmit" = "speedmimi_host_network_transmit_bytes_per_second",
        "By/s",
        "Sent over all interfaces but loopback.",
        network_out * 1.0,
        &[]
    ),
    Metric {
        name: "speedmimi.losses",
        prometheus: "speedmimi_losses_total",
        unit: "{loss}",
        description: "What went uncounted on the host, by reason.",
        kind: Kind::Counter,
        read: Read::Losses,
    },
];

const fn counter(
    name: &'static str,
    prometheus: &'static str,
    unit: &'static str,
    description: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        prometheus,
        unit,
        description,
        kind: Kind::Counter,
        read,
    }
}

const fn durations(
    name: &'static str,
    prometheus: &'static str,
    description: &'static str,
    role: Option<v1::Role>,
    read: fn(&v1::Counters) -> Option<&v1::Histogram>,
) -> Metric {
    Metric {
        name,
        prometheus,
        unit: "s",
        description,
        kind: Kind::Histogram,
        read: Read::Histogram(role, read),
    }
}

const fn round_trips(
    name: &'static str,
    prometheus: &'static str,
    unit: &'static str,
    description: &'static str,
    read: fn(&v1::RoundTripTime) -> f64,
) -> Metric {
    Metric {
        name,
        prometheus,
        unit,
        description,
        kind: Kind::Gauge,
        read: Read::RoundTrip(read),
    }
}

pub(crate) const ENDPOINT: &[Metric] = &[
    Metric {
        name: "speedmimi.connections.active",
        prometheus: "speedmimi_connections_active",
        unit: "{connection}",
        description: "Connections open now.",
        kind: Kind::Gauge,
        read: Read::Now(|e| e.connections_active),
    },
    round_trips(
        "speedmimi.srtt.samples",
        "speedmimi_srtt_samples",
        "{sample}",
        "Smoothed round-trip times seen in the newest window.",
        |t| t.samples as f64,
    ),
    round_trips(
        "speedmimi.srtt.min",
        "speedmimi_srtt_min_seconds",
        "s",
        "The smallest of them.",
        |t| t.min_us as f64 / 1e6,
    ),
    round_trips(
        "speedmimi.srtt.mean",
        "speedmimi_srtt_mean_seconds",
        "s",
        "Their mean.",
        |t| t.mean_us as f64 / 1e6,
    ),
    round_trips(
        "speedmimi.srtt.max",
        "speedmimi_srtt_max_seconds",
        "s",
        "The largest of them.",
        |t| t.max_us as f64 / 1e6,
    ),
    counter(
        "speedmimi.connections.adopted",
        "speedmimi_connections_adopted_total",
        "{connection}",
        "Connections that were open before counting began.",
        Read::Total(|c| Some(c.connections_adopted)),
    ),
    counter(
        "speedmimi.connections.opened",
        "speedmimi_connections_opened_total",
        "{connection}",
        "Connections begun.",
        Read::Total(|c| Some(c.connections_opened)),
    ),
    counter(
        "speedmimi.connections.closed",
        "speedmimi_connections_closed_total",
        "{connection}",
        "Established connections that ended.",
        Read::Total(|c| Some(c.connections_closed)),
    ),
    counter(
        "speedmimi.connections.failed",
        "speedmimi_connections_failed_total",
        "{connection}",
        "Connections that failed before they were established, by reason.",
        Read::Split("reason", |c| owned(split::failed_by_reason(c))),
    ),
    counter(
        "speedmimi.bytes.received",
        "speedmimi_bytes_received_total",
        "By",
        "Payload that arrived in order.",
        Read::Total(|c| Some(c.bytes_received)),
    ),
    counter(
        "speedmimi.bytes.sent",
        "speedmimi_bytes_sent_total",
        "By",
        "Payload that the peer acknowledged.",
        Read::Total(|c| Some(c.bytes_sent)),
    ),
    counter(
        "speedmimi.bytes.unacked",
        "speedmimi_bytes_unacked_total",
        "By",
        "Payload sent and never acknowledged before the end.",
        Read::Total(|c| Some(c.bytes_unacked)),
    ),
    counter(
        "speedmimi.packets.received",
        "speedmimi_packets_received_total",
        "{packet}",
        "TCP segments received.",
        Read::Total(|c| Some(c.packets_received)),
    ),
    counter(
        "speedmimi.packets.sent",
        "speedmimi_packets_sent_total",
        "{packet}",
        "TCP segments sent.",
        Read::Total(|c| Some(c.packets_sent)),
    ),
    counter(
        "speedmimi.retransmits",
        "speedmimi_retransmits_total",
        "{packet}",
        "Segments sent again.",
        Read::Total(|c| Some(c.retransmits)),
    ),
    counter(
        "speedmimi.requests",
        "speedmimi_requests_total",
        "{request}",
        "HTTP/1 requests, by method.",
        Read::Split("method", split::requests_by_method),
    ),
    counter(
        "speedmimi.responses",
        "speedmimi_responses_total",
        "{response}",
        "HTTP/1 responses, by class of their status code.",
        Read::Split("code_class", |c| owned(split::responses_by_class(c))),
    ),
    counter(
        "speedmimi.requests.without_response",
        "speedmimi_requests_without_response_total",
        "{request}",
        "Requests whose connection ended before a final response.",
        Read::Total(|c| c.http.as_ref().map(|h| h.requests_without_response)),
    ),
    counter(
        "speedmimi.exchanges",
        "speedmimi_exchanges_total",
        "{exchange}",
        "Turns of streams that do not speak HTTP/1.",
        Read::Total(|c| c.http.as_ref().map(|h| h.exchanges)),
    ),
    durations(
        "http.server.request.duration",
        "speedmimi_exchange_duration_seconds",
        "First byte of a client's request to first byte of the final response.",
        Some(v1::Role::Downstream),
        |c| c.http.as_ref()?.exchange_duration.as_ref(),
    ),
    durations(
        "http.client.request.duration",
        "speedmimi_exchange_duration_seconds",
        "First byte of the request to a backend to first byte of its final response.",
        Some(v1::Role::Upstream),
        |c| c.http.as_ref()?.exchange_duration.as_ref(),
    ),
    durations(
        "speedmimi.connect.duration",
        "speedmimi_connect_duration_seconds",
        "SYN to established, of actively opened connections.",
        None,
        |c| c.connect_duration.as_ref(),
    ),
];

fn owned(split: impl IntoIterator<Item = (&'static str, u64)>) -> Splits {
    split
        .into_iter()
        .map(|(by, n)| (by.to_owned(), n))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_units_fit_their_kinds() {
        let mut names = HashSet::new();
        for metric in all() {
            assert!(names.insert(metric.name), "{}", metric.name);
            assert!(metric.description.ends_with('.'), "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.unit == "s");
            if !metric.prometheus.is_empty() {
                let is_total = metric.prometheus.ends_with("_total");
                assert_eq!(metric.kind == Kind::Counter, is_total, "{}", metric.name);
                let in_seconds = metric.prometheus.ends_with("_seconds");
                assert_eq!(metric.unit == "s", in_seconds, "{}", metric.name);
            }
        }
    }
}
