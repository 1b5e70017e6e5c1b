//! The commands against a real collector.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use common::{Collector, answering, report, speedmimi, stderr, stdout};
use serde_json::Value;

async fn collector(dir: &std::path::Path, reports: u64) -> Collector {
    let collector = Collector::start(dir);
    let all = (1..=reports).map(|sequence| report("web", sequence));
    collector.store(all.collect()).await;
    collector
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn reports_as_json_are_the_collectors_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 3).await;
    let lines = json_lines(&stdout(&[
        "reports",
        "--output",
        "json",
        "--collector",
        &c.url,
    ]));
    let expected: Vec<Value> = (1..=3)
        .map(|n| monitor_proto::json::Report::from(&report("web", n)))
        .map(|r| serde_json::to_value(r).unwrap())
        .collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn reports_are_chosen_by_host_time_and_number() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 5).await;
    c.store(vec![report("db", 1)]).await;
    let sequences = |more: &[&str]| -> Vec<u64> {
        let mut args = vec!["reports", "--output", "json", "--collector", &c.url];
        args.extend(more);
        let lines = json_lines(&stdout(&args));
        lines
            .iter()
            .map(|r| r["sequence"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(sequences(&["--host", "web", "--limit", "2"]), [1, 2]);
    assert_eq!(sequences(&["--host", "id-db"]), [1]);
    assert_eq!(sequences(&["--host", "web", "--since", "10m"]), [0u64; 0]);
    let range = [
        "--since",
        "2025-11-23T02:06:55+01:00",
        "--until",
        "2025-11-23T01:07:05Z",
    ];
    assert_eq!(sequences(&range), [2, 3]);
    // Local times; in the tests' environment they are those of UTC.
    let range = [
        "--since",
        "2025-11-23 01:06:55",
        "--until",
        "2025-11-23T01:07:05",
    ];
    assert_eq!(sequences(&range), [2, 3]);
    assert_eq!(sequences(&["--until", "00:00"]).len(), 6, "last midnight");
}

#[tokio::test]
async fn more_than_one_page_is_printed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1205).await;
    let text = stdout(&["reports", "--output", "json", "--collector", &c.url]);
    assert_eq!(text.lines().count(), 1205);
}

#[tokio::test]
async fn tables_hold_the_figures_and_no_colour_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1).await;
    let reports = stdout(&["reports", "--collector", &c.url]);
    let row = reports.lines().nth(1).unwrap();
    for figure in ["web", "downstream", "127.0.0.1:8080", "10", "3", "1.5 KiB"] {
        assert!(
            row.split("  ").any(|cell| cell.trim() == figure),
            "{figure}: {row}"
        );
    }
    assert!(!reports.contains('\u{1b}'));
    let colored = stdout(&["reports", "--color", "always", "--collector", &c.url]);
    assert!(colored.contains('\u{1b}'));
    let hosts = stdout(&["hosts", "--collector", &c.url]);
    assert!(
        ["id-web", "LAST SEEN", "LABELS", "region=north"]
            .iter()
            .all(|text| hosts.contains(text)),
        "{hosts}"
    );
    let stats = stdout(&["stats", "web", "--collector", &c.url]);
    let row = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(name)).unwrap();
        line.strip_prefix(name).unwrap().trim().to_owned()
    };
    assert_eq!(row("CPU"), "12.5 %");
    assert_eq!(row("Memory"), "–", "it was not measured");
    assert_eq!(row("Load"), "– – –");
    assert_eq!(row("Network in"), "–");
}

const SILENT: &[(&str, &str)] = &[
    ("/api/v1/hosts", include_str!("silent/hosts.json")),
    (
        "/api/v1/reports?latest=true",
        include_str!("silent/latest.json"),
    ),
    ("/api/v1/hosts/web/stats", include_str!("silent/stats.json")),
];

#[test]
fn a_silent_host_is_marked_wherever_its_figures_are() {
    let url = answering(SILENT);
    let shown = |args: &[&str]| stdout(&[args, &["--collector", &url]].concat());
    for args in [&["hosts"][..], &["top", "--once"], &["stats", "web"]] {
        let table = shown(args);
        let marked = table.lines().filter(|line| line.contains("silent"));
        assert_eq!(marked.count(), 1, "{table}");
    }
    assert!(shown(&["hosts"]).contains("3 h ago"));
    assert!(shown(&["stats", "web"]).contains("silent for 3 h"));
    assert!(shown(&["top", "--once"]).contains("silent for 3 h"));
}

#[tokio::test]
async fn a_host_that_reports_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1).await;
    for args in [&["hosts"][..], &["stats", "web"]] {
        let table = stdout(&[args, &["--collector", &c.url]].concat());
        assert!(
            table.contains("live") && !table.contains("silent"),
            "{table}"
        );
    }
}

#[tokio::test]
async fn endpoints_of_several_targets_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1).await;
    let shown = |command: &[&str]| stdout(&[command, &["--collector", &c.url]].concat());
    let (reports, top): (&[&str], &[&str]) = (&["reports"], &["top", "--once"]);
    for command in [reports, top] {
        assert!(!shown(command).contains("TARGET"), "there is one");
    }
    let mut two = report("web", 2);
    two.endpoints.push(two.endpoints[0].clone());
    two.endpoints[1].target = "/other".to_owned();
    c.store(vec![two]).await;
    for command in [reports, top] {
        let table = shown(command);
        let rows = table.lines().filter(|line| line.contains("  downstream  "));
        let last: Vec<&str> = rows.collect::<Vec<_>>().into_iter().rev().take(2).collect();
        assert!(table.contains("  TARGET") && last[0] != last[1], "{table}");
        for target in ["  /proxy  ", "  /other  "] {
            assert!(last.iter().any(|line| line.contains(target)), "{table}");
        }
    }
}

#[tokio::test]
async fn json_of_hosts_and_stats_is_the_collectors() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1).await;
    let run = |args: &[&str]| -> Value {
        let mut command = speedmimi(args);
        let output = command.env("SPEEDMIMI_COLLECTOR", &c.url).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let hosts = run(&["hosts", "--output", "json"]);
    assert_eq!(hosts["hosts"][0]["host"]["id"], "id-web");
    let stats = run(&["stats", "id-web", "--output", "json"]);
    assert_eq!(stats["stats"]["cpu_usage"], 12.5);
    assert_eq!(stats["stats"]["memory_usage"], Value::Null);
}

#[tokio::test]
async fn following_prints_the_past_once_and_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 2).await;
    let args = [
        "reports",
        "--follow",
        "--since",
        "9999w",
        "--limit",
        "4",
        "--output",
        "json",
        "--collector",
        &c.url,
    ];
    let mut child = speedmimi(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> u64 {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["sequence"]
            .as_u64()
            .unwrap()
    };
    assert_eq!([next(), next()], [1, 2]);
    // It watches by now: the past is read after the watching has begun.
    c.store(vec![report("web", 3), report("web", 4)]).await;
    assert_eq!([next(), next()], [3, 4]);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn hostile_labels_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    let mut hostile = report("a\u{1b}[2J\u{202e}\r\nb", 1);
    hostile.endpoints[0].name = "\u{1b}]0;x\u{7}".into();
    c.store(vec![hostile]).await;
    // A table of reports has a line at its end.
    for (command, lines) in [("hosts", 2), ("reports", 3)] {
        let text = stdout(&[command, "--collector", &c.url]);
        assert_eq!(text.lines().count(), lines, "{text:?}");
        assert!(
            !text.contains(['\u{1b}', '\u{202e}', '\r', '\u{7}']),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1).await;
    for (args, code, words) in [
        (
            &["hosts", "--collector", "http://127.0.0.1:1"][..],
            1,
            "speedmimi-collector run",
        ),
        (
            &["reports", "--follow", "--collector", "http://127.0.0.1:1"],
            1,
            "cannot reach",
        ),
        (
            &["hosts", "--collector", "nonsense"],
            64,
            "http://127.0.0.1:7601",
        ),
        (
            &["stats", "nobody", "--collector", &c.url],
            1,
            "/api/v1/hosts",
        ),
        (
            &["reports", "--since", "soon", "--collector", &c.url],
            64,
            "RFC 3339",
        ),
        (
            &["reports", "--host", "nobody", "--collector", &c.url],
            1,
            "nobody",
        ),
        (
            &[
                "export",
                "--format",
                "csv",
                "--host",
                "nobody",
                "--collector",
                &c.url,
            ],
            1,
            "speedmimi hosts",
        ),
        (
            &[
                "reports",
                "--since",
                "10m",
                "--until",
                "2025-11-23",
                "--collector",
                &c.url,
            ],
            64,
            "is after until",
        ),
        (&["man", "nothing"], 64, "nothing"),
        (&["reports", "--limit", "0"], 64, "--limit"),
        (&["reports", "--follow", "--until", "now"], 64, "--until"),
        (&["nothing"], 64, "nothing"),
    ] {
        let output = speedmimi(args).output().unwrap();
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_version_completions_and_man_are_there() {
    assert!(stdout(&["--help"]).contains("Examples:"));
    assert!(stdout(&["--version"]).contains("0.1.0"));
    assert!(stdout(&["completions", "zsh"]).contains("speedmimi"));
    assert!(stdout(&["man"]).contains(".TH speedmimi "));
    for command in ["hosts", "reports", "stats", "top", "export"] {
        let page = stdout(&["man", command]);
        assert!(
            page.contains(&format!(".TH speedmimi-{command} ")),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let c = collector(dir.path(), 1205).await;
    let args = ["reports", "--output", "json", "--collector", &c.url];
    let mut child = speedmimi(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(0), "")
    );
}
