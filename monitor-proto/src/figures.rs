//! The figures that reports hold, by name: what they are called in each output,
//! what they count, and where they are read.  `/metrics`, remote write, OTLP, CSV,
//! series and what is read back from an engine follow from these tables, which are
//! generated from the options of the fields in `proto/speedmimi/v1/report.proto`.

use crate::{json, protocol, split, v1};

/// One figure, and how it is read.
#[derive(Debug)]
pub struct Figure<R> {
    /// Its field in JSON.
    pub name: &'static str,
    /// The heading of tables.
    pub title: &'static str,
    /// The family of `/metrics`; empty where there is none.
    pub prometheus: &'static str,
    /// The metric of OTLP.
    pub otlp: &'static str,
    /// In UCUM.
    pub unit: &'static str,
    /// One sentence that stands alone.
    pub help: &'static str,
    /// Whether it is a total that never falls, or may fall.
    pub is_total: bool,
    /// Where its values are.
    pub read: R,
}

/// Reads a figure; `None` where it was not measured or cannot be seen.
pub type Read<T> = fn(&T) -> Option<Number>;

/// Reads the values of a label, each with its part of the figure.
pub type ReadParts = fn(&v1::Counters) -> Vec<(String, u64)>;

/// A figure's value; integers keep their last digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Integer(u64),
    /// Anything else.
    Float(f64),
}

/// Where a counter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At every level.
    Tcp,
    /// At level `http`.
    Http,
    /// At level `http`, of streams that are HTTP/1.
    Http1,
}

/// A counter of an endpoint.
#[derive(Debug)]
pub struct Counter {
    /// What it is called; reads a message.
    pub figure: Figure<Read<v1::Counters>>,
    /// Where it is measured.
    pub seen: Seen,
    /// Where it is in a message.
    pub place: fn(&mut v1::Counters) -> &mut u64,
    /// Where it is in JSON; `None` where it was not measured or cannot be seen.
    pub json: fn(&json::Counters) -> Option<u64>,
}

/// A counter of an endpoint that a label splits.
#[derive(Debug)]
pub struct Split {
    /// What it is called; reads its parts.
    pub figure: Figure<ReadParts>,
    /// The label.
    pub label: &'static str,
}

/// A part of a counter that is a message of its parts.
#[derive(Debug)]
pub struct Part<T: 'static> {
    /// The label's value.
    pub name: &'static str,
    /// How many.
    pub read: fn(&T) -> u64,
    /// Where it is in the message.
    pub place: fn(&mut T) -> &mut u64,
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

/// A gauge of a host, sampled over the window.
#[derive(Debug)]
pub struct HostGauge {
    /// What it is called; reads the newest sample.
    pub figure: Figure<Read<v1::HostMetrics>>,
    /// What each of its points has in OTLP.
    pub attributes: &'static [(&'static str, &'static str)],
    /// What a value of a report is multiplied with to be in `unit`.
    pub factor: f64,
    /// Where it is in a message.
    pub place: fn(&mut v1::HostMetrics) -> &mut Option<v1::Gauge>,
}

include!("generated/figures.rs");

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
        fn row<R>(f: &Figure<R>) -> (&'static str, &'static str, &'static str, bool) {
            (f.prometheus, f.unit, f.help, f.is_total)
        }
        let mut all: Vec<_> = COUNTERS.iter().map(|c| row(&c.figure)).collect();
        all.extend(SPLITS.iter().map(|s| row(&s.figure)));
        all.extend(HOST_GAUGES.iter().map(|g| row(&g.figure)));
        all.extend(DURATIONS.iter().map(|d| (d.prometheus, "s", d.help, false)));
        all.extend(OF_ENDPOINTS.iter().map(row));
        all.extend(TARGETS.iter().map(row));
        all.extend(NETWORK_NAMESPACES.iter().map(row));
        all.extend([&CORES, &LOSSES, &PRESSURE].map(row));
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
