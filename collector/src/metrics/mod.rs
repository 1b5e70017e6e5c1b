//! The newest reports as Prometheus' text format, version 0.0.4.
//!
//! Counters are the reports' own totals, so that a scrape after a lost report
//! is as true as one before it.  Gauges of a host that went silent are left
//! out, never frozen.

mod endpoints;
mod families;
mod hosts;
mod own;
mod text;

use monitor_proto::v1;

pub(crate) use own::own;
pub(crate) use text::{Labels, Sink, Value};

use crate::fleet::HostState;

/// A host at the time of a scrape.
#[derive(Debug)]
pub(crate) struct HostSample {
    report: v1::Report,
    summary: v1::HostSummary,
    up: bool,
}

impl HostSample {
    /// `None` where the newest report is unreadable.
    pub(crate) fn new(state: &HostState, steady_ns: u64) -> Option<Self> {
        Some(Self {
            report: state.report()?,
            summary: state.summary(),
            up: !state.row.silent(steady_ns),
        })
    }

    /// Whose every series is.
    fn labels(&self) -> Labels {
        let (name, id) = self.host();
        Labels::default().with("host", name).with("host_id", id)
    }

    fn host(&self) -> (&str, &str) {
        self.report
            .host
            .as_ref()
            .map_or(("", ""), |host| (host.name.as_str(), host.id.as_str()))
    }
}

/// The series of one report, as of its window's end: they follow from the
/// report alone.
pub(crate) fn write_report(out: &mut dyn Sink, report: v1::Report) {
    let sample = HostSample {
        summary: v1::HostSummary {
            last_seen_unix_ns: report.window_end_unix_ns,
            ..v1::HostSummary::default()
        },
        report,
        up: true,
    };
    for family in families::all() {
        family.write(out, &sample);
    }
}

/// What is sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// All series of all hosts: a family's head, then its series host by host.
///
/// `nth` makes a host's sample anew for each family, `None` where there is
/// none: decoding a report costs less than writing its series, and so a scrape
/// holds one report and one chunk, however many hosts there are.
pub(crate) fn chunks(
    hosts: usize,
    nth: impl Fn(usize) -> Option<HostSample>,
) -> impl Iterator<Item = String> {
    let mut families = families::all();
    let mut family = families.next().filter(|_| hosts > 0);
    let mut host = 0;
    std::iter::from_fn(move || {
        let mut out = String::new();
        while let Some(current) = family.filter(|_| out.len() < CHUNK_BYTES) {
            if host == 0 {
                text::head(&mut out, current.name, current.kind, current.help);
            }
            if let Some(sample) = nth(host) {
                current.write(&mut out, &sample);
            }
            host += 1;
            if host == hosts {
                host = 0;
                family = families.next();
            }
        }
        (!out.is_empty()).then_some(out)
    })
}

#[cfg(test)]
mod tests;
