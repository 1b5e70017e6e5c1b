//! The binary as a user meets it, without privileges and without a kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn agent(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"));
    command.args(args).env_remove("SPEEDMIMI_TOKEN");
    command.output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    agent(args).status.code().unwrap()
}

fn stderr(args: &[&str]) -> String {
    String::from_utf8(agent(args).stderr).unwrap()
}

#[test]
fn bad_usage_and_bad_configuration_exit_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "colector = \"x\"\n").unwrap();
    let file = file.to_str().unwrap();
    let bad: [&[&str]; 11] = [
        &["top"],
        &["top", "--once", "--interval", "1ms"],
        &[],
        &["run", "--nonsense"],
        &["run", "--level", "udp"],
        &["run", "--config", file],
        &["run", "--config", "/nonexistent.toml"],
        &["run", "--whole-host", "--sample-interval", "1ms"],
        &["run", "--whole-host", "--collector", "ftp://x"],
        &["run", "--whole-host", "--token-file", "/nonexistent"],
        &["run", "--cgroup", "/"],
    ];
    for args in bad {
        assert_eq!(code(args), 64, "{args:?}");
    }
    assert!(stderr(&["run", "--config", file]).contains("colector"));
}

#[test]
fn a_start_that_fails_leaves_nothing_that_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let busy = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let metrics = busy.local_addr().unwrap().to_string();
    let pins = format!("/sys/fs/bpf/speedmimi-test-{}-busy", std::process::id());
    let socket = dir.path().join("control.sock");
    let args = [
        "run",
        "--whole-host",
        "--spool-dir",
        dir.path().to_str().unwrap(),
        "--control-socket",
        socket.to_str().unwrap(),
        "--pin-dir",
        &pins,
        "--metrics-listen",
        &metrics,
    ];
    let said = stderr(&args);
    if !said.contains("--metrics-listen") {
        eprintln!("skipped: no directory of pins can be made here: {said}");
        return;
    }
    assert!(!socket.exists() && !std::path::Path::new(&pins).exists());
}

/// Upon 64 systemd does not start the agent again.
#[test]
fn a_target_that_is_not_there_yet_is_no_bad_usage() {
    let absent: [&[&str]; 3] = [
        &["run", "--unit", "speedmimi-nonexistent.service"],
        &["run", "--cgroup", "/nonexistent/cgroup"],
        &["run", "--pid", "4194305"],
    ];
    for args in absent {
        let output = agent(args);
        let text = String::from_utf8(output.stderr).unwrap();
        if text.contains("no cgroup2 filesystem") {
            eprintln!("skipped: no cgroup2 is mounted here");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text.contains("starts the agent again"), "{args:?}: {text}");
    }
}

#[test]
fn names_of_a_target_that_is_not_watched_are_refused_before_anything_is_attached() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, "http { upstream a { server 127.0.0.1:1; } }\n").unwrap();
    let names = format!("web.slice={}", file.display());
    let output = agent(&["run", "--whole-host", "--names-from", &names]);
    let text = String::from_utf8(output.stderr).unwrap();
    if text.contains("no cgroup2 filesystem") {
        eprintln!("skipped: no cgroup2 is mounted here");
        return;
    }
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(
        text.contains("/web.slice is not watched; watched are: /"),
        "{text}"
    );
}

#[test]
fn without_a_target_the_candidates_are_listed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = agent(&["run"]);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--whole-host"), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[test]
fn help_version_completions_and_the_manual_go_to_stdout() {
    let asked: [(&[&str], &str); 6] = [
        (&["--help"], "Examples:"),
        (&["run", "--help"], "--spool-bytes"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "fish"], "speedmimi-agent"),
        (&["man"], ".TH speedmimi-agent"),
    ];
    for (args, expected) in asked {
        let output = agent(args);
        assert!(output.status.success(), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn the_help_says_which_flags_may_be_repeated() {
    let help = String::from_utf8(agent(&["run", "--help"]).stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for flag in ["--cgroup <", "--pid <", "--unit <", "--names-from <"] {
        let (_, told) = words.split_once(flag).unwrap();
        let (own, _) = told.split_once(" --").unwrap();
        assert!(own.contains("may be repeated"), "{flag}: {own}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().to_str().unwrap();
    let snapshot = ["snapshot", "--pin-dir", nothing];
    assert_eq!(code(&snapshot), 1);
    assert!(stderr(&snapshot).contains("speedmimi-agent run"));
    let top = ["top", "--once", "--pin-dir", nothing];
    assert_eq!(code(&top), 1);
    let socket = dir.path().join("none.sock");
    let status = ["status", "--control-socket", socket.to_str().unwrap()];
    assert_eq!(code(&status), 1);
    assert!(stderr(&status).contains("is one running?"));
}

#[test]
fn the_doctor_says_the_same_in_both_forms() {
    let json = agent(&["doctor", "--output", "json"]);
    let doctor: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let ok = doctor["ok"].as_bool().unwrap();
    assert_eq!(json.status.code(), Some(i32::from(!ok)));
    let table = String::from_utf8(agent(&["doctor"]).stdout).unwrap();
    for check in doctor["checks"].as_array().unwrap() {
        assert!(table.contains(check["name"].as_str().unwrap()), "{table}");
        let advised = !check["advice"].as_str().unwrap().is_empty();
        assert_eq!(advised, !check["ok"].as_bool().unwrap(), "{check}");
    }
}
