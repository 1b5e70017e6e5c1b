//! The figures that reports hold, by name: what they are called in each output,
//! what they count, and where they are read.  `/metrics`, remote write, OTLP, CSV
//! and what is read back from an engine follow from these tables.

use crate::{json, protocol, split, v1};

/// One figure of a `T`.
#[derive(Debug)]
pub struct Figure<T: 'static> {
    /// The family of `/metrics`.
    pub prometheus: &'static str,
    /// The metric of OTLP.
    pub otlp: &'static str,
    /// In UCUM.
    pub unit: &'static str,
    /// One sentence that stands alone.
    pub help: &'static str,
    /// Whether it is a total that never falls, or may fall.
    pub is_total: bool,
    /// `None` where it was not measured or cannot be seen.
    pub read: fn(&T) -> Option<Number>,
}

/// A figure's value; integers keep their last digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Integer(u64),
    /// Anything else.
    Float(f64),
}

/// A counter of an endpoint.
#[derive(Debug)]
pub struct Counter {
    /// Its field in JSON, and its column in CSV.
    pub name: &'static str,
    /// What `/metrics` and OTLP call it.
    pub figure: Figure<v1::Counters>,
    /// Where it is in a message.
    pub place: fn(&mut v1::Counters) -> &mut u64,
    /// Where it is in JSON; `None` where it was not measured or cannot be seen.
    pub json: fn(&json::Counters) -> Option<u64>,
}

macro_rules! counter {
    ($field:ident, $otlp:literal, $unit:literal, $help:literal) => {
        Counter {
            name: stringify!($field),
            figure: total(
                concat!("speedmimi_", stringify!($field), "_total"),
                $otlp,
                $unit,
                $help,
                |c: &v1::Counters| Some(Number::Integer(c.$field)),
            ),
            place: |c| &mut c.$field,
            json: |c| Some(c.$field),
        }
    };
    (http($counters:path).$field:ident, $otlp:literal, $unit:literal, $help:literal) => {
        Counter {
            name: stringify!($field),
            figure: total(
                concat!("speedmimi_", stringify!($field), "_total"),
                $otlp,
                $unit,
                $help,
                |c: &v1::Counters| $counters(c).map(|http| Number::Integer(http.$field)),
            ),
            place: |c| &mut c.http.get_or_insert_default().$field,
            json: |c| c.$field,
        }
    };
}

const fn total<T>(
    prometheus: &'static str,
    otlp: &'static str,
    unit: &'static str,
    help: &'static str,
    read: fn(&T) -> Option<Number>,
) -> Figure<T> {
    Figure {
        prometheus,
        otlp,
        unit,
        help,
        is_total: true,
        read,
    }
}

const fn gauge<T>(
    prometheus: &'static str,
    otlp: &'static str,
    unit: &'static str,
    help: &'static str,
    read: fn(&T) -> Option<Number>,
) -> Figure<T> {
    Figure {
        is_total: false,
        ..total(prometheus, otlp, unit, help, read)
    }
}

/// What is counted of an endpoint, as far as no label splits it.
pub const COUNTERS: &[Counter] = &[
    counter!(
        connections_adopted,
        "speedmimi.connections.adopted",
        "{connection}",
        "Connections of this endpoint that were open before counting began."
    ),
    counter!(
        connections_opened,
        "speedmimi.connections.opened",
        "{connection}",
        "Connections begun: handshakes done at a listener, SYNs sent to a backend."
    ),
    counter!(
        connections_established,
        "speedmimi.connections.established",
        "{connection}",
        "Connections whose handshake was completed."
    ),
    counter!(
        failed_before_syn,
        "speedmimi.failed_before_syn",
        "{connection}",
        "Connection attempts that died before a SYN was sent, for want of a route or a port."
    ),
    counter!(
        connections_closed,
        "speedmimi.connections.closed",
        "{connection}",
        "Established connections that ended."
    ),
    counter!(
        bytes_received,
        "speedmimi.bytes.received",
        "By",
        "Bytes of TCP payload that arrived in order."
    ),
    counter!(
        bytes_sent,
        "speedmimi.bytes.sent",
        "By",
        "Bytes of TCP payload that were sent and that the peer acknowledged."
    ),
    counter!(
        bytes_unacked,
        "speedmimi.bytes.unacked",
        "By",
        "Bytes of TCP payload that were sent and never acknowledged before the connection ended."
    ),
    counter!(
        packets_received,
        "speedmimi.packets.received",
        "{packet}",
        "TCP segments received, with and without payload."
    ),
    counter!(
        packets_sent,
        "speedmimi.packets.sent",
        "{packet}",
        "TCP segments sent, with and without payload."
    ),
    counter!(
        retransmits,
        "speedmimi.retransmits",
        "{packet}",
        "TCP segments that were sent again."
    ),
    counter!(
        http(protocol::seen).requests_without_response,
        "speedmimi.requests.without_response",
        "{request}",
        "HTTP/1 requests whose connection ended before a final response."
    ),
    counter!(
        http(counted).exchanges,
        "speedmimi.exchanges",
        "{exchange}",
        "Exchanges of streams that are not HTTP/1, such as TLS and HTTP/2: turns to the server."
    ),
    counter!(
        http(counted).unparsed,
        "speedmimi.unparsed",
        "{start_line}",
        "HTTP/1 start lines that were expected and could not be read."
    ),
    counter!(
        http(counted).pipelined,
        "speedmimi.pipelined",
        "{connection}",
        "Connections on which a request began while another was open."
    ),
    counter!(
        http(counted).suspected,
        "speedmimi.suspected",
        "{exchange}",
        "Turns of streams that may belong to a request that was counted already."
    ),
];

/// A counter of an endpoint that a label splits.
#[derive(Debug)]
pub struct Split {
    /// What it is called; reads the sum.
    pub figure: Figure<v1::Counters>,
    /// The label.
    pub label: &'static str,
    /// Its values, each with its part.
    pub parts: fn(&v1::Counters) -> Vec<(String, u64)>,
}

/// What is counted of an endpoint by a label.
pub const SPLITS: &[Split] = &[
    Split {
        figure: total(
            "speedmimi_connections_failed_total",
            "speedmimi.connections.failed",
            "{connection}",
            "Connections that failed before they were established, by reason.",
            |c| Some(sum(owned(split::failed_by_reason(c)))),
        ),
        label: "reason",
        parts: |c| owned(split::failed_by_reason(c)),
    },
    Split {
        figure: total(
            "speedmimi_requests_total",
            "speedmimi.requests",
            "{request}",
            "HTTP/1 requests, by method.",
            |c| protocol::seen(c).map(|http| Number::Integer(http.requests)),
        ),
        label: "method",
        parts: split::requests_by_method,
    },
    Split {
        figure: total(
            "speedmimi_responses_total",
            "speedmimi.responses",
            "{response}",
            "HTTP/1 responses, by class of their status code.",
            |c| protocol::seen(c).map(|_| sum(owned(split::responses_by_class(c)))),
        ),
        label: "code_class",
        parts: |c| owned(split::responses_by_class(c)),
    },
];

fn owned(parts: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<(String, u64)> {
    parts
        .into_iter()
        .map(|(by, n)| (by.to_owned(), n))
        .collect()
}

/// Durations of an endpoint.
#[derive(Debug)]
pub struct Durations {
    /// The family of `/metrics`.
    pub prometheus: &'static str,
    /// The metrics of OTLP: of a listener, and of a backend.
    pub otlp: [&'static str; 2],
    /// One sentence that stands alone.
    pub help: &'static str,
    /// `None` where nothing was measured.
    pub read: fn(&v1::Counters) -> Option<&v1::Histogram>,
}

/// The histograms of an endpoint, all in seconds.
pub const DURATIONS: &[Durations] = &[
    Durations {
        prometheus: "speedmimi_exchange_duration_seconds",
        otlp: [
            "http.server.request.duration",
            "http.client.request.duration",
        ],
        help: "Time from the first byte of a request to the first byte of its final response; of streams that are not HTTP/1, of each exchange.",
        read: |c| c.http.as_ref()?.exchange_duration.as_ref(),
    },
    Durations {
        prometheus: "speedmimi_connect_duration_seconds",
        otlp: ["speedmimi.connect.duration"; 2],
        help: "Time from SYN to established, of connections that were opened to backends.",
        read: |c| c.connect_duration.as_ref(),
    },
];

/// A gauge of a host, sampled over the window.
#[derive(Debug)]
pub struct HostGauge {
    /// Its field in JSON, and its series.
    pub name: &'static str,
    /// What it is called; reads the newest sample.
    pub figure: Figure<v1::HostMetrics>,
    /// What each of its points has in OTLP.
    pub attributes: &'static [(&'static str, &'static str)],
    /// What a value of a report is multiplied with to be in `unit`.
    pub factor: f64,
    /// Where it is in a message.
    pub place: fn(&mut v1::HostMetrics) -> &mut Option<v1::Gauge>,
}

macro_rules! host_gauge {
    ($field:ident * $factor:literal, $prometheus:literal, $otlp:literal, $unit:literal, $help:literal $(, $key:literal = $value:literal)*) => {
        HostGauge {
            name: stringify!($field),
            figure: gauge($prometheus, $otlp, $unit, $help, |m: &v1::HostMetrics| {
                m.$field.map(|g| Number::Float(g.last * $factor))
            }),
            attributes: &[$(($key, $value)),*],
            factor: $factor,
            place: |m| &mut m.$field,
        }
    };
}

/// What is sampled of a host.
pub const HOST_GAUGES: &[HostGauge] = &[
    host_gauge!(
        cpu_usage * 0.01,
        "speedmimi_host_cpu_usage_ratio",
        "system.cpu.utilization",
        "1",
        "Share of all cores' time that was neither idle nor iowait."
    ),
    host_gauge!(
        memory_usage * 0.01,
        "speedmimi_host_memory_usage_ratio",
        "system.memory.utilization",
        "1",
        "Share of the host's memory that is not available.",
        "system.memory.state" = "used"
    ),
    host_gauge!(
        disk_usage * 0.01,
        "speedmimi_host_disk_usage_ratio",
        "system.filesystem.utilization",
        "1",
        "Share of the root filesystem that is in use.",
        "system.filesystem.mountpoint" = "/",
        "system.filesystem.state" = "used"
    ),
    host_gauge!(
        load_avg_1 * 1.0,
        "speedmimi_host_load1",
        "speedmimi.host.load1",
        "{process}",
        "Load average of the host over 1 minute."
    ),
    host_gauge!(
        load_avg_5 * 1.0,
        "speedmimi_host_load5",
        "speedmimi.host.load5",
        "{process}",
        "Load average of the host over 5 minutes."
    ),
    host_gauge!(
        load_avg_15 * 1.0,
        "speedmimi_host_load15",
        "speedmimi.host.load15",
        "{process}",
        "Load average of the host over 15 minutes."
    ),
    host_gauge!(
        network_in * 1.0,
        "speedmimi_host_network_receive_bytes_per_second",
        "speedmimi.host.network.receive",
        "By/s",
        "Bytes per second that the host receives over all interfaces but loopback."
    ),
    host_gauge!(
        network_out * 1.0,
        "speedmimi_host_network_transmit_bytes_per_second",
        "speedmimi.host.network.transmit",
        "By/s",
        "Bytes per second that the host sends over all interfaces but loopback."
    ),
];

/// What is known of an endpoint at the end of a window.
pub const ENDPOINT_GAUGES: &[Figure<v1::Endpoint>] = &[gauge(
    "speedmimi_connections_active",
    "speedmimi.connections.active",
    "{connection}",
    "Connections that are open now.",
    |e| Some(Number::Integer(e.connections_active)),
)];

/// What is known of the round-trip times of an endpoint's connections.
pub const ROUND_TRIPS: &[Figure<v1::RoundTripTime>] = &[
    gauge(
        "speedmimi_srtt_samples",
        "speedmimi.srtt.samples",
        "{sample}",
        "How many smoothed round-trip times were seen in the newest window.",
        |t| Some(Number::Float(t.samples as f64)),
    ),
    gauge(
        "speedmimi_srtt_min_seconds",
        "speedmimi.srtt.min",
        "s",
        "The smallest smoothed round-trip time seen in the newest window.",
        |t| Some(micros(t.min_us)),
    ),
    gauge(
        "speedmimi_srtt_mean_seconds",
        "speedmimi.srtt.mean",
        "s",
        "The mean of the smoothed round-trip times seen in the newest window.",
        |t| Some(micros(t.mean_us)),
    ),
    gauge(
        "speedmimi_srtt_max_seconds",
        "speedmimi.srtt.max",
        "s",
        "The largest smoothed round-trip time seen in the newest window.",
        |t| Some(micros(t.max_us)),
    ),
];

/// What is known of a watched cgroup.
pub const TARGETS: &[Figure<v1::Target>] = &[
    total(
        "speedmimi_target_cpu_usage_seconds_total",
        "speedmimi.target.cpu.usage",
        "s",
        "CPU time that the watched cgroup has used since it was made.",
        |t| t.cpu_usage_us_total.map(micros),
    ),
    total(
        "speedmimi_target_cpu_throttled_seconds_total",
        "speedmimi.target.cpu.throttled",
        "s",
        "Time for which its CPU quota kept the watched cgroup from running.",
        |t| t.throttled_us_total.map(micros),
    ),
    total(
        "speedmimi_target_cpu_throttled_periods_total",
        "speedmimi.target.cpu.throttled_periods",
        "{period}",
        "Scheduling periods in which the watched cgroup used up its CPU quota.",
        |t| t.throttled_periods_total.map(Number::Integer),
    ),
    gauge(
        "speedmimi_target_memory_bytes",
        "speedmimi.target.memory",
        "By",
        "Memory charged to the watched cgroup.",
        |t| t.memory_bytes.map(Number::Integer),
    ),
    gauge(
        "speedmimi_target_memory_limit_bytes",
        "speedmimi.target.memory.limit",
        "By",
        "The most memory that the watched cgroup may have; absent where there is no limit.",
        |t| t.memory_limit_bytes.map(Number::Integer),
    ),
];

/// What the kernel counts per network namespace.
pub const NETWORK_NAMESPACES: &[Figure<v1::NetworkNamespace>] = &[
    total(
        "speedmimi_listen_overflows_total",
        "speedmimi.listen.overflows",
        "{connection}",
        "Connections that were dropped because a listener's accept queue was full.",
        |n| n.listen_overflows_total.map(Number::Integer),
    ),
    total(
        "speedmimi_listen_drops_total",
        "speedmimi.listen.drops",
        "{connection}",
        "Connections to listeners that were dropped for whatever reason, overflows included.",
        |n| n.listen_drops_total.map(Number::Integer),
    ),
    total(
        "speedmimi_attempt_fails_total",
        "speedmimi.attempt_fails",
        "{connection}",
        "TCP handshakes in the network namespace that never completed.",
        |n| n.attempt_fails_total.map(Number::Integer),
    ),
    total(
        "speedmimi_syncookies_failed_total",
        "speedmimi.syncookies.failed",
        "{packet}",
        "Segments whose SYN cookie did not check.",
        |n| n.syncookies_failed_total.map(Number::Integer),
    ),
];

fn sum(parts: Vec<(String, u64)>) -> Number {
    let parts = parts.into_iter().map(|(_, n)| n);
    Number::Integer(parts.fold(0, u64::saturating_add))
}

fn counted(counters: &v1::Counters) -> Option<&v1::HttpCounters> {
    counters.http.as_ref()
}

/// Seconds of so many microseconds.
fn micros(us: u64) -> Number {
    Number::Float(us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Name, unit, help, and whether it is a total.
    fn all() -> Vec<(&'static str, &'static str, &'static str, bool)> {
        fn row<T>(f: &Figure<T>) -> (&'static str, &'static str, &'static str, bool) {
            (f.prometheus, f.unit, f.help, f.is_total)
        }
        let mut all: Vec<_> = COUNTERS.iter().map(|c| row(&c.figure)).collect();
        all.extend(SPLITS.iter().map(|s| row(&s.figure)));
        all.extend(HOST_GAUGES.iter().map(|g| row(&g.figure)));
        all.extend(DURATIONS.iter().map(|d| (d.prometheus, "s", d.help, false)));
        all.extend(ENDPOINT_GAUGES.iter().map(row));
        all.extend(ROUND_TRIPS.iter().map(row));
        all.extend(TARGETS.iter().map(row));
        all.extend(NETWORK_NAMESPACES.iter().map(row));
        all
    }

    #[test]
    fn names_are_unique_and_say_unit_and_kind() {
        let mut names = HashSet::new();
        for (name, unit, _, is_total) in all() {
            assert!(names.insert(name), "{name}");
            assert_eq!(name.ends_with("_total"), is_total, "{name}");
            let stem = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(unit == "s", stem.ends_with("_seconds"), "{name}");
        }
    }

    #[test]
    fn every_help_is_a_sentence_that_stands_alone() {
        for (name, _, help, _) in all() {
            assert!(
                help.split(' ').count() >= 4 && help.ends_with('.'),
                "{name}"
            );
            let before = [" them", "Their ", "Its ", "These "];
            assert!(
                !before.iter().any(|word| help.contains(word)),
                "{name}: {help}"
            );
        }
    }

    #[test]
    fn a_counter_is_read_where_it_is_written() {
        for counter in COUNTERS {
            let mut counters = v1::Counters::default();
            *(counter.place)(&mut counters) = 7;
            assert_eq!(
                (counter.figure.read)(&counters),
                Some(Number::Integer(7)),
                "{}",
                counter.figure.prometheus
            );
            assert_eq!((counter.json)(&(&counters).into()), Some(7));
        }
    }
}
