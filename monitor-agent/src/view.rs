//! `snapshot` and `top`: what is counted, read from the pins, as reports.
//!
//! A view keeps nothing and acknowledges nothing; the agent's own windows, if one
//! runs, are not touched.

use std::{path::Path, sync::Arc};

use monitor_proto::v1;

use crate::{
    host::{HostReader, HostSample, gauges},
    kernel::{EndpointGlance, KernelSample, Target},
    names::TargetNames,
    sampler::surroundings,
    source::Level,
    spool::ReportKey,
    target::Roots,
    window::{Reading, Sample, Surroundings, Windows, round_trips},
};

/// Reports of what happens between two looks.
#[derive(Debug)]
pub struct View {
    reader: HostReader,
    targets: Vec<Target>,
    windows: Windows,
    looks: u64,
    earlier: HostSample,
    earlier_kernel: Vec<EndpointGlance>,
    start: Surroundings,
}

impl View {
    /// A view of these targets, by their labels.
    #[must_use]
    pub fn new(host: v1::Host, labels: &[&str]) -> Self {
        let mut reader = HostReader::open(Path::new("/proc"), Path::new("/"));
        let targets = targets(labels);
        let start = surroundings(&mut reader, &targets);
        Self {
            earlier: reader.sample(),
            earlier_kernel: Vec::new(),
            windows: Windows::new(host, None, start.clone()),
            looks: 0,
            reader,
            targets,
            start,
        }
    }

    /// What happened since the last look; at the first look, since counting
    /// began.  Its epoch is 0: it is none of an agent's reports.
    pub fn look(
        &mut self,
        kernel: KernelSample,
        level: Level,
        names: &Arc<TargetNames>,
    ) -> v1::Report {
        let end = surroundings(&mut self.reader, &self.targets);
        let host = self.reader.sample();
        let elapsed_ns = end.at.boot_ns.saturating_sub(self.start.at.boot_ns);
        let glances: Vec<_> = kernel.endpoints.iter().map(EndpointGlance::from).collect();
        let sample = Sample {
            elapsed_ns,
            gauges: gauges::between(&self.earlier, &host, elapsed_ns),
            round_trips: round_trips(&self.earlier_kernel, &glances),
        };
        self.earlier_kernel = glances;
        self.earlier = host;
        self.start = end.clone();
        let reading = Reading {
            surroundings: end,
            kernel,
            level,
            names: Arc::clone(names),
            notes: Vec::new(),
            incomplete_reasons: ["a view, not a window of an agent".to_owned()].into(),
        };
        let key = ReportKey {
            epoch: 0,
            sequence: self.looks,
        };
        self.looks += 1;
        let closed = self.windows.close(key, reading, &[sample]);
        let report = closed.report.clone();
        self.windows.commit(closed);
        report
    }
}

fn targets(labels: &[&str]) -> Vec<Target> {
    Roots::detect().map_or_else(|_| Vec::new(), |roots| roots.of_labels(labels))
}

/// A report as a table, for `top`: what carried most first.
#[must_use]
pub fn table(report: &v1::Report) -> String {
    let seconds = (report.window_duration_ns as f64 / 1e9).max(1e-9);
    let mut endpoints: Vec<_> = report.endpoints.iter().collect();
    endpoints.sort_by_key(|e| std::cmp::Reverse(bytes(e)));
    let width = target_width(report);
    let widest = endpoints.iter().map(|e| label(e).chars().count()).max();
    let labels = widest.unwrap_or(0).clamp(28, LABEL_MAX);
    let metrics = report.host_metrics.clone().unwrap_or_default();
    let percent = |g: Option<v1::Gauge>| g.map_or("-".to_owned(), |g| format!("{:.1} %", g.last));
    let mut table = format!(
        "cpu {}   memory {}   disk {}   load {}\n\n{}{:<10} {:<labels$} {:>7} {:>9} {:>9} {:>11} {:>11} {:>9}\n",
        percent(metrics.cpu_usage),
        percent(metrics.memory_usage),
        percent(metrics.disk_usage),
        metrics
            .load_avg_1
            .map_or("-".to_owned(), |g| format!("{:.2}", g.last)),
        target_cell("TARGET", width),
        "ROLE",
        "ENDPOINT",
        "ACTIVE",
        "OPENED/s",
        "REQ/s",
        "IN B/s",
        "OUT B/s",
        "P99 ms",
    );
    for endpoint in endpoints {
        table += &target_cell(&endpoint.target, width);
        table += &row(endpoint, seconds, labels);
    }
    table
}

/// Whether a report is of more than one target: then endpoints of one address have
/// to be told apart.
#[must_use]
pub fn has_several_targets(report: &v1::Report) -> bool {
    let mut targets = report.endpoints.iter().map(|e| &e.target);
    let first = targets.next();
    report.targets.len() > 1 || targets.any(|target| Some(target) != first)
}

/// The width of the targets' column, where there is one.
fn target_width(report: &v1::Report) -> Option<usize> {
    let endpoints = report.endpoints.iter();
    let widest = endpoints.map(|e| e.target.chars().count()).max();
    has_several_targets(report).then(|| widest.unwrap_or(0).max("TARGET".len()))
}

fn target_cell(text: &str, width: Option<usize>) -> String {
    width.map_or_else(String::new, |width| format!("{text:<width$} "))
}

fn bytes(endpoint: &v1::Endpoint) -> u64 {
    let window = endpoint.window.as_ref();
    window.map_or(0, |w| w.bytes_received + w.bytes_sent)
}

/// Names come from files: what would move the cursor is shown as a mark.
pub(crate) fn printable(text: &str) -> String {
    let mark = |c: char| if c.is_control() { '·' } else { c };
    text.chars().map(mark).collect()
}

/// The widest column of endpoints; a longer label pushes the figures of its own line.
const LABEL_MAX: usize = 80;

/// What an endpoint is called, as far as that says more than its address, and its
/// address: `shop/first 10.0.0.1:80`.
#[must_use]
pub fn label(endpoint: &v1::Endpoint) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for name in [&endpoint.upstream, &endpoint.name] {
        if !name.is_empty() && *name != endpoint.address && !parts.contains(&name.as_str()) {
            parts.push(name);
        }
    }
    match parts.as_slice() {
        [] => endpoint.address.clone(),
        parts => format!("{} {}", parts.join("/"), endpoint.address),
    }
}

fn row(endpoint: &v1::Endpoint, seconds: f64, labels: usize) -> String {
    let role = match endpoint.role() {
        v1::Role::Downstream => "downstream",
        v1::Role::Upstream => "upstream",
        v1::Role::Unspecified => "-",
    };
    let window = endpoint.window.clone().unwrap_or_default();
    let http = window.http.as_ref();
    let rate = |n: u64| n as f64 / seconds;
    let unknown = || "-".to_owned();
    let seen = monitor_proto::protocol::seen_in_window(endpoint);
    let requests = seen.map_or_else(unknown, |h| format!("{:.1}", rate(h.requests)));
    let p99 = http
        .and_then(|h| h.exchange_duration.as_ref())
        .and_then(|h| monitor_proto::histogram::quantile_seconds(h, 0.99))
        .map_or_else(unknown, |s| format!("{:.2}", s * 1e3));
    format!(
        "{role:<10} {:<labels$} {:>7} {:>9.1} {requests:>9} {:>11.0} {:>11.0} {p99:>9}\n",
        printable(&label(endpoint)),
        endpoint.connections_active,
        rate(window.connections_opened),
        rate(window.bytes_received),
        rate(window.bytes_sent),
    )
}

#[cfg(test)]
mod tests {
    use monitor_common::{counters::EndpointCounters, endpoint::Role};

    use super::*;
    use crate::{
        kernel::{EndpointAddress, EndpointId, EndpointSample},
        names::{Name, Names},
    };

    fn counted(opened: u64) -> KernelSample {
        let counters = EndpointCounters {
            connections_opened: opened,
            ..EndpointCounters::ZERO
        };
        KernelSample {
            endpoints: vec![EndpointSample {
                id: EndpointId {
                    target: Arc::from("/nonexistent"),
                    role: Role::Upstream,
                    address: EndpointAddress::Socket(([127, 0, 0, 1], 80).into()),
                },
                counters: Box::new(counters),
                since_unix_ns: 1,
            }],
            since_unix_ns: 1,
            ..KernelSample::default()
        }
    }

    #[test]
    fn the_first_look_holds_everything_and_the_next_what_came_since() {
        let mut view = View::new(v1::Host::default(), &["/nonexistent"]);
        let opened = |report: &v1::Report| {
            let endpoint = &report.endpoints[0];
            let window = endpoint.window.as_ref().unwrap().connections_opened;
            (window, endpoint.totals.as_ref().unwrap().connections_opened)
        };
        let first = view.look(counted(5), Level::Tcp, &Arc::default());
        assert_eq!(opened(&first), (5, 5));
        // Whether an agent ran since 1970 it does not know.
        let reasons = [
            "a view, not a window of an agent",
            "gauges were not sampled here before this process began",
        ];
        assert!(
            reasons
                .iter()
                .all(|r| first.incomplete_reasons.iter().any(|f| f == r))
        );
        assert!(
            !first
                .incomplete_reasons
                .iter()
                .any(|r| r.contains("no agent"))
        );
        let mut names = Names::default();
        let name = Name {
            name: "first\x1b".to_owned(),
            upstream: "shop".to_owned(),
            backend: "first".to_owned(),
        };
        names.add_peer(([127, 0, 0, 1], 80).into(), &name);
        let names = Arc::new(TargetNames::from(names));
        let second = view.look(counted(7), Level::Tcp, &names);
        assert_eq!((opened(&second), second.complete), ((2, 7), false));
        assert_eq!(second.endpoints[0].backend, "first");
        assert!(table(&second).contains("shop/first· 127.0.0.1:80 "));
    }

    #[test]
    fn a_name_stands_before_the_address_where_it_says_more() {
        let label = |upstream: &str, name: &str| {
            label(&v1::Endpoint {
                address: "10.0.0.1:80".to_owned(),
                upstream: upstream.to_owned(),
                name: name.to_owned(),
                ..v1::Endpoint::default()
            })
        };
        assert_eq!(label("", ""), "10.0.0.1:80");
        assert_eq!(label("10.0.0.1:80", "10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(label("shop", "10.0.0.1:80"), "shop 10.0.0.1:80");
        assert_eq!(label("shop", "first"), "shop/first 10.0.0.1:80");
        assert_eq!(label("app:80", "app:80"), "app:80 10.0.0.1:80");
        assert_eq!(label("", "one.test"), "one.test 10.0.0.1:80");
    }

    #[test]
    fn a_table_shows_rates_and_no_zero_for_what_is_not_counted() {
        let mut report = View::new(v1::Host::default(), &["/nonexistent"]).look(
            counted(6),
            Level::Tcp,
            &Arc::default(),
        );
        report.window_duration_ns = 2_000_000_000;
        let table = table(&report);
        let row = table.lines().last().unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            ["upstream", "127.0.0.1:80", "6", "3.0", "-", "0", "0", "-"]
        );
        assert!(!table.contains("TARGET"), "there is one");
    }

    #[test]
    fn endpoints_of_two_targets_are_told_apart() {
        let labels = ["/nonexistent", "/other"];
        let mut sample = counted(6);
        let mut other = sample.endpoints[0].clone();
        other.id.target = Arc::from("/other");
        sample.endpoints.push(other);
        let report =
            View::new(v1::Host::default(), &labels).look(sample, Level::Tcp, &Arc::default());
        let table = table(&report);
        let columns: Vec<_> = table.lines().skip(2).map(|l| l.split_at(13)).collect();
        let targets: Vec<_> = columns.iter().map(|(target, _)| target.trim()).collect();
        assert_eq!(targets, ["TARGET", "/nonexistent", "/other"]);
        assert!(columns[1].1 == columns[2].1 && columns[0].1.starts_with("ROLE "));
    }
}
