//! The series of an endpoint.

use monitor_proto::{
    figures::{self, Figure, Number},
    histogram, labels, v1,
};

use super::{
    HostSample,
    families::{Family, Source},
    text::{Kind, Labels, Sink, line, line_of},
};

/// What is read of an endpoint.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// A counter of the totals.
    Total(fn(&v1::Counters) -> Option<Number>),
    /// A counter split by one label.
    Split(&'static str, fn(&v1::Counters) -> Vec<(String, u64)>),
    /// What is no counter of the totals; a gauge is left out where the host is silent.
    Own(&'static Figure<figures::Read<v1::Endpoint>>),
    Histogram(fn(&v1::Counters) -> Option<&v1::Histogram>),
}

/// What the shared tables hold.
pub(super) fn families() -> impl Iterator<Item = Family> {
    let own = figures::OF_ENDPOINTS.iter();
    let counters = figures::COUNTERS.iter().map(|counter| &counter.figure);
    let splits = figures::SPLITS.iter();
    let durations = figures::DURATIONS.iter();
    let endpoint = Source::Endpoint;
    own.map(move |f| Family::new(f, endpoint(Read::Own(f))))
        .chain(
            splits.map(move |s| {
                Family::new(&s.figure, endpoint(Read::Split(s.label, s.figure.read)))
            }),
        )
        .chain(durations.map(move |d| Family {
            name: d.prometheus,
            kind: Kind::Histogram,
            help: d.help,
            source: endpoint(Read::Histogram(d.read)),
        }))
        .chain(counters.map(move |f| Family::new(f, endpoint(Read::Total(f.read)))))
}

pub(super) fn write(out: &mut dyn Sink, name: &str, host: &HostSample, read: Read) {
    let none = v1::Counters::default();
    let all = host.report.endpoints.iter().zip(&host.endpoints);
    for (n, (endpoint, labels)) in all.enumerate() {
        let totals = endpoint.totals.as_ref().unwrap_or(&none);
        out.about(Some(n));
        match read {
            Read::Total(read) => {
                if let Some(value) = read(totals) {
                    line(out, name, labels, value);
                }
            }
            Read::Split(label, read) => {
                for (value, n) in read(totals) {
                    line_of(out, name, labels, (label, &value), n);
                }
            }
            Read::Own(figure) if host.up || figure.is_total => {
                if let Some(value) = (figure.read)(endpoint) {
                    line(out, name, labels, value);
                }
            }
            Read::Own(_) => {}
            Read::Histogram(read) => {
                if let Some(histogram) = read(totals) {
                    buckets(out, name, labels, histogram);
                }
            }
        }
    }
}

/// The proxy's names come after what identifies the endpoint.
pub(super) fn labels(of_host: Labels, endpoint: &v1::Endpoint) -> Labels {
    let of_endpoint = labels::of_endpoint(endpoint);
    of_endpoint.fold(of_host, |labels, (name, value)| labels.with(name, value))
}

/// The boundaries are 2^k seconds, 7.6 µs to 64 s: a subset of the histogram's
/// own, so that no value is moved, and few enough for a scrape.
const BOUNDARY_LOG2_MIN: i32 = -17;
const BOUNDARY_LOG2_MAX: i32 = 6;

fn buckets(out: &mut dyn Sink, name: &str, labels: &Labels, h: &v1::Histogram) {
    let bucket = format!("{name}_bucket");
    for k in BOUNDARY_LOG2_MIN..=BOUNDARY_LOG2_MAX {
        let boundary = f64::from(k).exp2();
        let le = boundary.to_string();
        line_of(out, &bucket, labels, ("le", &le), not_above(h, boundary));
    }
    let in_buckets: u64 = h.buckets.iter().sum();
    line_of(out, &bucket, labels, ("le", "+Inf"), in_buckets);
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
