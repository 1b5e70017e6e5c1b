//! SIGHUP: what is followed, what is named, and what changes nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{Agent, Collector, command, eventually, get, report};
use monitor_proto::v1::ExportOutcome;
use tonic::Code;

fn hang_up(child: &Child) {
    let kill = Command::new("kill")
        .args(["-HUP", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// A collector with a configuration file beside its data.
fn configured(dir: &Path, more: &str) -> Collector {
    configure(dir, more);
    let file = dir.join("collector.toml");
    let args = ["--config", file.to_str().unwrap()];
    Collector::start_with(&dir.join("data"), &args)
}

fn configure(dir: &Path, more: &str) {
    let token = dir.join("token");
    if !token.exists() {
        fs::write(&token, "the-first-token-of-all").unwrap();
    }
    let text = format!("token-file = {token:?}\n{more}");
    fs::write(dir.join("collector.toml"), text).unwrap();
}

/// Reloads, and waits for the line that tells what came of it.
fn reloaded(collector: &Collector, words: &str) {
    let lines = || collector.log().matches(words).count();
    let before = lines();
    hang_up(&collector.child);
    eventually(words, || lines() > before);
}

const AGAIN: &str = "configuration reloaded";
const UNUSABLE: &str = "invalid configuration";

#[tokio::test]
async fn names_and_tokens_are_followed_and_what_needs_a_restart_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let collector = configured(dir.path(), "");
    let status = || get(&collector.url("/healthz"), &[("host", "a.example")]).status;
    assert_eq!(status(), 421);
    let mut before = Agent::connect(&collector, "Bearer the-first-token-of-all")
        .await
        .unwrap();
    assert_eq!(before.export(report("web", 1)).await, ExportOutcome::Stored);

    configure(
        dir.path(),
        "allow-host = [\"a.example\"]\nretention-age = \"7d\"",
    );
    reloaded(&collector, AGAIN);
    assert_eq!(status(), 200);
    assert!(!collector.log().contains("restart="));
    assert_eq!(before.export(report("web", 2)).await, ExportOutcome::Stored);

    fs::write(dir.path().join("token"), "another-token-than-before").unwrap();
    configure(dir.path(), "otlp = \"http://127.0.0.1:1\"\ninsecure = true");
    reloaded(&collector, AGAIN);
    assert!(collector.log().contains("restart=\"insecure, otlp\""));
    assert_eq!(status(), 421, "the name is gone from the file");
    before.send(report("web", 3)).await;
    let ended = before.answer().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated);
    for (token, taken) in [
        ("the-first-token-of-all", false),
        ("another-token-than-before", true),
    ] {
        let agent = Agent::connect(&collector, &format!("Bearer {token}")).await;
        assert_eq!(agent.is_ok(), taken, "{token}");
    }
    assert_eq!(collector.terminate(), Some(0));
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let collector = configured(dir.path(), "allow-host = \"a.example\"");
    let status = || get(&collector.url("/healthz"), &[("host", "a.example")]).status;
    for (more, words) in [
        (
            "allow-host = 5",
            "collector.toml:2:14: allow-host: is a number",
        ),
        (
            "retention-age = \"soon\"",
            "collector.toml:2:17: retention-age: `soon`",
        ),
        ("=", "collector.toml:2:1: TOML: "),
    ] {
        configure(dir.path(), more);
        reloaded(&collector, UNUSABLE);
        assert!(collector.log().contains(words), "{}", collector.log());
        assert_eq!(status(), 200);
    }
    fs::remove_file(dir.path().join("collector.toml")).unwrap();
    reloaded(&collector, UNUSABLE);
    assert_eq!(status(), 200);
    assert_eq!(collector.terminate(), Some(0));
}

#[tokio::test]
async fn another_data_directory_waits_for_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let file = dir.path().join("collector.toml");
    let configure = |data: &Path| fs::write(&file, format!("data-dir = {data:?}")).unwrap();
    configure(&data);
    let args = [
        "--listen-grpc",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ];
    let config = ["--config", file.to_str().unwrap()];
    let collector = Collector::start_args(&[&args[..], &config].concat(), &data);

    configure(&other);
    reloaded(&collector, AGAIN);
    assert!(collector.log().contains("restart=\"data-dir\""));
    assert!(!other.exists());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
}

#[test]
fn a_hangup_before_it_is_ready_does_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command()
        .args(["run", "--data-dir", dir.path().to_str().unwrap()])
        .args([
            "--listen-grpc",
            "127.0.0.1:0",
            "--listen-http",
            "127.0.0.1:0",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1)
    };
    while !caught() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    // From here on to the store's making, and beyond.
    while !dir.path().join("collector.db").exists() {
        hang_up(&child);
        assert!(child.try_wait().unwrap().is_none(), "it ended");
    }
    let terminate = Command::new("kill").arg(child.id().to_string()).status();
    assert!(terminate.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
}
