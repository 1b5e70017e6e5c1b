//! Stores that earlier versions wrote, opened by this one.
//!
//! `tests/stores/v<schema>.db.zst` was written by the collector's binary when
//! that schema was the newest, and `v<schema>.json.zst` is what it then answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Collector, command, eventually, report};
use monitor_proto::v1::ExportOutcome;
use rusqlite::Connection;
use serde_json::{Value, json};

/// A store may be tested long after it was written.
const KEEP: [&str; 2] = ["--retention-age", "5000w"];

fn stores() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores")
}

/// Every version that was ever written, oldest first.
fn versions() -> Vec<u32> {
    let mut versions: Vec<u32> = fs::read_dir(stores())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_prefix('v')?
                .strip_suffix(".db.zst")?
                .parse()
                .ok()
        })
        .collect();
    versions.sort_unstable();
    versions
}

fn version_of(store: &Path) -> u32 {
    Connection::open(store)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}

/// What roll-ups are made into.
const METRICS: [&str; 5] = [
    "cpu_usage",
    "connections_active",
    "bytes_sent",
    "requests",
    "exchange_duration_p99",
];

/// Of roll-ups that hold all reports.
fn series(collector: &Collector, metric: &str) -> Value {
    let around = |s: i64| jiff::Timestamp::from_second(s).unwrap();
    let end = i64::try_from(report("web", 1).window_end_unix_ns / 1_000_000_000).unwrap();
    let (since, until) = (around(end - 120), around(end + 300));
    let query = format!("metric={metric}&since={since}&until={until}&step=1m");
    collector.json(&format!("/api/v1/series?{query}"))["series"].clone()
}

fn rolled_up(collector: &Collector) -> f64 {
    let of_hosts = series(collector, "cpu_usage");
    let points = of_hosts.as_array().unwrap().iter();
    let points = points.flat_map(|one| one["points"].as_array().unwrap());
    points
        .map(|point| point["coverage"].as_f64().unwrap())
        .sum()
}

fn answers(collector: &Collector) -> Value {
    json!({
        "reports": collector.all_reports("limit=1000"),
        "hosts": collector.json("/api/v1/hosts")["hosts"],
        "series": METRICS.map(|metric| series(collector, metric)),
    })
}

/// A later version may say more, but nothing else.
#[track_caller]
fn holds(now: &Value, then: &Value, at: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            // How long ago the last report came changes as time goes on.
            let changes = |key: &str| ["age_ms", "state"].contains(&key);
            for (key, value) in then.iter().filter(|(key, _)| !changes(key)) {
                let at = format!("{at}.{key}");
                holds(now.get(key).unwrap_or(&Value::Null), value, &at);
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{at}");
            for (i, (now, then)) in now.iter().zip(then).enumerate() {
                holds(now, then, &format!("{at}[{i}]"));
            }
        }
        _ => assert_eq!(now, then, "{at}"),
    }
}

#[tokio::test]
async fn every_schema_that_was_written_is_read_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let newest = newest_store(dir.path()).await;
    let versions = versions();
    assert_eq!(
        versions.last(),
        Some(&newest),
        "the newest schema has no store in tests/stores: run this with SPEEDMIMI_WRITE_STORE=1"
    );
    for version in versions {
        let data = dir.path().join(format!("v{version}"));
        fs::create_dir(&data).unwrap();
        let kept = |kind: &str| {
            let packed = fs::read(stores().join(format!("v{version}.{kind}.zst"))).unwrap();
            zstd::bulk::decompress(&packed, 16 << 20).unwrap()
        };
        fs::write(data.join("collector.db"), kept("db")).unwrap();
        let then: Value = serde_json::from_slice(&kept("json")).unwrap();

        let collector = Collector::start_with(&data, &KEEP);
        holds(&answers(&collector), &then, &format!("v{version}"));
        let mut agent = collector.agent().await;
        let next = report("after-the-upgrade", 1);
        assert_eq!(agent.export(next).await, ExportOutcome::Stored);
        let before = then["reports"].as_array().unwrap().len();
        assert_eq!(collector.all_reports("limit=1000").len(), before + 1);
        assert_eq!(collector.terminate(), Some(0));
        let backup = data.join("backup.db");
        let made = command()
            .args(["backup", "--data-dir", data.to_str().unwrap()])
            .arg(&backup)
            .status();
        assert!(made.unwrap().success());
        assert_eq!(version_of(&backup), newest, "it was brought to the newest");
    }
}

/// The newest schema, by what this binary writes; kept as a file for later
/// versions where it is asked for.
async fn newest_store(dir: &Path) -> u32 {
    let data = dir.join("new");
    let collector = Collector::start_with(&data, &KEEP);
    let mut agent = collector.agent().await;
    for (host, count) in [("web", 20), ("db", 3)] {
        for sequence in 1..=count {
            agent.export(report(host, sequence)).await;
        }
    }
    // 23 windows of 5 s.
    eventually("all is rolled up", || {
        (rolled_up(&collector) * 60.0 - 115.0).abs() < 1e-6
    });
    let answers = answers(&collector);
    assert_eq!(collector.terminate(), Some(0));
    let backup = dir.join("new.db");
    let made = command()
        .args(["backup", "--data-dir", data.to_str().unwrap()])
        .arg(&backup)
        .status();
    assert!(made.unwrap().success());
    let version = version_of(&backup);
    if std::env::var_os("SPEEDMIMI_WRITE_STORE").is_some() {
        fs::create_dir_all(stores()).unwrap();
        let keep = |kind: &str, bytes: &[u8]| {
            let packed = zstd::bulk::compress(bytes, 19).unwrap();
            fs::write(stores().join(format!("v{version}.{kind}.zst")), packed).unwrap();
        };
        keep("db", &fs::read(&backup).unwrap());
        keep("json", answers.to_string().as_bytes());
    }
    version
}

#[test]
fn a_newer_store_is_refused_in_words_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(Collector::start(dir.path()));
    let store = dir.path().join("collector.db");
    let connection = Connection::open(&store).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(connection);
    let output = command()
        .args(["run", "--data-dir", dir.path().to_str().unwrap()])
        .args([
            "--listen-grpc",
            "127.0.0.1:0",
            "--listen-http",
            "127.0.0.1:0",
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("version 99") && stderr.contains("newer collector"),
        "{stderr}"
    );
    assert_eq!(version_of(&store), 99);
}
