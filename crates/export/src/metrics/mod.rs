//! The newest reports as Prometheus' text format, version 0.0.4.
//!
//! Counters are the reports' own totals, so that a scrape after a lost report
//! is as true as one before it.  Gauges of a host that went silent are left
//! out, never frozen.

mod endpoints;
mod families;
mod hosts;
mod report_series;
mod text;

use std::sync::Arc;

use monitor_proto::v1;
pub use report_series::ReportSeries;
pub use text::{Kind, Labels, Sink, Value, head, line};

/// A host at the time of a scrape.
#[derive(Debug)]
pub struct HostSample {
    report: v1::Report,
    summary: v1::HostSummary,
    up: bool,
    /// The labels of each endpoint.
    endpoints: Vec<Labels>,
}

impl HostSample {
    pub fn new(report: v1::Report, summary: v1::HostSummary, up: bool) -> Self {
        let mut sample = Self {
            report,
            summary,
            up,
            endpoints: Vec::new(),
        };
        let (of_host, endpoints) = (sample.labels(), &sample.report.endpoints);
        let labels = endpoints.iter();
        let labels = labels.map(|one| endpoints::labels(of_host.clone(), one));
        sample.endpoints = labels.collect();
        sample
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
pub fn write_report(out: &mut dyn Sink, report: v1::Report) {
    let summary = v1::HostSummary {
        last_seen_unix_ns: report.window_end_unix_ns,
        ..v1::HostSummary::default()
    };
    let sample = HostSample::new(report, summary, true);
    for family in families::all() {
        family.write(out, &sample);
    }
}

/// What is sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// All series of all hosts: a family's head, then its series host by host.
pub fn chunks(hosts: Vec<Arc<ReportSeries>>) -> impl Iterator<Item = String> {
    let mut families = families::all().enumerate();
    let mut family = families.next().filter(|_| !hosts.is_empty());
    let (mut host, mut at) = (0, 0);
    std::iter::from_fn(move || {
        let mut out = String::new();
        while let Some((nth, current)) = family.filter(|_| out.len() < CHUNK_BYTES) {
            if host == 0 && at == 0 {
                head(&mut out, current.name, current.kind, current.help);
            }
            if let Some(next) = hosts[host].write(&mut out, &current, nth, at) {
                at = next;
                continue;
            }
            (host, at) = (host + 1, 0);
            if host == hosts.len() {
                host = 0;
                family = families.next();
            }
        }
        (!out.is_empty()).then_some(out)
    })
}

#[cfg(test)]
mod tests;
