//! The metrics that have series.

use monitor_proto::{histogram, v1};
use rollup::{EndpointRoll, GAUGES, GaugeRoll, HostRoll, OTHER_COUNTERS, OtherCounters, Seen};

use super::Figure;

/// A quantile of a histogram of scale 2 is off by at most its bucket's width.
const QUANTILE_ERROR_RATIO: f64 = 0.19;

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Host,
    Endpoint,
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    read: Read,
}

#[derive(Clone, Copy, Debug)]
enum Read {
    /// The place in `GAUGES`.
    HostGauge(usize),
    Active,
    Rate(fn(&EndpointRoll) -> u64),
    /// Measured only where HTTP is counted.
    HttpRate(fn(&EndpointRoll) -> u64),
    /// Of requests and responses: measured only where HTTP/1 can be seen, too.
    Http1Rate(fn(&EndpointRoll) -> u64),
    /// Measured where it is seen, and by the versions that sum it.
    Other(Seen, fn(&OtherCounters) -> Option<u64>),
    /// A duration in ms.
    Quantile(f64, fn(&EndpointRoll) -> &v1::Histogram),
}

const fn metric(name: &'static str, unit: &'static str, read: Read) -> Metric {
    Metric { name, unit, read }
}

const PERCENT: &str = "%";
const LOAD: &str = "1";
const BYTES_PER_SECOND: &str = "By/s";
const PER_SECOND: &str = "1/s";
const MS: &str = "ms";

const ALL: [Metric; 29] = [
    metric(GAUGES[0], PERCENT, Read::HostGauge(0)),
    metric(GAUGES[1], PERCENT, Read::HostGauge(1)),
    metric(GAUGES[2], PERCENT, Read::HostGauge(2)),
    metric(GAUGES[3], LOAD, Read::HostGauge(3)),
    metric(GAUGES[4], LOAD, Read::HostGauge(4)),
    metric(GAUGES[5], LOAD, Read::HostGauge(5)),
    metric(GAUGES[6], BYTES_PER_SECOND, Read::HostGauge(6)),
    metric(GAUGES[7], BYTES_PER_SECOND, Read::HostGauge(7)),
    metric("connections_active", "1", Read::Active),
    metric(
        "connections_opened",
        PER_SECOND,
        Read::Rate(|r| r.connections_opened),
    ),
    metric(
        "connections_failed",
        PER_SECOND,
        Read::Rate(|r| r.connections_failed),
    ),
    metric(
        "connections_closed",
        PER_SECOND,
        Read::Rate(|r| r.connections_closed),
    ),
    metric(
        "bytes_received",
        BYTES_PER_SECOND,
        Read::Rate(|r| r.bytes_received),
    ),
    metric("bytes_sent", BYTES_PER_SECOND, Read::Rate(|r| r.bytes_sent)),
    metric("retransmits", PER_SECOND, Read::Rate(|r| r.retransmits)),
    metric("requests", PER_SECOND, Read::Http1Rate(|r| r.requests)),
    metric("exchanges", PER_SECOND, Read::HttpRate(|r| r.exchanges)),
    metric(
        "responses_1xx",
        PER_SECOND,
        Read::Http1Rate(|r| r.responses_1xx),
    ),
    metric(
        "responses_2xx",
        PER_SECOND,
        Read::Http1Rate(|r| r.responses_2xx),
    ),
    metric(
        "responses_3xx",
        PER_SECOND,
        Read::Http1Rate(|r| r.responses_3xx),
    ),
    metric(
        "responses_4xx",
        PER_SECOND,
        Read::Http1Rate(|r| r.responses_4xx),
    ),
    metric(
        "responses_5xx",
        PER_SECOND,
        Read::Http1Rate(|r| r.responses_5xx),
    ),
    metric(
        "exchange_duration_p50",
        MS,
        Read::Quantile(0.5, |r| &r.exchange_duration),
    ),
    metric(
        "exchange_duration_p90",
        MS,
        Read::Quantile(0.9, |r| &r.exchange_duration),
    ),
    metric(
        "exchange_duration_p99",
        MS,
        Read::Quantile(0.99, |r| &r.exchange_duration),
    ),
    metric(
        "exchange_duration_p999",
        MS,
        Read::Quantile(0.999, |r| &r.exchange_duration),
    ),
    metric(
        "connect_duration_p50",
        MS,
        Read::Quantile(0.5, |r| &r.connect_duration),
    ),
    metric(
        "connect_duration_p90",
        MS,
        Read::Quantile(0.9, |r| &r.connect_duration),
    ),
    metric(
        "connect_duration_p99",
        MS,
        Read::Quantile(0.99, |r| &r.connect_duration),
    ),
];

impl Metric {
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|metric| metric.name == name)
    }

    fn all() -> impl Iterator<Item = Self> {
        let others = OTHER_COUNTERS.iter().map(|counter| {
            let unit = if counter.name.starts_with("bytes_") {
                BYTES_PER_SECOND
            } else {
                PER_SECOND
            };
            metric(counter.name, unit, Read::Other(counter.seen, counter.read))
        });
        ALL.into_iter().chain(others)
    }

    /// All names, for those who gave another one.
    pub fn names() -> String {
        let names: Vec<_> = Self::all().map(|metric| metric.name).collect();
        names.join(", ")
    }

    pub fn scope(&self) -> Scope {
        match self.read {
            Read::HostGauge(_) => Scope::Host,
            _ => Scope::Endpoint,
        }
    }

    /// Whether it is sampled, not counted.
    pub(super) fn is_gauge(&self) -> bool {
        matches!(self.read, Read::HostGauge(_) | Read::Active)
    }

    /// How far a value may be off, as a share of it; `None` where it is exact.
    pub fn error_ratio(&self) -> Option<f64> {
        matches!(self.read, Read::Quantile(..)).then_some(QUANTILE_ERROR_RATIO)
    }

    /// The same where the figures come from an engine's classic buckets, which
    /// are an octave wide.
    pub fn engine_error_ratio(&self) -> Option<f64> {
        self.error_ratio().map(|_| 1.0)
    }

    pub(super) fn of_host(&self, roll: &HostRoll) -> Figure {
        let figure = Figure {
            covered_ns: roll.covered_ns,
            incomplete: roll.incomplete,
            ..Figure::default()
        };
        match self.read {
            Read::HostGauge(i) => figure.with_gauge(&roll.gauges[i]),
            _ => figure,
        }
    }

    pub(super) fn of_endpoint(&self, roll: &EndpointRoll) -> Figure {
        let figure = Figure {
            covered_ns: roll.covered_ns,
            incomplete: roll.incomplete,
            ..Figure::default()
        };
        let rate = |n: u64, ns: u64| (ns > 0).then(|| n as f64 * 1e9 / ns as f64);
        match self.read {
            Read::HostGauge(_) => figure,
            Read::Active => figure.with_gauge(&roll.active),
            Read::Rate(read) => figure.with(rate(read(roll), roll.covered_ns)),
            Read::HttpRate(read) => figure.with(rate(read(roll), roll.http_ns)),
            Read::Http1Rate(read) => figure.with(rate(read(roll), roll.http1_ns())),
            Read::Other(seen, read) => {
                let seen_ns = match seen {
                    Seen::Tcp => roll.covered_ns,
                    Seen::Http => roll.http_ns,
                    Seen::Http1 => roll.http1_ns(),
                };
                figure.with(read(&roll.other).and_then(|n| rate(n, seen_ns)))
            }
            Read::Quantile(q, read) => {
                figure.with(histogram::quantile_seconds(read(roll), q).map(|s| s * 1e3))
            }
        }
    }
}

impl Figure {
    fn with(mut self, value: Option<f64>) -> Self {
        self.value = value;
        self
    }

    fn with_gauge(mut self, gauge: &GaugeRoll) -> Self {
        if gauge.measured_ns > 0 {
            self.value = Some(gauge.mean);
            self.range = Some((gauge.min, gauge.max));
        }
        self
    }
}
