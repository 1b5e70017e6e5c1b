//! Every metric by name: what it is called, what it counts, where it is read.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions where
//! there are such; the others are chosen so that a Prometheus that takes OTLP
//! shows them under the very names and labels of the collector's `/metrics`.

use monitor_proto::{
    figures::{self, Figure, Number},
    split, v1,
};

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
    /// Waiting for a resource, by it and by whether some or all tasks did.
    Pressure,
    Target(fn(&v1::Target) -> Option<Number>),
    NetworkNamespace(fn(&v1::NetworkNamespace) -> Option<Number>),
    Now(fn(&v1::Endpoint) -> u64),
    /// Of endpoints of which a round trip was seen.
    RoundTrip(fn(&v1::RoundTripTime) -> Option<Number>),
    Total(fn(&v1::Counters) -> Option<Number>),
    Split(&'static str, fn(&v1::Counters) -> Splits),
    /// Of endpoints with this role alone; of all where there is none.
    Histogram(
        Option<v1::Role>,
        fn(&v1::Counters) -> Option<&v1::Histogram>,
    ),
}

/// Every metric.
pub fn all() -> impl Iterator<Item = Metric> {
    of_hosts().chain(of_endpoints())
}

/// Those of hosts, their targets and network namespaces.
pub(crate) fn of_hosts() -> impl Iterator<Item = Metric> {
    let targets = figures::TARGETS
        .iter()
        .map(|f| Metric::new(f, Read::Target(f.read)));
    let namespaces = figures::NETWORK_NAMESPACES
        .iter()
        .map(|f| Metric::new(f, Read::NetworkNamespace(f.read)));
    HOST.iter().copied().chain(targets).chain(namespaces)
}

/// Those of endpoints.
pub(crate) fn of_endpoints() -> impl Iterator<Item = Metric> {
    let counters = figures::COUNTERS
        .iter()
        .map(|c| Metric::new(&c.figure, Read::Total(c.figure.read)));
    let round_trips = figures::ROUND_TRIPS
        .iter()
        .map(|f| Metric::new(f, Read::RoundTrip(f.read)));
    ENDPOINT.iter().copied().chain(round_trips).chain(counters)
}

impl Metric {
    fn new<T>(figure: &Figure<T>, read: Read) -> Self {
        Self {
            name: figure.otlp,
            prometheus: figure.prometheus,
            unit: figure.unit,
            description: figure.help,
            kind: if figure.is_total {
                Kind::Counter
            } else {
                Kind::Gauge
            },
            read,
        }
    }
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

const HOST: &[Metric] = &[
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
        "Share of all cores' time that was neither idle nor iowait.",
        cpu_usage * 0.01,
        &[]
    ),
    host!(
        "system.memory.utilization" = "speedmimi_host_memory_usage_ratio",
        "1",
        "Share of the host's memory that is not available.",
        memory_usage * 0.01,
        &[("system.memory.state", "used")]
    ),
    host!(
        "system.filesystem.utilization" = "speedmimi_host_disk_usage_ratio",
        "1",
        "Share of the root filesystem that is in use.",
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
        description: "How many CPU cores the host has.",
        kind: Kind::Gauge,
        read: Read::Host(|r| Some(r.host.as_ref()?.cores.into()), &[]),
    },
    host!(
        "speedmimi.host.load1" = "speedmimi_host_load1",
        "{process}",
        "Load average of the host over 1 minute.",
        load_avg_1 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.load5" = "speedmimi_host_load5",
        "{process}",
        "Load average of the host over 5 minutes.",
        load_avg_5 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.load15" = "speedmimi_host_load15",
        "{process}",
        "Load average of the host over 15 minutes.",
        load_avg_15 * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.network.receive" = "speedmimi_host_network_receive_bytes_per_second",
        "By/s",
        "Bytes per second that the host receives over all interfaces but loopback.",
        network_in * 1.0,
        &[]
    ),
    host!(
        "speedmimi.host.network.transmit" = "speedmimi_host_network_transmit_bytes_per_second",
        "By/s",
        "Bytes per second that the host sends over all interfaces but loopback.",
        network_out * 1.0,
        &[]
    ),
    Metric {
        name: "speedmimi.host.pressure",
        prometheus: "speedmimi_host_pressure_seconds_total",
        unit: "s",
        description: "Time in which some or all tasks of the host waited for a resource, by it and by stall.",
        kind: Kind::Counter,
        read: Read::Pressure,
    },
    Metric {
        name: "speedmimi.losses",
        prometheus: "speedmimi_losses_total",
        unit: "{loss}",
        description: "How much went uncounted on the host, by reason.",
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

const ENDPOINT: &[Metric] = &[
    Metric {
        name: "speedmimi.connections.active",
        prometheus: "speedmimi_connections_active",
        unit: "{connection}",
        description: "Connections that are open now.",
        kind: Kind::Gauge,
        read: Read::Now(|e| e.connections_active),
    },
    counter(
        "speedmimi.connections.failed",
        "speedmimi_connections_failed_total",
        "{connection}",
        "Connections that failed before they were established, by reason.",
        Read::Split("reason", |c| owned(split::failed_by_reason(c))),
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
    durations(
        "http.server.request.duration",
        "speedmimi_exchange_duration_seconds",
        "Time from the first byte of a client's request to the first byte of its final response; of streams that are not HTTP/1, of each exchange.",
        Some(v1::Role::Downstream),
        |c| c.http.as_ref()?.exchange_duration.as_ref(),
    ),
    durations(
        "http.client.request.duration",
        "speedmimi_exchange_duration_seconds",
        "Time from the first byte of a request to a backend to the first byte of its final response; of streams that are not HTTP/1, of each exchange.",
        Some(v1::Role::Upstream),
        |c| c.http.as_ref()?.exchange_duration.as_ref(),
    ),
    durations(
        "speedmimi.connect.duration",
        "speedmimi_connect_duration_seconds",
        "Time from SYN to established, of connections that were opened to backends.",
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
                let stem = metric.prometheus.strip_suffix("_total");
                let stem = stem.unwrap_or(metric.prometheus);
                let in_seconds = stem.ends_with("_seconds");
                assert_eq!(metric.unit == "s", in_seconds, "{}", metric.name);
            }
        }
    }
}
