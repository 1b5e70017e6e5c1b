//! The live view on a terminal of its own, and exports.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use common::{Collector, DEADLINE, report, speedmimi, stderr, stdout};

#[tokio::test]
async fn top_draws_live_figures_and_q_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    c.store(vec![report("web", 1)]).await;
    // script (bsdutils, on every Debian) gives it a terminal.
    let top = format!(
        "stty rows 30 cols 120; {} top --collector {}",
        env!("CARGO_BIN_EXE_speedmimi"),
        c.url
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &top, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (pieces, received) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = screen.read(&mut buffer) {
            drop(pieces.send(String::from_utf8_lossy(&buffer[..n]).into_owned()));
        }
    });
    let mut shown = String::new();
    let mut wait = |words: &str| {
        while !shown.contains(words) {
            let piece = received.recv_timeout(DEADLINE);
            shown.push_str(&piece.unwrap_or_else(|_| panic!("no {words:?} in {shown:?}")));
        }
    };
    wait("127.0.0.1:8080");
    wait("live");
    c.store(vec![report("newcomer", 1)]).await;
    wait("newcomer");
    stdin.write_all(b"q").unwrap();
    wait("\u{1b}[?1049l");
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn top_in_a_pipe_says_what_to_use_and_once_prints_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    c.store(vec![report("web", 1), report("web", 2), report("db", 7)])
        .await;
    let output = speedmimi(&["top", "--collector", &c.url]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--once"));
    let table = stdout(&["top", "--once", "--collector", &c.url]);
    assert!(
        table.starts_with("nothing is wrong on 2 hosts\n\nTIME "),
        "{table}"
    );
    assert_eq!(table.lines().count(), 5, "{table}");
    let json = stdout(&["top", "--once", "--output", "json", "--collector", &c.url]);
    let sequences: Vec<u64> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|report| report["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, [7, 2]);
}

#[tokio::test]
async fn an_export_holds_every_report_and_one_head() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    c.store((1..=1100).map(|n| report("web", n)).collect())
        .await;
    let csv = stdout(&["export", "--format", "csv", "--collector", &c.url]);
    assert_eq!(csv.lines().count(), 1 + 1100);
    assert_eq!(csv.matches("window_start").count(), 1);
    let head: Vec<_> = csv.lines().next().unwrap().split(',').collect();
    let sequence = head.iter().position(|name| *name == "sequence").unwrap();
    for (n, line) in (1..).zip(csv.lines().skip(1)) {
        assert_eq!(line.split(',').nth(sequence), Some(n.to_string().as_str()));
    }
    let jsonl = stdout(&[
        "export",
        "--format",
        "jsonl",
        "--host",
        "web",
        "--collector",
        &c.url,
    ]);
    assert_eq!(jsonl.lines().count(), 1100);
    let none = stdout(&[
        "export",
        "--format",
        "csv",
        "--since",
        "1m",
        "--collector",
        &c.url,
    ]);
    assert_eq!(none.lines().count(), 1);
}
