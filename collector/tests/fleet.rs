//! What must hold however many hosts there are and however their reports come.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use common::{Collector, DEADLINE, eventually, now_ns, report};
use monitor_proto::v1::ExportOutcome;
use serde_json::Value;

const HOSTS: u64 = 1000;

/// The most memory that was resident at once.
fn peak_bytes(collector: &Collector) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.child.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

fn ask(collector: &Collector, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(&collector.http).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
        collector.http
    )
    .unwrap();
    socket
}

#[tokio::test]
async fn a_scrape_of_a_thousand_hosts_is_sent_as_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for n in 0..HOSTS {
        let mut r = report(&format!("host-{n}"), 1);
        let endpoint = r.endpoints[0].clone();
        r.endpoints.extend((0..8).map(|n| {
            let mut endpoint = endpoint.clone();
            endpoint.address = format!("10.0.0.{n}:8080");
            endpoint
        }));
        assert_eq!(agent.export(r).await, ExportOutcome::Stored);
    }
    let before = peak_bytes(&collector);
    let mut answer = BufReader::with_capacity(1 << 20, ask(&collector, "/metrics"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answer.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(
        head.to_lowercase().contains("transfer-encoding: chunked"),
        "{head}"
    );
    let (mut bytes, mut hosts) = (0, 0u64);
    let mut line = Vec::new();
    while line != b"0\r\n" {
        line.clear();
        let read = answer.read_until(b'\n', &mut line).unwrap();
        assert!(read > 0, "the answer is cut off");
        bytes += read as u64;
        hosts += u64::from(line.starts_with(b"speedmimi_host_up{"));
    }
    assert_eq!(hosts, HOSTS);
    let grown = peak_bytes(&collector) - before;
    assert!(bytes > 50_000_000, "{bytes}");
    assert!(grown < bytes, "{grown} bytes more for an answer of {bytes}");
}

/// Everything that is kept, as it is read.
fn contents(collector: &Collector, until_ns: u64) -> Vec<Value> {
    // Of two collectors, in turn: the clock must not move the range.
    let [since, until] = [until_ns - 1_200_000_000_000, until_ns].map(monitor_proto::json::rfc3339);
    let mut all = collector.all_reports("limit=50");
    for step in ["10s", "1m", "1h"] {
        for metric in [
            "requests",
            "cpu_usage",
            "exchange_duration_p99",
            "connections_active",
        ] {
            let path =
                format!("/api/v1/series?metric={metric}&since={since}&until={until}&step={step}");
            let mut series = collector.json(&path);
            all.push(series["series"].take());
        }
    }
    all
}

#[tokio::test]
async fn replays_duplicates_late_reports_and_any_order_give_the_same_contents() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    // Two hosts with one name, and a gap: 7 never comes.
    let reports: Vec<_> = (1..=40)
        .filter(|sequence| *sequence != 7)
        .flat_map(|sequence| {
            ["a", "b"].map(|id| {
                let mut r = report("web", sequence);
                r.host.as_mut().unwrap().id = id.to_owned();
                r.window_end_unix_ns = base_ns - (40 - sequence) * 5_000_000_000;
                r.window_start_unix_ns = r.window_end_unix_ns - 5_000_000_000;
                r
            })
        })
        .collect();
    let ordered = Collector::start(dirs[0].path());
    let mut agent = ordered.agent().await;
    for r in &reports {
        assert_eq!(agent.export(r.clone()).await, ExportOutcome::Stored);
    }
    // Coprime to their number: every report once, in a wild order.
    let wild = Collector::start(dirs[1].path());
    let mut agent = wild.agent().await;
    for i in 0..reports.len() {
        let r = &reports[i * 31 % reports.len()];
        assert_eq!(agent.export(r.clone()).await, ExportOutcome::Stored);
        let again = &reports[(i / 2) * 31 % reports.len()];
        assert_eq!(agent.export(again.clone()).await, ExportOutcome::Duplicate);
    }
    let hour = "/api/v1/series?metric=requests&since=20m&step=1h&role=downstream&host=a";
    let rolled = |collector: &Collector| -> f64 {
        let answer = collector.json(hour);
        let points = answer["series"][0]["points"].as_array().cloned();
        let points = points.unwrap_or_default();
        points
            .iter()
            .map(|p| p["coverage"].as_f64().unwrap() * 3600.0)
            .sum()
    };
    eventually("everything is rolled up", || {
        (rolled(&ordered) - 195.0).abs() < 1e-6 && (rolled(&wild) - 195.0).abs() < 1e-6
    });
    let until_ns = base_ns + 60_000_000_000;
    let (ordered, wild) = (contents(&ordered, until_ns), contents(&wild, until_ns));
    assert_eq!(ordered.len(), 78 + 12);
    for (ordered, wild) in ordered.iter().zip(&wild) {
        assert_eq!(ordered, wild);
    }
    let gaps = ordered[78][0]["points"].as_array().unwrap();
    let has_gap = gaps
        .windows(3)
        .any(|p| p[0]["coverage"] == 1.0 && p[1]["coverage"] == 0.5 && p[2]["coverage"] == 1.0);
    assert!(has_gap, "a gap stays one: {gaps:?}");
}

#[tokio::test]
async fn a_slow_watcher_of_events_goes_on_with_the_newest_and_is_told() {
    const REPORTS: u64 = 1200;
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut events = BufReader::new(ask(&collector, "/api/v1/live"));
    let mut line = String::new();
    while !line.contains(": watching") {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0);
    }
    // It does not read: more than all that the connection buffers.
    for sequence in 1..=REPORTS {
        let mut large = report("a", sequence);
        large.incomplete_reasons = vec!["x".repeat(4000); 8];
        assert_eq!(agent.export(large).await, ExportOutcome::Stored);
    }
    let (mut seen, mut skipped, mut last) = (0, 0, 0);
    // An event's line may be split by the ends of chunks.
    let mut text = String::new();
    while last < REPORTS {
        let mut buffer = [0; 8192];
        let n = events.read(&mut buffer).unwrap();
        assert!(n > 0, "the stream ended");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            if let Some(id) = event.split("id: 1763860000123-").nth(1) {
                let digits: String = id.chars().take_while(char::is_ascii_digit).collect();
                let sequence: u64 = digits.parse().unwrap();
                assert!(sequence > last, "never back in time");
                (last, seen) = (sequence, seen + 1);
            } else if let Some(data) = event.split("data: {\"skipped\":").nth(1) {
                let digits: String = data.chars().take_while(char::is_ascii_digit).collect();
                skipped += digits.parse::<u64>().unwrap();
            }
            text = rest.to_owned();
        }
    }
    assert!(skipped > 0, "it slept through some: {seen} seen");
    assert_eq!(seen + skipped, REPORTS, "and was told how many");
}
