//! `snapshot` and `top`: what is counted, read from the pins, as reports.
//!
//! A view keeps nothing and acknowledges nothing; the agent's own windows, if one
//! runs, are not touched.

use std::{path::Path, sync::Arc};

use host_metrics::{HostReader, HostSample, gauges};
use kernel_sample::{EndpointSnapshot, KernelSample, Level, Target};
use monitor_proto::ReportKey;
use monitor_proto::{
    display::{Column, UNKNOWN, accept_queue, fitting, known, note, printable},
    histogram,
    protocol::{Protocol, Spoken, seen_in_window, tls_failed},
    v1,
};
use window::{Environment, Observation, Sample, TargetNames, Windows, round_trips};

use crate::{
    sampler::environment,
    target::{Roots, RunningNames},
};

/// Reports of what happens between two looks.
#[derive(Debug)]
pub struct View {
    reader: HostReader,
    targets: Vec<Target>,
    names: RunningNames,
    windows: Windows,
    looks: u64,
    earlier: HostSample,
    earlier_kernel: Vec<EndpointSnapshot>,
    start: Environment,
}

impl View {
    /// A view of these targets, by their labels.
    #[must_use]
    pub fn new(host: v1::Host, labels: &[&str]) -> Self {
        let mut reader = HostReader::open(Path::new("/proc"), Path::new("/"));
        let targets = targets(labels);
        let mut names = RunningNames::default();
        let start = environment(&mut reader, &targets, &mut names);
        Self {
            earlier: reader.sample(),
            earlier_kernel: Vec::new(),
            windows: Windows::new(host, None, start.clone()),
            looks: 0,
            reader,
            targets,
            names,
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
        let end = environment(&mut self.reader, &self.targets, &mut self.names);
        let host = self.reader.sample();
        let elapsed_ns = end.at.boot_ns.saturating_sub(self.start.at.boot_ns);
        let snapshots: Vec<_> = kernel
            .endpoints
            .iter()
            .map(EndpointSnapshot::from)
            .collect();
        let sample = Sample {
            elapsed_ns,
            gauges: gauges::between(&self.earlier, &host, elapsed_ns),
            round_trips: round_trips(&self.earlier_kernel, &snapshots),
        };
        self.earlier_kernel = snapshots;
        self.earlier = host;
        self.start = end.clone();
        let reading = Observation {
            environment: end,
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

/// The columns of the table.  It goes into files and pipes as well: nothing is
/// cut, and figures have their unit in the head.
const COLUMNS: [Column; 15] = [
    Column::name("TARGET", 0, 0),
    Column::name("ROLE", 0, 0),
    Column::name("ENDPOINT", 0, 0),
    Column::figure("ACTIVE", 0),
    Column::figure("OPENED/s", 0),
    Column::figure("REQ/s", 0),
    Column::figure("EXCH/s", 0),
    Column::figure("IN B/s", 0),
    Column::figure("OUT B/s", 0),
    Column::figure("RESET", 0),
    Column::figure("NOANS", 0),
    Column::figure("TLSFAIL", 0),
    Column::figure("QUEUE", 0),
    Column::figure("P99 ms", 0),
    Column::name("NOTE", 0, 0),
];

/// A report as a table, for `top`: what carried most first.
#[must_use]
pub fn table(report: &v1::Report) -> String {
    let seconds = (report.window_duration_ns as f64 / 1e9).max(1e-9);
    let mut endpoints: Vec<_> = report.endpoints.iter().collect();
    endpoints.sort_by_key(|e| std::cmp::Reverse(bytes(e)));
    let exchanges = endpoints
        .iter()
        .any(|e| note(Protocol::of_window(e), Spoken::default()).is_some());
    let is_there = |head| match head {
        "TARGET" => has_several_targets(report),
        "EXCH/s" | "NOTE" => exchanges,
        "TLSFAIL" => endpoints.iter().any(|e| Spoken::of(e).has_tls()),
        "QUEUE" => has_queues(report),
        _ => true,
    };
    let rows: Vec<_> = endpoints.iter().map(|e| row(e, seconds)).collect();
    let widest: Vec<usize> = (0..COLUMNS.len())
        .map(|i| {
            let cells = rows.iter().map(|row| row[i].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut shown = fitting(&COLUMNS, &widest, usize::MAX);
    shown.retain(|(i, _)| is_there(COLUMNS[*i].head));
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = shown.iter().map(|&(i, width)| match COLUMNS[i].cut_to {
            Some(_) => format!("{:<width$}", cell(i)),
            None => format!("{:>width$}", cell(i)),
        });
        let cells: Vec<String> = cells.collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut table = host_line(&report.host_metrics.clone().unwrap_or_default());
    table += &line(&|i| COLUMNS[i].head.to_owned());
    for row in &rows {
        table += &line(&|i| row[i].clone());
    }
    table
}

fn host_line(metrics: &v1::HostMetrics) -> String {
    let percent = |g: Option<v1::Gauge>| known(g.map(|g| format!("{:.1} %", g.last)));
    format!(
        "cpu {}   memory {}   disk {}   load {}\n\n",
        percent(metrics.cpu_usage),
        percent(metrics.memory_usage),
        percent(metrics.disk_usage),
        known(metrics.load_avg_1.map(|g| format!("{:.2}", g.last))),
    )
}

/// Whether a report is of more than one target: then endpoints of one address have
/// to be told apart.
#[must_use]
pub fn has_several_targets(report: &v1::Report) -> bool {
    let mut targets = report.endpoints.iter().map(|e| &e.target);
    let first = targets.next();
    report.targets.len() > 1 || targets.any(|target| Some(target) != first)
}

/// Whether the accept queue of a listener is known.
pub(crate) fn has_queues(report: &v1::Report) -> bool {
    report.endpoints.iter().any(|e| e.accept_queue.is_some())
}

/// A listener's accept queue, where it is known: now, at the most and limit.
pub(crate) fn queue(endpoint: &v1::Endpoint) -> Option<String> {
    let queue = endpoint.accept_queue.as_ref()?;
    Some(accept_queue(
        queue.connections,
        queue.connections_max,
        queue.limit,
    ))
}

fn bytes(endpoint: &v1::Endpoint) -> u64 {
    let window = endpoint.window.as_ref();
    window.map_or(0, |w| w.bytes_received + w.bytes_sent)
}

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

/// A role, as every table of the agent calls it.
pub(crate) fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Downstream => "downstream",
        v1::Role::Upstream => "upstream",
        v1::Role::Unspecified => UNKNOWN,
    }
}

fn row(endpoint: &v1::Endpoint, seconds: f64) -> [String; COLUMNS.len()] {
    let window = endpoint.window.clone().unwrap_or_default();
    let http = window.http.as_ref();
    let rate = |n: u64| n as f64 / seconds;
    let note = note(Protocol::of_window(endpoint), Spoken::of(endpoint));
    let mark = if note.is_some() { "*" } else { "" };
    let durations = http.and_then(|h| h.exchange_duration.as_ref());
    let p99 = durations.and_then(|d| histogram::quantile_seconds(d, 0.99));
    [
        printable(&endpoint.target).into_owned(),
        role(endpoint.role()).to_owned(),
        printable(&label(endpoint)).into_owned(),
        endpoint.connections_active.to_string(),
        format!("{:.1}", rate(window.connections_opened)),
        known(seen_in_window(endpoint).map(|h| format!("{:.1}", rate(h.requests)))),
        known(http.map(|h| format!("{:.1}", rate(h.exchanges)))),
        format!("{:.0}", rate(window.bytes_received)),
        format!("{:.0}", rate(window.bytes_sent)),
        known(window.closed_reset_received.map(|n| n.to_string())),
        known(seen_in_window(endpoint).map(|h| h.requests_without_response.to_string())),
        known(http.and_then(tls_failed).map(|n| n.to_string())),
        known(queue(endpoint)),
        known(p99.map(|s| format!("{:.2}{mark}", s * 1e3))),
        note.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use monitor_common::{counters::EndpointCounters, endpoint::Role};

    use super::*;
    use kernel_sample::{EndpointAddress, EndpointId, EndpointSample};
    use proxy_config::{Name, Names};

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
        assert!(table(&second).contains("shop/first\u{fffd} 127.0.0.1:80 "));
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
            [
                "upstream",
                "127.0.0.1:80",
                "6",
                "3.0",
                "–",
                "0",
                "0",
                "0",
                "–",
                "–"
            ]
        );
        assert!(!table.contains("TARGET"), "there is one");
    }

    #[test]
    fn a_table_of_top_marks_durations_that_are_not_of_requests() {
        let endpoint = |address: &str, requests, exchanges| v1::Endpoint {
            address: address.to_owned(),
            window: Some(v1::Counters {
                http: Some(v1::HttpCounters {
                    requests,
                    exchanges,
                    exchange_duration: Some(v1::Histogram {
                        count: 5,
                        scale: 2,
                        offset: -47,
                        buckets: vec![5],
                        ..v1::Histogram::default()
                    }),
                    ..v1::HttpCounters::default()
                }),
                ..v1::Counters::default()
            }),
            ..v1::Endpoint::default()
        };
        let mut report = v1::Report {
            window_duration_ns: 5_000_000_000,
            endpoints: vec![
                endpoint("10.0.0.1:80", 5, 0),
                endpoint("10.0.0.1:443", 0, 1_195),
            ],
            ..v1::Report::default()
        };
        let shown = |report: &v1::Report| -> Vec<Vec<String>> {
            let table = table(report);
            let lines = table.lines().skip(2);
            lines
                .map(|line| line.split_whitespace().map(str::to_owned).collect())
                .collect()
        };
        let table = shown(&report);
        assert_eq!(
            table[0][4..],
            [
                "REQ/s", "EXCH/s", "IN", "B/s", "OUT", "B/s", "RESET", "NOANS", "P99", "ms", "NOTE"
            ]
        );
        assert_eq!(
            table[1][2..],
            ["0", "0.0", "1.0", "0.0", "0", "0", "–", "0", "0.34"]
        );
        assert_eq!(
            table[2][2..13],
            [
                "0", "0.0", "–", "239.0", "0", "0", "–", "–", "0.34*", "not", "HTTP/1:"
            ]
        );
        report.endpoints.pop();
        report.endpoints[0].accept_queue = Some(v1::AcceptQueue {
            connections: 3,
            connections_max: 129,
            limit: 128,
            ..v1::AcceptQueue::default()
        });
        let with_queue = shown(&report);
        assert_eq!(with_queue[0][9..12], ["RESET", "NOANS", "QUEUE"]);
        assert_eq!(with_queue[1][7..10], ["–", "0", "3/129/128"]);
        report.endpoints[0].accept_queue = None;
        let head = shown(&report)[0].join(" ");
        assert_eq!(
            head,
            "ROLE ENDPOINT ACTIVE OPENED/s REQ/s IN B/s OUT B/s RESET NOANS P99 ms"
        );
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
        let columns: Vec<_> = table.lines().skip(2).map(|l| l.split_at(14)).collect();
        let targets: Vec<_> = columns.iter().map(|(target, _)| target.trim()).collect();
        assert_eq!(targets, ["TARGET", "/nonexistent", "/other"]);
        assert!(columns[1].1 == columns[2].1 && columns[0].1.starts_with("ROLE "));
    }
}
