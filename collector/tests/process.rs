//! Starting, stopping and refusing to start.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    process::Output,
};

use common::{Agent, Collector, bulky, command, get, report};
use monitor_proto::v1::ExportOutcome;

fn run(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_with_0_even_while_agents_and_watchers_are_connected() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let watcher = ureq::get(collector.url("/api/v1/live")).call().unwrap();
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    assert_eq!(collector.terminate(), Some(0));
    let goodbye = agent.answer().await.unwrap_err();
    assert_eq!(goodbye.code(), tonic::Code::Unavailable, "{goodbye}");
    drop(watcher);
    let again = Collector::start(dir.path());
    assert_eq!(again.all_reports("").len(), 1);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_cannot_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    // The agent shares this thread, which waits for the end.
    assert_eq!(collector.terminate(), Some(0));
}

#[test]
fn the_token_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/by/the/collector");
    let collector = Collector::start(&data);
    assert_eq!(collector.token.len(), 64);
    let mode = fs::metadata(data.join("token"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_given_token_counts_instead_of_a_made_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given");
    fs::write(&file, "a-token-of-our-own\n").unwrap();
    let data = dir.path().join("data");
    let collector = Collector::start_with(&data, &["--token-file", file.to_str().unwrap()]);
    assert!(!data.join("token").exists());
    assert!(
        Agent::connect(&collector, "Bearer a-token-of-our-own")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn insecure_listens_anywhere_and_writing_needs_the_token_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--insecure",
        "--listen-http",
        "0.0.0.0:0",
        "--listen-grpc",
        "0.0.0.0:0",
    ];
    let data = dir.path().to_str().unwrap();
    let mut collector =
        Collector::start_args(&[&["--data-dir", data][..], &flags].concat(), dir.path());
    for address in [&mut collector.grpc, &mut collector.http] {
        *address = address.replace("0.0.0.0", "127.0.0.1");
    }
    let named = get(
        &collector.url("/api/v1/hosts"),
        &[("host", "collector.example")],
    );
    assert_eq!(named.status, 200);
    assert!(Agent::connect(&collector, "").await.is_err());
    assert_eq!(
        collector.agent().await.export(report("web", 1)).await,
        ExportOutcome::Stored
    );
}

#[test]
fn a_configuration_file_holds_flags_and_given_ones_count_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collector.toml");
    let token = dir.path().join("given");
    fs::write(&token, "a-token-of-our-own\n").unwrap();
    let text = format!(
        "data-dir = \"/nowhere\"\ntoken-file = {token:?}\nretention-age = \"7d\"\nlisten-http = \"127.0.0.1:0\"\n"
    );
    fs::write(&file, text).unwrap();
    let data = dir.path().join("data");
    let config = ["--config", file.to_str().unwrap()];
    drop(Collector::start_with(&data, &config));
    assert!(!data.join("token").exists(), "the file's token counts");

    for (text, words) in [
        ("retention-agee = \"7d\"", "did you mean \"retention-age\"?"),
        (
            "retention-age = \"soon\"",
            "retention-age: `soon` is not a duration",
        ),
        ("nonsense", "TOML: "),
    ] {
        fs::write(&file, text).unwrap();
        let data = data.to_str().unwrap();
        refused(
            &run(&["run", "--data-dir", data, config[0], config[1]]),
            64,
            words,
        );
    }
    refused(
        &run(&["run", "--config", "/nowhere.toml"]),
        64,
        "/nowhere.toml",
    );
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_place_and_what_may_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8]| {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        run(&["config", "check", file.to_str().unwrap()])
    };
    for (name, text, words) in [
        (
            "a.toml",
            "\n\ndata-dri = \"/d\"",
            "a.toml:3:1: unknown key \"data-dri\", did you mean \"data-dir\"?; allowed here: listen-grpc, ",
        ),
        (
            "a.toml",
            "zzzz = 1",
            "a.toml:1:1: unknown key \"zzzz\"; allowed here: ",
        ),
        (
            "a.toml",
            "[listen]\ngrpc = 1",
            "a.toml:1:2: unknown key \"listen\"; allowed here: ",
        ),
        ("a.toml", "config = \"x\"", "unknown key \"config\""),
        (
            "a.yaml",
            "listen-http: {port: 1}",
            "a.yaml:1:14: listen-http: is a table of keys: write a text",
        ),
        (
            "a.toml",
            "data-dir = 5",
            "a.toml:1:12: data-dir: is a number: write a text in quotes",
        ),
        (
            "a.toml",
            "data-dir = [\"a\", \"b\"]",
            "a.toml:1:12: data-dir: is a list: write a text",
        ),
        (
            "a.toml",
            "insecure = 1",
            "a.toml:1:12: insecure: \"1\": write true or false",
        ),
        (
            "a.toml",
            "otlp = [[\"a\"]]",
            "a.toml:1:9: otlp[0]: is a list: write a text",
        ),
        (
            "a.toml",
            "otlp = [\"grpc://a:1\", \"nonsense\"]",
            "a.toml:1:1: otlp: \"nonsense\": use http",
        ),
        (
            "a.toml",
            "retention-age = 1.5",
            "a.toml:1:17: retention-age: `1.5` is not a duration",
        ),
        (
            "a.toml",
            "retention-age = \"1ms\"",
            "a.toml:1:17: retention-age: `1ms`: write 1s or more",
        ),
        (
            "a.toml",
            "memory-limit = \"1MiB\"",
            "memory-limit: `1MiB`: write 64MiB or more",
        ),
        (
            "a.toml",
            "listen-grpc = \"nowhere\"",
            "listen-grpc: `nowhere` is not an address: write an IP address",
        ),
        (
            "a.toml",
            "listen-grpc = \"0.0.0.0:1\"",
            "a.toml:1:1: listen-grpc: 0.0.0.0:1 is not a loopback",
        ),
        (
            "a.toml",
            "allow-host = \"a:1\"",
            "allow-host: `a:1`: write a name alone",
        ),
        (
            "a.toml",
            "log-format = \"jsno\"",
            "\"jsno\", did you mean \"json\"?: write text or json",
        ),
        (
            "a.toml",
            "tls-cert = \"c.pem\"",
            "a.toml:1:1: tls-cert: needs --tls-key, too",
        ),
        (
            "a.toml",
            "insecure = true\ninsecure = true",
            "a.toml:2:1: TOML: duplicate key",
        ),
        (
            "a.yaml",
            "insecure: true\ninsecure: true",
            "a.yaml:2:1: \"insecure\" is already set in line 1",
        ),
        ("a.toml", "data-dir =", "a.toml:1:11: TOML: "),
        ("a.ini", "", "its name must end in .toml"),
    ] {
        let output = check(name, text.as_bytes());
        refused(&output, 64, words);
        let said = String::from_utf8_lossy(&output.stderr);
        for word in ["invalid type", "u64", "unexpected argument", "Policy"] {
            assert!(!said.contains(word), "{said}");
        }
    }
    refused(&check("bytes.toml", b"\xff"), 64, "byte 1 is not UTF-8");
    refused(
        &check("huge.toml", &vec![b'#'; (1 << 20) + 1]),
        64,
        "is larger than 1048576 bytes",
    );
    refused(
        &run(&["config", "check", dir.path().to_str().unwrap()]),
        64,
        "its name must end",
    );
    let directory = dir.path().join("directory.toml");
    fs::create_dir(&directory).unwrap();
    refused(
        &run(&["config", "check", directory.to_str().unwrap()]),
        64,
        "is not a regular file",
    );
    assert!(check("empty.toml", b"").status.success());
}

#[test]
fn the_configuration_is_shown_with_where_it_is_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collector.toml");
    let example = run(&["config", "example"]).stdout;
    fs::write(&file, example).unwrap();
    let path = file.to_str().unwrap();
    let check = run(&["config", "check", path]);
    assert!(
        check
            .stdout
            .starts_with(b"the configuration is valid: 0 of "),
        "{check:?}"
    );
    let data = dir.path().join("data");
    fs::write(
        &file,
        format!("data-dir = {data:?}\nretention-age = \"7d\"\nmemory-limit = \"1GiB\"\n"),
    )
    .unwrap();
    let show = command()
        .args(["config", "show", "--config", path, "--retention-age", "8d"])
        .env("SPEEDMIMI_COLLECTOR_RETENTION_AGE", "9d")
        .env("SPEEDMIMI_COLLECTOR_MEMORY_LIMIT", "2GiB")
        .env("SPEEDMIMI_TOKEN", "a-token-of-our-own")
        .output()
        .unwrap();
    let text = String::from_utf8(show.stdout).unwrap();
    let words = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("retention-age "), "8d flag");
    assert_eq!(
        words("memory-limit "),
        "2GiB env SPEEDMIMI_COLLECTOR_MEMORY_LIMIT"
    );
    assert_eq!(words("data-dir "), format!("{} {path}:1:1", data.display()));
    assert_eq!(words("retention-bytes "), "10GiB default");
    assert!(!text.contains("a-token") && !data.exists(), "{text}");
}

#[test]
fn bad_usage_and_configuration_end_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    refused(&run(&["run", "--no-such-flag"]), 64, "--no-such-flag");
    refused(
        &run(&["run", "--listen-grpc", "nowhere"]),
        64,
        "--listen-grpc",
    );
    refused(
        &run(&["run", "--data-dir", data, "--listen-http", "0.0.0.0:0"]),
        64,
        "loopback",
    );
    refused(
        &run(&["run", "--data-dir", "/proc/nowhere"]),
        64,
        "--data-dir",
    );
    let missing = ["run", "--data-dir", data, "--token-file", "/nowhere/token"];
    refused(&run(&missing), 64, "/nowhere/token");
}

#[test]
fn a_taken_port_and_a_taken_directory_end_with_1_and_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let same_dir = ["run", "--data-dir", dir.path().to_str().unwrap()];
    refused(&run(&same_dir), 1, "in use by another collector");
    let other = tempfile::tempdir().unwrap();
    let same_port = [
        "run",
        "--data-dir",
        other.path().to_str().unwrap(),
        "--listen-http",
        &collector.http,
        "--listen-grpc",
        "127.0.0.1:0",
    ];
    refused(&run(&same_port), 1, "--listen-http");
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_the_collector_starts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("collector.db"),
        "this is not a store".repeat(1000),
    )
    .unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    assert!(Path::exists(&dir.path().join("collector.db.set-aside-1")));
}

/// A file that is too large to be checked as a whole at the start, with a damaged
/// page: that of `tree`'s root.
async fn damaged(dir: &Path, tree: &str) {
    let collector = Collector::start(dir);
    let mut agent = collector.agent().await;
    for sequence in 1..=40 {
        let stored = agent.export(bulky("web", sequence)).await;
        assert_eq!(stored, ExportOutcome::Stored);
    }
    drop(agent);
    assert_eq!(collector.terminate(), Some(0));
    let path = dir.join("collector.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?";
    let page: i64 = connection
        .query_row(root, [tree], |row| row.get(0))
        .unwrap();
    drop(connection);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let at = u64::try_from(page - 1).unwrap() * 4096;
    file.write_all_at(&[0xa5; 4096], at).unwrap();
    // Sparse: it takes no room.
    file.set_len(300 << 20).unwrap();
}

#[tokio::test]
async fn damage_that_shows_at_the_start_is_set_aside_at_once() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), "reports").await;
    let collector = Collector::start(dir.path());
    assert!(dir.path().join("collector.db.set-aside-1").exists());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 41)).await, ExportOutcome::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_shows_later_ends_the_collector_and_is_set_aside_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), "reports_by_end").await;
    let collector = Collector::start(dir.path());
    let aside = dir.path().join("collector.db.set-aside-1");
    assert!(!aside.exists());
    let agent = collector.agent().await;
    agent.send(report("web", 41)).await;
    assert_eq!(collector.wait(), Some(1));
    drop(agent);
    let collector = Collector::start(dir.path());
    assert!(aside.exists());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 41)).await, ExportOutcome::Stored);
}

#[test]
fn help_version_completions_and_man_are_there() {
    for (args, words) in [
        (&["--help"][..], "Examples:"),
        (&["run", "--help"], "--data-dir"),
        (&["--version"], "0.1.0"),
        (&["completions", "bash"], "speedmimi-collector"),
        (&["man"], ".TH"),
    ] {
        let output = run(args);
        assert!(output.status.success());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(stdout.contains(words), "{args:?}: {stdout}");
    }
}

#[test]
fn the_log_can_be_json_and_the_ready_line_is_never_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start_with(dir.path(), &["--log-format", "json"]);
    assert!(collector.http.starts_with("127.0.0.1:"));
}
