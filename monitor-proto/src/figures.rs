//! The figures that reports hold, by name: what they are called in each output,
//! what they count, and where they are read.  `/metrics`, remote write, OTLP and
//! what is read back from an engine follow from these tables.

use crate::{protocol, v1};

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
    /// What every output but the JSON of reports calls it.
    pub figure: Figure<v1::Counters>,
    /// Where it is in a message.
    pub place: fn(&mut v1::Counters) -> &mut u64,
}

macro_rules! counter {
    ($field:ident, $otlp:literal, $unit:literal, $help:literal) => {
        Counter {
            figure: total(
                concat!("speedmimi_", stringify!($field), "_total"),
                $otlp,
                $unit,
                $help,
                |c: &v1::Counters| Some(Number::Integer(c.$field)),
            ),
            place: |c| &mut c.$field,
        }
    };
    (http($counters:path).$field:ident, $otlp:literal, $unit:literal, $help:literal) => {
        Counter {
            figure: total(
                concat!("speedmimi_", stringify!($field), "_total"),
                $otlp,
                $unit,
                $help,
                |c: &v1::Counters| $counters(c).map(|http| Number::Integer(http.$field)),
            ),
            place: |c| &mut c.http.get_or_insert_default().$field,
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
        }
    }
}
