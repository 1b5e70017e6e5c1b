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

use std::sync::Arc;

use monitor_proto::v1;

pub(crate) use own::own;
pub(crate) use text::{Labels, Sink, Value};

use crate::fleet::HostState;

/// After this time without a report a host's gauges say nothing any more.
const SILENT_AFTER_NS: u64 = 60_000_000_000;

/// A host at the time of a scrape.
#[derive(Debug)]
pub(crate) struct HostSample {
    report: v1::Report,
    summary: v1::HostSummary,
    up: bool,
}

impl HostSample {
    /// `None` where the newest report is unreadable.
    pub(crate) fn new(state: &HostState, now_ns: u64) -> Option<Self> {
        Some(Self {
            report: state.report()?,
            summary: state.summary(),
            up: now_ns.saturating_sub(state.row.last_seen_ns) < SILENT_AFTER_NS,
        })
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

/// All series of all hosts: a family's head, then its series host by host.
pub(crate) fn chunks(hosts: Arc<Vec<HostSample>>) -> impl Iterator<Item = String> {
    families::all().flat_map(move |family| {
        let hosts = Arc::clone(&hosts);
        (0..hosts.len()).filter_map(move |i| {
            let mut out = String::new();
            family.write(&mut out, &hosts[i]);
            if i == 0 {
                let mut head = String::new();
                text::head(&mut head, family.name, family.kind, family.help);
                out.insert_str(0, &head);
            }
            (!out.is_empty()).then_some(out)
        })
    })
}

#[cfg(test)]
mod tests;
