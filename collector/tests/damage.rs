//! Kept reports of which a bit was flipped: each spoils nothing but itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{Collector, command, report};
use monitor_proto::v1::ExportOutcome;
use rusqlite::Connection;

const REPORTS: u64 = 20;

fn store(dir: &Path) -> Connection {
    Connection::open(dir.join("collector.db")).unwrap()
}

/// Flips a bit in the middle of a kept report.
fn damage(dir: &Path, sequence: u64) {
    let store = store(dir);
    let mut body: Vec<u8> = store
        .query_row(
            "SELECT body FROM reports WHERE sequence = ?",
            [sequence.cast_signed()],
            |row| row.get(0),
        )
        .unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    let sql = "UPDATE reports SET body = ? WHERE sequence = ?";
    store.execute(sql, (body, sequence.cast_signed())).unwrap();
}

/// A store of some reports; those named are damaged.
async fn damaged_store(dir: &Path, sequences: &[u64]) -> Collector {
    let collector = Collector::start(dir);
    let mut agent = collector.agent().await;
    for sequence in 1..=REPORTS {
        let stored = agent.export(report("web", sequence)).await;
        assert_eq!(stored, ExportOutcome::Stored);
    }
    drop(agent);
    assert_eq!(collector.terminate(), Some(0));
    for sequence in sequences {
        damage(dir, *sequence);
    }
    Collector::start(dir)
}

fn sequences(collector: &Collector, query: &str) -> Vec<u64> {
    let reports = collector.all_reports(query);
    let numbers = reports.iter().map(|r| r["sequence"].as_u64().unwrap());
    numbers.collect()
}

fn counted(collector: &Collector) -> u64 {
    let metrics = collector.get("/metrics").body;
    let name = "speedmimi_collector_damaged_rows_total{table=\"reports\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn answers_leave_a_damaged_report_out_say_so_and_count_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let collector = damaged_store(dir.path(), &[10]).await;
    let others: Vec<u64> = (1..=REPORTS).filter(|n| *n != 10).collect();
    for limit in [1, 7, 100] {
        assert_eq!(sequences(&collector, &format!("limit={limit}")), others);
    }
    let page = collector.json("/api/v1/reports");
    let partial = "1 kept reports are damaged and were skipped, first: \
                   host id-web, epoch 1763860000123, sequence 10";
    assert_eq!(page["partial"][0], partial);
    assert!(collector.json("/api/v1/reports?limit=3")["partial"].is_null());

    let end = report("web", REPORTS).window_end_unix_ns / 1_000_000_000;
    let at = |s| jiff::Timestamp::from_second(s).unwrap();
    let since = at(i64::try_from(end).unwrap() - 100);
    let until = at(i64::try_from(end).unwrap());
    let series = collector.json(&format!(
        "/api/v1/series?metric=cpu_usage&since={since}&until={until}&step=10s"
    ));
    assert_eq!(series["partial"][0], partial);
    let points = series["series"][0]["points"].as_array().unwrap();
    let covered: f64 = points.iter().map(|p| p["coverage"].as_f64().unwrap()).sum();
    assert!(
        (covered - (REPORTS as f64 - 1.0) / 2.0).abs() < 1e-9,
        "{covered}"
    );

    assert_eq!(counted(&collector), 1);
    let lines = collector.log();
    let lines = lines
        .lines()
        .filter(|line| line.contains("left_out=0"))
        .count();
    assert_eq!(lines, 1, "{}", collector.log());
}

#[tokio::test]
async fn a_replay_mends_a_damaged_report() {
    let dir = tempfile::tempdir().unwrap();
    let collector = damaged_store(dir.path(), &[10]).await;
    let mut agent = collector.agent().await;
    let outcome = agent.export(report("web", 10)).await;
    assert_eq!(outcome, ExportOutcome::Duplicate);
    let all: Vec<u64> = (1..=REPORTS).collect();
    assert_eq!(sequences(&collector, ""), all);
    assert_eq!(
        collector.json("/api/v1/hosts")["hosts"][0]["reports"],
        REPORTS
    );
}

#[tokio::test]
async fn of_a_host_whose_newest_report_is_damaged_the_one_before_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let collector = damaged_store(dir.path(), &[REPORTS, REPORTS - 1]).await;
    assert_eq!(
        collector.json("/api/v1/hosts")["hosts"][0]["host"]["name"],
        "web"
    );
    assert_eq!(
        sequences(&collector, "latest=true"),
        [REPORTS - 2],
        "the newest that can be read"
    );
    assert_eq!(counted(&collector), 2);
    let next = report("web", REPORTS + 1);
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(next).await, ExportOutcome::Stored);
    assert_eq!(sequences(&collector, "latest=true"), [REPORTS + 1]);
}

#[tokio::test]
async fn a_host_whose_reports_are_all_damaged_is_named_and_logged_once() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<u64> = (1..=REPORTS).collect();
    let collector = damaged_store(dir.path(), &all).await;
    for _ in 0..3 {
        let newest = collector.json("/api/v1/reports?latest=true");
        assert_eq!(newest["reports"].as_array().unwrap().len(), 0);
        let partial = "host id-web: its newest report is damaged and was skipped";
        assert_eq!(newest["partial"][0], partial);
    }
    let lines = collector
        .log()
        .matches("cannot decode a stored report")
        .count();
    assert_eq!(lines, 1);
}

#[tokio::test]
async fn a_body_under_another_reports_key_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let collector = damaged_store(dir.path(), &[]).await;
    assert_eq!(collector.terminate(), Some(0));
    let sql = "UPDATE reports SET sequence = 74 WHERE sequence = 10";
    store(dir.path()).execute(sql, []).unwrap();
    let collector = Collector::start(dir.path());
    let others: Vec<u64> = (1..=REPORTS).filter(|n| *n != 10).collect();
    assert_eq!(sequences(&collector, ""), others);
    assert_eq!(counted(&collector), 1);
}

#[tokio::test]
async fn a_backup_says_how_many_of_its_reports_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let _collector = damaged_store(dir.path(), &[3, 4]).await;
    let copy = dir.path().join("copy.db");
    let output = command()
        .args(["backup", "--data-dir", dir.path().to_str().unwrap()])
        .arg(&copy)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 rows in it are damaged"), "{said}");
}
