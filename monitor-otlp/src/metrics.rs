//! Every metric by name: what it is called, what it counts, where it is read.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions where
//! there are such; the others are chosen so that a Prometheus that takes OTLP
//! shows them under the very names and labels of the collector's `/metrics`.

use monitor_proto::{
    figures::{self, Figure, Number},
    v1,
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
    HostGauge(&'static figures::HostGauge),
    Cores,
    /// By interface and direction.
    NetworkIo,
    Losses,
    /// Waiting for a resource, by it and by whether some or all tasks did.
    Pressure,
    Target(fn(&v1::Target) -> Option<Number>),
    NetworkNamespace(fn(&v1::NetworkNamespace) -> Option<Number>),
    Own(fn(&v1::Endpoint) -> Option<Number>),
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
    let gauges = figures::HOST_GAUGES
        .iter()
        .map(|g| Metric::new(&g.figure, Read::HostGauge(g)));
    let host = [
        (&figures::NETWORK_IO, Read::NetworkIo),
        (&figures::CORES, Read::Cores),
        (&figures::PRESSURE, Read::Pressure),
        (&figures::LOSSES, Read::Losses),
    ];
    host.into_iter()
        .map(|(figure, read)| Metric::new(figure, read))
        .chain(gauges)
        .chain(targets)
        .chain(namespaces)
}

/// Those of endpoints.
pub(crate) fn of_endpoints() -> impl Iterator<Item = Metric> {
    let counters = figures::COUNTERS
        .iter()
        .map(|c| Metric::new(&c.figure, Read::Total(c.figure.read)));
    let own = figures::OF_ENDPOINTS
        .iter()
        .map(|f| Metric::new(f, Read::Own(f.read)));
    let splits = figures::SPLITS
        .iter()
        .map(|s| Metric::new(&s.figure, Read::Split(s.label, s.figure.read)));
    own.chain(splits)
        .chain(figures::DURATIONS.iter().flat_map(durations))
        .chain(counters)
}

impl Metric {
    fn new<R>(figure: &Figure<R>, read: Read) -> Self {
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

/// A metric for each of its names: for listeners and backends, or for both.
fn durations(of: &figures::Durations) -> Vec<Metric> {
    let [server, client] = of.otlp;
    let roles = if server == client {
        vec![(server, None)]
    } else {
        let (down, up) = (v1::Role::Downstream, v1::Role::Upstream);
        vec![(server, Some(down)), (client, Some(up))]
    };
    let metric = |(name, role)| Metric {
        name,
        prometheus: of.prometheus,
        unit: "s",
        description: of.help,
        kind: Kind::Histogram,
        read: Read::Histogram(role, of.read),
    };
    roles.into_iter().map(metric).collect()
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
