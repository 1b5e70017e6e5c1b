//! Passing on to a real Prometheus.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Collector, DEADLINE, eventually, get, now_ns, report};
use monitor_proto::v1::{self, ExportOutcome};
use serde_json::Value;

/// A Prometheus that scrapes nothing; killed when dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(dir: &Path, port: u16) -> Self {
        let config = dir.join("prometheus.yml");
        std::fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        prometheus.wait();
        prometheus
    }

    fn wait(&self) {
        let deadline = Instant::now() + DEADLINE;
        let ready = format!("{}/-/ready", self.url);
        while !ureq::get(&ready)
            .call()
            .is_ok_and(|answer| answer.status() == 200)
        {
            assert!(Instant::now() < deadline, "Prometheus does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The value of an expression with one result; 0 where there is none.
    fn query(&self, expression: &str) -> f64 {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = get(&format!("{}/api/v1/query?query={encoded}", self.url), &[]);
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(value["status"], "success", "{}", answer.body);
        let result = value["data"]["result"].as_array().unwrap();
        assert!(result.len() <= 1, "{}", answer.body);
        let number = result.first().and_then(|r| r["value"][1].as_str());
        number.map_or(0.0, |n| n.parse().unwrap())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn at(base_ns: u64, sequence: u64) -> v1::Report {
    let mut r = report("web", sequence);
    r.window_end_unix_ns = base_ns + sequence * 1_000_000_000;
    r.window_start_unix_ns = r.window_end_unix_ns - 1_000_000_000;
    r
}

#[tokio::test]
async fn after_an_outage_and_kill_9_the_engine_has_every_report_once() {
    let there = Command::new("prometheus").arg("--version").output();
    if there.is_err() {
        eprintln!("SKIPPED: apt-get install prometheus");
        return;
    }
    let engine_dir = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let flags = ["--remote-write", &url];
    // 90 s of reports that end now.
    let base_ns = now_ns() - 90 * 1_000_000_000;
    let collector = Collector::start_with(dir.path(), &flags);
    let store = async |collector: &Collector, sequences: std::ops::RangeInclusive<u64>| {
        let mut agent = collector.agent().await;
        for sequence in sequences {
            let outcome = agent.export(at(base_ns, sequence)).await;
            assert_eq!(outcome, ExportOutcome::Stored);
        }
    };
    // Nobody listens yet: nothing waits for it.
    store(&collector, 1..=20).await;
    let engine = Prometheus::start(engine_dir.path(), port);
    let series = "speedmimi_requests_total{role=\"downstream\",host_id=\"id-web\"}";
    let samples = format!("count_over_time({series}[10m])");
    let arrive = |engine: &Prometheus, wanted: u32| {
        eventually("the reports arrive", || {
            (engine.query(&samples) - f64::from(wanted)).abs() < 0.5
        });
    };
    arrive(&engine, 20);
    engine.kill_9();
    store(&collector, 21..=50).await;
    collector.kill_9();
    let collector = Collector::start_with(dir.path(), &flags);
    store(&collector, 51..=80).await;
    let engine = Prometheus::start(engine_dir.path(), port);
    arrive(&engine, 80);

    // Sums in the engine are the collector's own totals.
    let metrics = collector.get("/metrics").body;
    let own = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        values.sum()
    };
    for name in [
        "speedmimi_requests_total",
        "speedmimi_bytes_sent_total",
        "speedmimi_connections_opened_total",
        "speedmimi_responses_total",
        "speedmimi_exchange_duration_seconds_bucket",
    ] {
        let there = engine.query(&format!("sum({name})"));
        assert!(
            own(name) > 0.0 && (there - own(name)).abs() < 0.5,
            "{name}: {there}"
        );
    }
    let p99 = engine.query(
        "histogram_quantile(0.99, sum by (le) (speedmimi_exchange_duration_seconds_bucket{role=\"downstream\"}))",
    );
    assert!((0.000_244..=0.000_489).contains(&p99), "{p99}");
    assert!(metrics.contains("speedmimi_collector_remote_write_sent_total{url="));
}

#[tokio::test]
async fn a_late_report_is_rejected_once_and_does_not_stop_the_others() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: apt-get install prometheus");
        return;
    }
    let engine_dir = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let engine = Prometheus::start(engine_dir.path(), port);
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let collector = Collector::start_with(dir.path(), &["--remote-write", &url]);
    let base_ns = now_ns() - 60 * 1_000_000_000;
    let mut agent = collector.agent().await;
    for sequence in [1, 5, 3, 7] {
        agent.export(at(base_ns, sequence)).await;
    }
    eventually("the last one arrives", || {
        let opened = "speedmimi_connections_opened_total{role=\"downstream\"}";
        (engine.query(opened) - 14.0).abs() < 0.5
    });
    let metrics = collector.get("/metrics").body;
    let rejected = format!("speedmimi_collector_remote_write_rejected_total{{url=\"{url}\"}} 1\n");
    assert!(metrics.contains(&rejected), "{metrics}");
}

#[tokio::test]
async fn promtool_has_no_complaint_about_the_metrics() {
    use std::io::Write;
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED: apt-get install prometheus");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
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
