//! Passing on by remote write to real engines: the same tests for each.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod engines;

use std::{
    io::Write,
    ops::RangeInclusive,
    process::{Command, ExitCode, Stdio},
};

use common::{Collector, eventually, now_ns, report, trial};
use engines::{Engine, Kind, free_port, missing};
use libtest_mimic::Arguments;
use monitor_proto::v1::{self, ExportOutcome};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![trial(
        "promtool_has_no_complaint_about_the_metrics",
        missing("promtool", "prometheus"),
        promtool_has_no_complaint_about_the_metrics,
    )];
    for kind in Kind::ALL {
        let name = |what: &str| format!("{}::{what}", kind.program());
        trials.push(trial(
            &name("after_an_outage_and_kill_9_the_engine_has_every_report_once"),
            kind.missing(),
            async move || after_an_outage_and_kill_9(kind).await,
        ));
        trials.push(trial(
            &name("a_late_report_does_not_stop_the_others"),
            kind.missing(),
            async move || a_late_report(kind).await,
        ));
        trials.push(trial(
            &name("a_renamed_upstream_and_a_vanished_endpoint_do_not_count_on"),
            kind.missing(),
            async move || renamed(kind).await,
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn at(base_ns: u64, sequence: u64) -> v1::Report {
    let mut r = report("web", sequence);
    r.window_end_unix_ns = base_ns + sequence * 1_000_000_000;
    r.window_start_unix_ns = r.window_end_unix_ns - 1_000_000_000;
    r
}

/// Stores reports; each is acknowledged.
async fn store(collector: &Collector, base_ns: u64, sequences: RangeInclusive<u64>) {
    let mut agent = collector.agent().await;
    for sequence in sequences {
        let outcome = agent.export(at(base_ns, sequence)).await;
        assert_eq!(outcome, ExportOutcome::Stored);
    }
}

/// The sum of a name's series in the collector's own `/metrics`.
fn total(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{'))
    });
    let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    values.sum()
}

#[allow(clippy::float_cmp, reason = "counts below 2^53 are exact in floats")]
async fn after_an_outage_and_kill_9(kind: Kind) {
    let engine_dir = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let flags = ["--remote-write", &url];
    // 90 s of reports that end now.
    let base_ns = now_ns() - 90 * 1_000_000_000;
    let collector = Collector::start_with(dir.path(), &flags);
    // Nobody listens yet: nothing waits for it.
    store(&collector, base_ns, 1..=20).await;
    eventually("what waits is told", || {
        let metrics = collector.get("/metrics").body;
        total(&metrics, "speedmimi_collector_remote_write_behind_seconds") > 0.0
    });
    let engine = Engine::start(kind, engine_dir.path(), port);
    let series = "speedmimi_requests_total{role=\"downstream\",host_id=\"id-web\"}";
    let samples = format!("count_over_time({series}[10m])");
    let arrive = |engine: &Engine, wanted: u32| {
        eventually("the reports arrive", || {
            engine.query(&samples) == f64::from(wanted)
        });
    };
    arrive(&engine, 20);
    engine.stop();
    store(&collector, base_ns, 21..=50).await;
    collector.kill_9();
    let collector = Collector::start_with(dir.path(), &flags);
    store(&collector, base_ns, 51..=80).await;
    let engine = Engine::start(kind, engine_dir.path(), port);
    arrive(&engine, 80);

    // Sums in the engine are the collector's own totals.
    let metrics = collector.get("/metrics").body;
    for name in [
        "speedmimi_requests_total",
        "speedmimi_bytes_sent_total",
        "speedmimi_bytes_received_total",
        "speedmimi_connections_opened_total",
        "speedmimi_connections_closed_total",
        "speedmimi_connections_active",
        "speedmimi_responses_total",
        "speedmimi_exchange_duration_seconds_bucket",
        "speedmimi_exchange_duration_seconds_count",
        "speedmimi_host_cpu_usage_ratio",
    ] {
        let own = total(&metrics, name);
        assert!(own > 0.0, "{name}");
        // An engine shows what it took a moment later.
        eventually(&format!("the sum of {name} is {own}"), || {
            engine.query(&format!("sum(last_over_time({name}[10m]))")) == own
        });
    }
    let p99 = engine.query(
        "histogram_quantile(0.99, sum by (le) (last_over_time(\
         speedmimi_exchange_duration_seconds_bucket{role=\"downstream\"}[10m])))",
    );
    assert!((0.000_244..=0.000_489).contains(&p99), "{p99}");
    eventually("nothing waits", || {
        let metrics = collector.get("/metrics").body;
        let name = "speedmimi_collector_remote_write_behind_seconds";
        metrics.contains(name) && total(&metrics, name) == 0.0
    });
}

#[allow(clippy::float_cmp, reason = "counts below 2^53 are exact in floats")]
async fn a_late_report(kind: Kind) {
    let engine_dir = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let engine = Engine::start(kind, engine_dir.path(), port);
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let collector = Collector::start_with(dir.path(), &["--remote-write", &url]);
    let base_ns = now_ns() - 60 * 1_000_000_000;
    let mut agent = collector.agent().await;
    for sequence in [1, 5, 3, 7] {
        agent.export(at(base_ns, sequence)).await;
    }
    eventually("the last one arrives", || {
        let opened = "speedmimi_connections_opened_total{role=\"downstream\"}";
        engine.query(&format!("last_over_time({opened}[10m])")) == 14.0
    });
    // Prometheus takes no older sample unless it is told to.
    let late = u64::from(kind == Kind::Prometheus);
    let told = |name: &str, labels: &str, n: u64| {
        let line =
            format!("speedmimi_collector_remote_write_{name}_total{{url=\"{url}\"{labels}}} {n}\n");
        eventually(&line, || collector.get("/metrics").body.contains(&line));
    };
    told("sent", "", 4 - late);
    told("rejected", ",reason=\"out_of_order\"", late);
    told("rejected", ",reason=\"refused\"", 0);
}

#[allow(clippy::float_cmp, reason = "counts below 2^53 are exact in floats")]
async fn renamed(kind: Kind) {
    let engine_dir = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let engine = Engine::start(kind, engine_dir.path(), port);
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let collector = Collector::start_with(dir.path(), &["--remote-write", &url]);
    let base_ns = now_ns() - 30 * 1_000_000_000;
    let mut agent = collector.agent().await;
    for sequence in 1..=20 {
        let mut report = at(base_ns, sequence);
        let upstream = if sequence <= 10 { "old" } else { "new" };
        report.endpoints[1].upstream = upstream.into();
        if sequence > 10 {
            report.endpoints.remove(0);
        }
        agent.export(report).await;
    }
    let ever = "count_over_time(speedmimi_connections_opened_total{upstream=\"new\"}[10m])";
    eventually("all arrive", || engine.query(ever) == 10.0);
    // As sums of now count them.
    let now = "count(speedmimi_connections_opened_total)";
    eventually("one is left", || engine.query(now) == 1.0);
    assert_eq!(
        engine.query("count(speedmimi_connections_opened_total{upstream=\"new\"})"),
        1.0
    );
    let rejected = "speedmimi_collector_remote_write_rejected_total";
    let metrics = collector.get("/metrics").body;
    assert_eq!(total(&metrics, rejected), 0.0);
}

async fn promtool_has_no_complaint_about_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        ["--remote-write", "http://127.0.0.1:1/"],
        ["--otlp", "http://127.0.0.1:1"],
    ];
    let collector = Collector::start_with(dir.path(), flags.as_flattened());
    let mut agent = collector.agent().await;
    for host in ["a", "b \"quoted\\ \n"] {
        agent.export(report(host, 1)).await;
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin
        .write_all(collector.get("/metrics").body.as_bytes())
        .unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
