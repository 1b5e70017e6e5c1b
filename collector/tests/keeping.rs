//! What is kept, for how long, and what happens when there is no room.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path};

use common::{Agent, Collector, bulky, command, eventually, now_ns, report};
use monitor_proto::v1::{Endpoint, ExportOutcome, Report};

async fn fill(agent: &mut Agent, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        assert_eq!(
            agent.export(bulky("web", sequence)).await,
            ExportOutcome::Stored
        );
    }
}

fn store_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join("collector.db")).unwrap().len()
}

#[tokio::test]
async fn the_oldest_reports_go_when_the_store_gets_too_large_and_the_file_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    fill(&mut agent, 1..=80).await;
    assert_eq!(collector.all_reports("limit=20").len(), 80);
    drop(agent);
    assert_eq!(collector.terminate(), Some(0));
    let log = fs::metadata(dir.path().join("collector.db-wal")).map_or(0, |m| m.len());
    let before = store_bytes(dir.path()) + log;
    assert!(before > 3 << 20, "{before}");

    let small = Collector::start_with(dir.path(), &["--retention-bytes", "1MiB"]);
    eventually("the file shrinks", || store_bytes(dir.path()) <= 1 << 20);
    let kept = small.all_reports("");
    assert!(!kept.is_empty() && kept.len() < 40, "{}", kept.len());
    let first = kept[0]["sequence"].as_u64().unwrap();
    assert_eq!(kept.last().unwrap()["sequence"], 80, "the newest are kept");
    assert_eq!(kept.len() as u64, 80 - first + 1);
    let host = &small.json("/api/v1/hosts")["hosts"][0];
    assert_eq!(host["reports"], kept.len());
    assert_eq!(
        host["missing_reports"], 0,
        "what was deleted is not missing"
    );
}

/// A report of a minute of its own with hundreds of endpoints: its roll-ups take
/// many times its room.
fn wide(sequence: u64, of: u64) -> Report {
    let mut report = report("wide", sequence);
    let minute = 60_000_000_000;
    report.window_end_unix_ns = now_ns() - (of - sequence) * minute;
    report.window_start_unix_ns = report.window_end_unix_ns - 5_000_000_000;
    let endpoint = report.endpoints[1].clone();
    report.endpoints = (1..=400)
        .map(|port| Endpoint {
            address: format!("10.0.0.1:{port}"),
            ..endpoint.clone()
        })
        .collect();
    report
}

#[tokio::test]
async fn roll_ups_make_room_for_reports() {
    const REPORTS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=REPORTS {
        let stored = agent.export(wide(sequence, REPORTS)).await;
        assert_eq!(stored, ExportOutcome::Stored);
    }
    drop(agent);
    eventually("all is rolled up", || {
        let store = rusqlite::Connection::open(dir.path().join("collector.db")).unwrap();
        let minutes = "SELECT count(*) FROM endpoint_rolls WHERE tier_s = 60";
        let minutes: i64 = store.query_row(minutes, [], |row| row.get(0)).unwrap();
        minutes == 400 * REPORTS.cast_signed()
    });
    assert_eq!(collector.terminate(), Some(0));

    let small = Collector::start_with(dir.path(), &["--retention-bytes", "2MiB"]);
    eventually("the file shrinks", || store_bytes(dir.path()) <= 2 << 20);
    let kept = small.all_reports("limit=100").len() as u64;
    assert!(kept > REPORTS / 2, "{kept}");
}

#[tokio::test]
async fn reports_and_hosts_go_when_they_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start_with(dir.path(), &["--retention-age", "2s"]);
    let mut agent = collector.agent().await;
    agent.export(report("old", 1)).await;
    assert_eq!(collector.all_reports("").len(), 1);
    eventually("the host is forgotten", || {
        let hosts = collector.json("/api/v1/hosts");
        hosts["hosts"].as_array().unwrap().is_empty()
    });
    assert!(collector.all_reports("").is_empty());
    assert!(
        !collector
            .get("/metrics")
            .body
            .contains("host_id=\"id-old\"")
    );
    // It may come back.
    assert_eq!(agent.export(report("old", 1)).await, ExportOutcome::Stored);
    assert_eq!(collector.json("/api/v1/hosts")["hosts"][0]["reports"], 1);
}

#[tokio::test]
async fn a_backup_taken_under_load_is_whole_and_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    fill(&mut agent, 1..=10).await;
    for sequence in 11..=40 {
        agent.send(bulky("web", sequence)).await;
    }
    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("collector.db");
    let backup = || {
        let mut backup = command();
        backup
            .arg("backup")
            .arg("--data-dir")
            .arg(dir.path())
            .arg(&copy);
        backup.output().unwrap()
    };
    let output = backup();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let again = backup();
    assert_eq!(
        again.status.code(),
        Some(1),
        "an existing file is never overwritten"
    );
    drop(collector);

    let restored = Collector::start(other.path());
    let kept = restored.all_reports("limit=20");
    assert!(kept.len() >= 10);
    for (n, report) in (1..).zip(&kept) {
        assert_eq!(report["sequence"], n);
    }
    assert!(!other.path().join("collector.db.set-aside-1").exists());
    let mut agent = restored.agent().await;
    let next = kept.len() as u64 + 1;
    assert_eq!(
        agent.export(report("web", next)).await,
        ExportOutcome::Stored
    );
}

/// As a collector leaves it that has ended.
async fn store_of_five_reports() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=5 {
        agent.export(report("web", sequence)).await;
    }
    drop(agent);
    assert_eq!(collector.terminate(), Some(0));
    dir
}

#[tokio::test]
async fn a_clock_that_is_ahead_at_the_start_deletes_nothing_unless_it_is_accepted() {
    let dir = store_of_five_reports().await;
    // To the store a clock that is ahead and reports that are old are the same.
    let store = rusqlite::Connection::open(dir.path().join("collector.db")).unwrap();
    let days_40 = "UPDATE reports SET stored_ns = stored_ns - 40 * 86400 * 1000000000,
                     received_ns = NULL, checksum = NULL;
                   DELETE FROM progress WHERE name = 'clock'";
    store.execute_batch(days_40).unwrap();
    drop(store);

    // Neither a new report nor a restart makes the others old.
    for sequence in 6..=7 {
        let ahead = Collector::start(dir.path());
        eventually("the clock is judged", || {
            ahead.log().contains("clock differs from")
        });
        let mut agent = ahead.agent().await;
        agent.export(report("web", sequence)).await;
        drop(agent);
        assert_eq!(ahead.all_reports("").len() as u64, sequence);
        assert_eq!(ahead.terminate(), Some(0));
    }
    let right = Collector::start_with(dir.path(), &["--accept-clock"]);
    eventually("what is old goes", || right.all_reports("").len() == 2);
}

#[tokio::test]
async fn what_came_while_the_clock_was_ahead_goes_with_what_came_after_it() {
    let dir = store_of_five_reports().await;
    let store = rusqlite::Connection::open(dir.path().join("collector.db")).unwrap();
    let days_40 = "UPDATE reports SET received_ns = received_ns + 40 * 86400 * 1000000000
                   WHERE sequence <= 3";
    store.execute(days_40, []).unwrap();
    drop(store);
    let collector = Collector::start_with(dir.path(), &["--retention-age", "2s"]);
    eventually("the host is forgotten", || {
        let hosts = collector.json("/api/v1/hosts");
        hosts["hosts"].as_array().unwrap().is_empty()
    });
}
