//! A time range in one look, and the reports of one endpoint.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, answering, report, speedmimi, stderr, stdout};
use monitor_proto::{json::Summary, v1};

/// The range of the reports: windows of 5 s from 01:06:45 on.
const RANGE: [&str; 4] = [
    "--since",
    "2025-11-23 01:06:40",
    "--until",
    "2025-11-23 01:08",
];

/// A listener, and two backends of which the second fails.
fn busy(sequence: u64) -> v1::Report {
    let mut r = report("web", sequence);
    let listener = r.endpoints[0].clone();
    for (n, status) in [(1, "200"), (2, "503")] {
        let mut backend = listener.clone();
        backend.role = v1::Role::Upstream.into();
        backend.address = format!("10.0.0.{n}:80");
        (backend.upstream, backend.backend) = ("api".into(), format!("api-{n}"));
        let window = backend.window.as_mut().unwrap();
        window.connections_failed = Some(v1::ConnectionsFailed {
            refused: n - 1,
            ..Default::default()
        });
        let http = window.http.as_mut().unwrap();
        http.requests = 10 * n;
        http.responses_by_code = [(status.to_owned(), 10 * n)].into();
        r.endpoints.push(backend);
    }
    r
}

async fn filled(dir: &std::path::Path) -> Collector {
    let collector = Collector::start(dir);
    collector.store((1..=12).map(busy).collect()).await;
    collector
}

fn shown(c: &Collector, more: &[&str]) -> String {
    let command = ["summary", "--collector", &c.url];
    stdout(&[&command[..], &RANGE, more].concat())
}

/// The cells of a line.
fn cells(text: &str, begins: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("{begins}: {text}"));
    let cells = line.split("  ").map(str::trim);
    cells
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn backends_are_summed_up_by_what_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let c = filled(dir.path()).await;
    let text = shown(&c, &[]);
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        "2 backends by requests, 2025-11-23 01:06:40 to 2025-11-23 01:08:00 UTC, from reports"
    );
    let heads: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let at = |line: &[String], head: &str| {
        let place = heads.iter().position(|one| *one == head).unwrap();
        line[place].clone()
    };
    // The worse one has more requests, and comes first.
    let (one, two, total) = (
        cells(&text, "api/api-1"),
        cells(&text, "api/api-2"),
        cells(&text, "~total"),
    );
    assert!(text.find("api/api-2") < text.find("api/api-1"), "{text}");
    assert_eq!(
        (at(&one, "REQUESTS"), at(&two, "REQUESTS")),
        ("120".into(), "240".into())
    );
    assert_eq!(
        (at(&one, "5XX"), at(&two, "5XX%")),
        ("0".into(), "100".into())
    );
    assert_eq!(at(&two, "FAILED"), "12");
    assert_eq!(at(&two, "RESET"), "–", "the agent does not tell");
    assert_eq!(at(&two, "P99"), "–", "no exchange was timed");
    assert!(
        total.contains(&"360".to_owned()) && total.contains(&"67".to_owned()),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
    let top = shown(&c, &["--sort", "failed", "--top", "1"]);
    assert_eq!(cells(&top, "~other (1)")[1], "120", "{top}");
    let upstream = shown(&c, &["--by", "upstream"]);
    assert!(
        cells(&upstream, "api").contains(&"360".to_owned()),
        "{upstream}"
    );
    let listener = shown(&c, &["--by", "listener", "--sort", "bytes"]);
    assert!(
        cells(&listener, "127.0.0.1:8080").contains(&"600".to_owned()),
        "{listener}"
    );
    let host = shown(&c, &["--by", "host"]);
    assert!(cells(&host, "web").contains(&"600".to_owned()), "{host}");
    // The same a minute before: nothing was there, and it is not called 0.
    let against = shown(&c, &["--against", "1h"]);
    let before = cells(&against, "  2025-11-23 00:06:40");
    assert!(before[1..].iter().all(|cell| cell == "–"), "{against}");

    let json: Summary = serde_json::from_str(&shown(&c, &["--output", "json"])).unwrap();
    assert_eq!(json.total.figures.unwrap().counter("requests"), Some(360));
    let csv = shown(&c, &["--output", "csv", "--top", "1"]);
    let rows: Vec<&str> = csv
        .lines()
        .map(|line| line.split(',').next().unwrap())
        .collect();
    assert_eq!(rows, ["row", "row", "~other", "~total"]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let c = filled(dir.path()).await;
    let refused = |more: &[&str], code: i32, words: &str| {
        let output = speedmimi(&[&["summary", "--collector", &c.url][..], more].concat())
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
        assert!(said.contains(words), "{more:?}: {said}");
    };
    refused(&["--by", "site"], 64, "upstream, backend, listener, host");
    refused(&["--sort", "p98"], 64, "requests, p99, 5xx");
    refused(&["--top", "0"], 64, "0 is not in 1..=1000");
    refused(&["--since", "soon"], 64, "neither RFC 3339");
    refused(
        &["--since", "10m", "--until", "1h"],
        64,
        "until is not after since",
    );
    refused(&["--against", "yesterday"], 64, "is not an age");
    refused(&["--host", "nobody"], 1, "no host with the id or name");
    let nothing = stdout(&[
        "summary",
        "--collector",
        &c.url,
        "--since",
        "yesterday 10:05",
    ]);
    assert!(
        nothing.contains("nothing was reported of this range"),
        "{nothing}"
    );
    // A collector that does not know the question.
    let old = speedmimi(&["summary", "--collector", &answering(&[])])
        .output()
        .unwrap();
    assert_eq!(old.status.code(), Some(1), "{}", stderr(&old));
}

#[tokio::test]
async fn reports_are_few_in_a_table_and_all_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    c.store((1..=105).map(busy).collect()).await;
    let reports = |more: &[&str]| stdout(&[&["reports", "--collector", &c.url][..], more].concat());
    let table = reports(&[]);
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("100 reports of 1 host in 300 rows, 2025-11-23 01:06:45 to "),
        "{last}"
    );
    assert!(
        last.ends_with("there are more: --limit N shows them, `speedmimi summary` sums them up")
    );
    assert_eq!(table.lines().count(), 302);
    let all = reports(&["--limit", "105"]);
    assert!(
        all.lines().last().unwrap().starts_with("105 reports"),
        "{all}"
    );
    assert!(!all.contains("there are more"));
    assert_eq!(reports(&["--output", "json"]).lines().count(), 105);
    for (endpoint, rows) in [("10.0.0.2:80", 5), ("api-2", 5), ("api", 10), ("nobody", 0)] {
        let json = reports(&["--output", "json", "--limit", "5", "--endpoint", endpoint]);
        let endpoints = json.lines().map(|line| {
            let report: serde_json::Value = serde_json::from_str(line).unwrap();
            report["endpoints"].as_array().unwrap().len()
        });
        assert_eq!(endpoints.sum::<usize>(), rows, "{endpoint}");
    }
    // Only what has the endpoint counts, for whether there are more as well.
    let mut rare = busy(106);
    rare.endpoints[1].address = "10.0.0.3:80".into();
    c.store(vec![rare]).await;
    for (endpoint, limit, has_more) in [
        ("10.0.0.3:80", "1", false),
        ("10.0.0.1:80", "105", false),
        ("10.0.0.1:80", "104", true),
        ("api-2", "106", false),
        ("api-2", "5", true),
    ] {
        let table = reports(&["--limit", limit, "--endpoint", endpoint]);
        let last = table.lines().last().unwrap();
        assert!(last.starts_with(&format!("{limit} report")), "{last}");
        assert_eq!(last.contains("there are more"), has_more, "{last}");
    }
    let none = reports(&["--endpoint", "nobody"]);
    assert_eq!(none.trim_end(), "no report: see `speedmimi hosts`");
}
