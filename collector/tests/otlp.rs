//! Passing on by OTLP, to a strict receiver made of the official types.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod full;
#[path = "../../monitor-otlp/tests/receiver/mod.rs"]
mod receiver;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    ops::RangeInclusive,
};

use common::{Collector, eventually, report};
use full::full;
use monitor_otlp::Kind;
use monitor_proto::{labels, v1::ExportOutcome};
use receiver::{Receiver, Reply};
use tonic::Code;

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn store(collector: &Collector, host: &str, sequences: RangeInclusive<u64>) {
    let mut agent = collector.agent().await;
    for sequence in sequences {
        let outcome = agent.export(full(host, sequence)).await;
        assert_eq!(outcome, ExportOutcome::Stored);
    }
}

/// The sum of a name's series in the collector's own `/metrics`; of those of a
/// role where one is given.
fn total(metrics: &str, name: &str, role: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{') && rest.contains(role))
    });
    let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    values.sum()
}

/// Every metric's sum is that of `/metrics`.
#[allow(clippy::float_cmp, reason = "all values here are exact in floats")]
fn everything_agrees(receiver: &Receiver, collector: &Collector) {
    let metrics = collector.get("/metrics").body;
    for metric in monitor_otlp::metrics() {
        if metric.prometheus.is_empty() {
            // It is looked at by itself.
            continue;
        }
        let role = match metric.name {
            "http.server.request.duration" => "role=\"downstream\"",
            "http.client.request.duration" => "role=\"upstream\"",
            _ => "",
        };
        if metric.kind == Kind::Histogram {
            for part in ["count", "sum"] {
                let own = total(&metrics, &format!("{}_{part}", metric.prometheus), role);
                let there = receiver.sum(&format!("{}#{part}", metric.name)).unwrap();
                assert!(own > 0.0 && (there - own).abs() < 1e-9, "{}", metric.name);
            }
        } else {
            let own = total(&metrics, metric.prometheus, role);
            assert!(own > 0.0, "{}", metric.prometheus);
            assert_eq!(receiver.sum(metric.name), Some(own), "{}", metric.name);
        }
    }
}

async fn survives_outages_and_kill_9(scheme: &str, start: fn(u16) -> Receiver) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("{scheme}://127.0.0.1:{port}");
    let flags = ["--otlp", &url];
    let collector = Collector::start_with(dir.path(), &flags);
    // Nobody listens yet: nothing waits for it.
    store(&collector, "web", 1..=20).await;
    let arrive = |receiver: &Receiver, wanted: usize| {
        eventually("the reports arrive", || {
            receiver.count("speedmimi.bytes.sent", "role=downstream") == wanted
        });
    };
    let first = start(port);
    arrive(&first, 20);
    drop(first);
    store(&collector, "web", 21..=50).await;
    collector.kill_9();
    let collector = Collector::start_with(dir.path(), &flags);
    store(&collector, "web", 51..=80).await;
    store(&collector, "db", 1..=1).await;
    let second = start(port);
    eventually("both hosts' last reports arrive", || {
        second.sum("system.network.io") == Some(300.0 * 81.0)
    });
    // Nothing between is missing; what was acknowledged before need not come
    // again, and where it does it is the same.
    let key = "speedmimi.bytes.sent";
    let times: Vec<u64> = second
        .points()
        .iter()
        .filter(|((host, name, _), _)| host == "id-web" && name == key)
        .flat_map(|(_, points)| points.keys().copied())
        .collect();
    let end = |sequence| report("web", sequence).window_end_unix_ns;
    for sequence in 21..=80 {
        assert!(times.contains(&end(sequence)), "{sequence}");
    }
    everything_agrees(&second, &collector);
    assert_eq!(
        second.starts("system.network.io"),
        [1_763_000_000_000_000_000; 4]
    );
    let starts = second.starts(key);
    assert_eq!(starts, [1_763_860_000_000_000_000; 4]);
}

#[tokio::test]
async fn over_http_nothing_is_lost_in_outages_and_by_kill_9() {
    survives_outages_and_kill_9("http", Receiver::http).await;
}

#[tokio::test]
async fn over_grpc_nothing_is_lost_in_outages_and_by_kill_9() {
    survives_outages_and_kill_9("grpc", Receiver::grpc).await;
}

fn counted(collector: &Collector, name: &str, labels: &str, wanted: u64) {
    let name = format!("speedmimi_collector_otlp_{name}_total{{");
    eventually(&format!("{name}{labels} is {wanted}"), || {
        let metrics = collector.get("/metrics").body;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with(&name) && line.contains(labels));
        line.is_some_and(|line| line.ends_with(&format!(" {wanted}")))
    });
}

async fn obeys(scheme: &str, receiver: Receiver, later: [Reply; 3], never: Reply) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("{scheme}://{}", receiver.address);
    let collector = Collector::start_with(dir.path(), &["--otlp", &url]);
    let points = |n: u64| {
        let parts = monitor_otlp::parts(&full("web", n));
        parts.iter().map(|part| part.points).sum::<u64>()
    };
    // Three tries that may succeed later, then all but four points are taken.
    let tries = later.len() as u64;
    receiver.answer(later);
    receiver.answer([Reply::Partial(4)]);
    store(&collector, "web", 1..=1).await;
    counted(&collector, "sent_points", "", points(1) - 4);
    counted(&collector, "rejected_points", "partial", 4);
    counted(&collector, "retries", "", tries);
    // What is refused for good is dropped and counted, and the next one goes.
    receiver.answer([never]);
    store(&collector, "web", 2..=2).await;
    counted(&collector, "rejected_points", "refused", points(2));
    store(&collector, "web", 3..=3).await;
    counted(&collector, "sent_points", "", points(1) - 4 + points(3));
    counted(&collector, "retries", "", tries);
    assert_eq!(receiver.bodies().len(), 2);
    assert_eq!(receiver.count("speedmimi.bytes.sent", "role=downstream"), 2);
}

#[tokio::test]
async fn over_http_the_table_of_retries_is_obeyed() {
    let later = [
        Reply::Http(503, Some(1)),
        Reply::Http(429, None),
        Reply::Http(502, None),
    ];
    obeys("http", Receiver::http(0), later, Reply::Http(400, None)).await;
}

#[tokio::test]
async fn over_grpc_the_table_of_retries_is_obeyed() {
    let later = [Code::Unavailable, Code::Aborted, Code::DataLoss].map(Reply::Grpc);
    let never = Reply::Grpc(Code::InvalidArgument);
    obeys("grpc", Receiver::grpc(0), later, never).await;
}

#[tokio::test]
async fn what_no_receiver_has_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let run = |otlp: &str, headers: &str| {
        let output = common::command()
            .args(["run", "--data-dir", data.to_str().unwrap(), "--otlp", otlp])
            .env("OTEL_EXPORTER_OTLP_HEADERS", headers)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(!said.contains("secret"), "{said}");
        said
    };
    assert!(run("udp://a:4317", "").contains("grpc://HOST:4317"));
    assert!(run("http://me:secret@a", "").contains("without a password"));
    assert!(run("http://a", "secret").contains("KEY=VALUE"));
    assert!(!data.exists());
}

/// Names and types of the families in `/metrics`, with the labels that are not
/// in `common`.
fn families(metrics: &str, common: &[&str]) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut all = BTreeMap::new();
    for line in metrics.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            all.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
            let histogram = ["_bucket", "_sum", "_count"];
            let stem = histogram.iter().find_map(|end| name.strip_suffix(end));
            let stem = stem.filter(|stem| all.contains_key(*stem)).unwrap_or(name);
            let labels = rest.split('"').step_by(2);
            let labels = labels.filter_map(|l| l.strip_suffix('=')).map(|l| &l[1..]);
            let labels = labels.filter(|l| !common.contains(l)).map(str::to_owned);
            all.get_mut(stem).unwrap().1.extend(labels);
        }
    }
    all
}

/// The rows of docs/metrics.md with so many cells, as plain words.
fn documented(cells: usize) -> Vec<Vec<String>> {
    let text = include_str!("../../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows = rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        let cell = |cell: &str| cell.trim().replace(['`', '–'], "");
        cells.map(cell).collect::<Vec<_>>()
    });
    rows.filter(|row| row.len() == cells && !["JSON", "Prometheus"].contains(&&*row[0]))
        .collect()
}

fn words(list: &str) -> BTreeSet<String> {
    let words = list.split(',').map(str::trim);
    words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_documented_tables_are_what_is_served_and_sent() {
    const COMMON: [&str; 11] = [
        "host",
        "host_id",
        "target",
        "role",
        "endpoint",
        "listener",
        "upstream",
        "backend",
        "le",
        "server.address",
        "server.port",
    ];
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::http(0);
    let otlp = format!("http://{}", receiver.address);
    let flags = ["--otlp", &otlp, "--remote-write", "http://127.0.0.1:1/"];
    let collector = Collector::start_with(dir.path(), &flags);
    let mut report = full("web", 1);
    for endpoint in &mut report.endpoints {
        endpoint.name = "n".into();
        endpoint.upstream = "u".into();
        endpoint.backend = "b".into();
    }
    assert_eq!(
        collector.agent().await.export(report).await,
        ExportOutcome::Stored
    );
    eventually("the report arrives", || !receiver.bodies().is_empty());

    // The report's host has one label of those that a host may have.
    let metrics = collector.get("/metrics").body;
    let metrics = metrics.replace("label_region", "label_KEY");
    let mut served = families(&metrics, &COMMON);
    // Which labels a problem has depends on its subject.
    let problems: Vec<_> = served
        .extract_if(.., |name, _| name.starts_with("speedmimi_problem"))
        .map(|(name, (kind, _))| (name, kind))
        .collect();
    let (own, of_hosts): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut served)
        .into_iter()
        .partition(|(name, _)| name.starts_with("speedmimi_collector_"));
    let table = |name: usize, labels: usize, kind: usize, rows: &[Vec<String>]| {
        let rows = rows.iter().filter(|row| !row[name].is_empty());
        let row = |row: &Vec<String>| (row[name].clone(), (row[kind].clone(), words(&row[labels])));
        rows.map(row).collect::<BTreeMap<_, _>>()
    };
    let (documented_problems, of_collector): (BTreeMap<_, _>, BTreeMap<_, _>) =
        table(0, 1, 2, &documented(4))
            .into_iter()
            .partition(|(name, _)| name.starts_with("speedmimi_problem"));
    assert_eq!(of_collector, own, "the collector's own");
    assert!(
        problems
            .iter()
            .any(|(name, _)| name == "speedmimi_problems")
    );
    for (name, kind) in problems {
        assert_eq!(documented_problems[&name].0, kind, "{name}");
    }
    let rows = documented(8);
    assert_eq!(table(1, 2, 5, &rows), of_hosts, "of hosts and endpoints");

    // What a target is stands with its path.
    let of_target: Vec<_> = labels::attributes_of_target(&full("web", 1).targets[0])
        .map(|(name, _)| name.to_owned())
        .collect();
    // What the table of the code says, and which attributes really came.
    let mut attributes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, name, pairs) in receiver.points().into_keys() {
        let name = name.split('#').next().unwrap().to_owned();
        let keys = pairs.split(',').filter_map(|pair| pair.split_once('='));
        let keys = keys.map(|(key, _)| key.to_owned());
        let keys = keys.filter(|key| !COMMON.contains(&key.as_str()) && !of_target.contains(key));
        attributes.entry(name).or_default().extend(keys);
    }
    let sent: BTreeMap<String, Vec<String>> = monitor_otlp::metrics()
        .map(|m| {
            let kind = match m.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let row = [m.prometheus, kind, m.unit].map(str::to_owned);
            (m.name.to_owned(), row.to_vec())
        })
        .collect();
    let rows = rows.iter().filter(|row| !row[3].is_empty());
    let written: BTreeMap<String, Vec<String>> = rows
        .clone()
        .map(|row| {
            (
                row[3].clone(),
                vec![row[1].clone(), row[5].clone(), row[6].clone()],
            )
        })
        .collect();
    assert_eq!(written, sent);
    let written: BTreeMap<String, BTreeSet<String>> =
        rows.map(|row| (row[3].clone(), words(&row[4]))).collect();
    assert_eq!(written, attributes);
}
