//! The metrics that have series.

use monitor_proto::{
    figures::{COUNTERS, HOST_GAUGES, HostGauge, Seen},
    histogram, v1,
};
use rollup::{EndpointRoll, GaugeRoll, HostRoll, ROLLED_COUNTERS, RolledCounter};

use super::Figure;

/// A quantile of a histogram of scale 2 is off by at most its bucket's width.
pub(crate) const QUANTILE_ERROR_RATIO: f64 = 0.19;

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
    /// Measured where it is seen, and by the versions that sum it.
    Counter(Seen, fn(&EndpointRoll) -> Option<u64>),
    /// A duration in ms.
    Quantile(f64, fn(&EndpointRoll) -> &v1::Histogram),
}

const fn metric(name: &'static str, unit: &'static str, read: Read) -> Metric {
    Metric { name, unit, read }
}

const PERCENT: &str = "%";
const PLAIN: &str = "1";
const BYTES_PER_SECOND: &str = "By/s";
const PER_SECOND: &str = "1/s";
const MS: &str = "ms";

/// What roll-ups have beside [`HOST_GAUGES`] and [`ROLLED_COUNTERS`].
const OTHERS: [Metric; 14] = [
    metric("connections_active", PLAIN, Read::Active),
    metric(
        "connections_failed",
        PER_SECOND,
        Read::Counter(Seen::Tcp, |r| Some(r.connections_failed)),
    ),
    responses("responses_1xx", |r| Some(r.responses_1xx)),
    responses("responses_2xx", |r| Some(r.responses_2xx)),
    responses("responses_3xx", |r| Some(r.responses_3xx)),
    responses("responses_4xx", |r| Some(r.responses_4xx)),
    responses("responses_5xx", |r| Some(r.responses_5xx)),
    exchanges("exchange_duration_p50", 0.5),
    exchanges("exchange_duration_p90", 0.9),
    exchanges("exchange_duration_p99", 0.99),
    exchanges("exchange_duration_p999", 0.999),
    connects("connect_duration_p50", 0.5),
    connects("connect_duration_p90", 0.9),
    connects("connect_duration_p99", 0.99),
];

const fn responses(name: &'static str, read: fn(&EndpointRoll) -> Option<u64>) -> Metric {
    metric(name, PER_SECOND, Read::Counter(Seen::Http1, read))
}

const fn exchanges(name: &'static str, quantile: f64) -> Metric {
    metric(name, MS, Read::Quantile(quantile, |r| &r.exchange_duration))
}

const fn connects(name: &'static str, quantile: f64) -> Metric {
    metric(name, MS, Read::Quantile(quantile, |r| &r.connect_duration))
}

fn of_gauge((place, gauge): (usize, &'static HostGauge)) -> Metric {
    let unit = match gauge.figure.unit {
        // Roll-ups have what reports have.
        "1" if gauge.factor < 1.0 => PERCENT,
        "{process}" => PLAIN,
        unit => unit,
    };
    metric(gauge.figure.name, unit, Read::HostGauge(place))
}

fn of_counter(rolled: &'static RolledCounter) -> Metric {
    let mut counters = COUNTERS.iter();
    let counter = counters.find(|counter| counter.figure.name == rolled.name);
    let unit = match counter.map(|counter| counter.figure.unit) {
        Some("By") => BYTES_PER_SECOND,
        _ => PER_SECOND,
    };
    metric(rolled.name, unit, Read::Counter(rolled.seen, rolled.read))
}

impl Metric {
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|metric| metric.name == name)
    }

    fn all() -> impl Iterator<Item = Self> {
        let gauges = HOST_GAUGES.iter().enumerate().map(of_gauge);
        let counters = ROLLED_COUNTERS.iter().map(of_counter);
        gauges.chain(OTHERS).chain(counters)
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
            Read::Counter(seen, read) => {
                figure.with(read(roll).and_then(|n| rate(n, roll.seen_ns(seen))))
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
