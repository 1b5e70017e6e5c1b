//! What is read over HTTP.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Read};

use common::{Collector, get, report};

async fn with_reports(dir: &std::path::Path, hosts: &[&str], each: u64) -> Collector {
    let collector = Collector::start(dir);
    let mut agent = collector.agent().await;
    for host in hosts {
        for sequence in 1..=each {
            agent.export(report(host, sequence)).await;
        }
    }
    collector
}

#[tokio::test]
async fn pages_hold_every_report_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let collector = with_reports(dir.path(), &["a", "b", "c"], 7).await;
    let all = collector.all_reports("limit=4");
    let key = |r: &serde_json::Value| {
        (
            r["window_end"].to_string(),
            r["host"]["id"].to_string(),
            r["sequence"].as_u64(),
        )
    };
    let keys: Vec<_> = all.iter().map(key).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(keys, sorted);
    assert_eq!(keys.len(), 21);
}

#[tokio::test]
async fn ranges_are_half_open_and_take_times_and_ages() {
    let dir = tempfile::tempdir().unwrap();
    let collector = with_reports(dir.path(), &["a"], 5).await;
    let sequences = |query: &str| -> Vec<u64> {
        let reports = collector.all_reports(query);
        reports
            .iter()
            .map(|r| r["sequence"].as_u64().unwrap())
            .collect()
    };
    // Report n ends 5 (n + 1) s after 01:06:40.
    assert_eq!(
        sequences("since=2025-11-23T01:06:55Z&until=2025-11-23T01:07:05Z"),
        [2, 3]
    );
    assert_eq!(sequences("until=2025-11-23T02:06:55%2B01:00"), [1]);
    assert_eq!(sequences("since=10m"), [0u64; 0]);
    assert_eq!(sequences("since=9999w"), [1, 2, 3, 4, 5]);
    let mut agent = collector.agent().await;
    let mut fresh = report("a", 6);
    fresh.window_end_unix_ns = common::now_ns();
    agent.export(fresh).await;
    assert_eq!(sequences("since=10m"), [6]);
    assert_eq!(sequences("latest=true"), [6]);
}

#[tokio::test]
async fn bad_parameters_are_problems_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for (path, status, words) in [
        ("/api/v1/reports?since=yesterday", 400, "RFC 3339"),
        ("/api/v1/reports?limit=0", 400, "1 to 1000"),
        ("/api/v1/reports?limit=1001", 400, "1 to 1000"),
        ("/api/v1/reports?cursor=zzz", 400, "next_cursor"),
        ("/api/v1/reports?sice=10m", 400, "sice"),
        ("/api/v1/live?hots=a", 400, "hots"),
        ("/api/v1/hosts/nobody/stats", 404, "nobody"),
        ("/api/v2/hosts", 404, "/api/v2/hosts"),
        ("/../../etc/passwd", 404, ""),
    ] {
        let answer = collector.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{}",
            answer.body
        );
    }
    // An unknown host has no reports; it may have some later.
    assert!(collector.all_reports("host=nobody").is_empty());
}

#[tokio::test]
async fn metrics_are_the_totals_of_the_newest_report() {
    let dir = tempfile::tempdir().unwrap();
    let collector = with_reports(dir.path(), &["a"], 7).await;
    // A late report is not the newest.
    let mut agent = collector.agent().await;
    agent.export(report("a", 9)).await;
    agent.export(report("a", 8)).await;
    let answer = collector.get("/metrics");
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let down = "host=\"a\",host_id=\"id-a\",target=\"/proxy\",role=\"downstream\",endpoint=\"127.0.0.1:8080\"";
    for line in [
        format!("speedmimi_connections_opened_total{{{down}}} 18\n"),
        format!("speedmimi_requests_total{{{down},method=\"GET\"}} 45\n"),
        format!("speedmimi_responses_total{{{down},code_class=\"5xx\"}} 9\n"),
        format!("speedmimi_bytes_sent_total{{{down}}} 8100\n"),
        format!("speedmimi_connections_active{{{down}}} 3\n"),
        format!("speedmimi_exchange_duration_seconds_count{{{down}}} 45\n"),
        "speedmimi_host_cpu_usage_ratio{host=\"a\",host_id=\"id-a\"} 0.125\n".to_owned(),
    ] {
        assert!(
            answer.body.contains(&line),
            "{line} is not in\n{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn an_agent_with_an_earlier_spool_is_shown_once_the_later_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let collector = with_reports(dir.path(), &["a"], 2).await;
    let mut agent = collector.agent().await;
    let mut later = report("a", 1);
    later.agent.as_mut().unwrap().epoch += 10_000;
    later.window_end_unix_ns = report("a", 3).window_end_unix_ns;
    agent.export(later).await;
    let shown = || {
        let metrics = collector.get("/metrics").body;
        let name = "speedmimi_host_report_sequence{host=\"a\",host_id=\"id-a\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let latest = collector.json("/api/v1/reports?latest=true");
        let sequence = latest["reports"][0]["sequence"].to_string();
        assert_eq!(line, Some(sequence.as_str()));
        sequence
    };
    assert_eq!(shown(), "1");
    assert!(!collector.log().contains("two agents"));
    for sequence in 4..=14 {
        agent.export(report("a", sequence)).await;
        assert_eq!(shown(), "1", "both report: {sequence}");
    }
    common::eventually("it is said", || collector.log().contains("two agents"));
    assert_eq!(collector.log().matches("two agents").count(), 1);
    agent.export(report("a", 15)).await;
    assert_eq!(shown(), "15");
    let hosts = collector.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"][0]["missing_reports"], 1, "of 15: {hosts}");
    // The choice is found again at a start.
    drop(collector);
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    agent.export(report("a", 16)).await;
    let latest = collector.json("/api/v1/reports?latest=true");
    assert_eq!(latest["reports"][0]["sequence"], 16);
}

#[tokio::test]
async fn live_events_bring_reports_of_the_chosen_host() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let response = ureq::get(collector.url("/api/v1/live?host=b"))
        .call()
        .unwrap();
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), ": watching");
    let mut agent = collector.agent().await;
    agent.export(report("a", 1)).await;
    agent.export(report("b", 2)).await;
    let mut wait = |start: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(rest) = line.strip_prefix(start) {
            return rest.to_owned();
        }
    };
    assert_eq!(wait("event: "), "report");
    let data: serde_json::Value = serde_json::from_str(&wait("data: ")).unwrap();
    assert_eq!(
        (data["host"]["name"].as_str(), data["sequence"].as_u64()),
        (Some("b"), Some(2))
    );
}

#[tokio::test]
async fn every_answer_is_guarded_and_foreign_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for path in ["/", "/app.js", "/api/v1/hosts", "/nothing", "/metrics"] {
        let answer = collector.get(path);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let foreign = get(&collector.url("/api/v1/hosts"), &[("host", "evil.example")]);
    assert_eq!(foreign.status, 421);
    let local = get(&collector.url("/api/v1/hosts"), &[("host", "localhost:1")]);
    assert_eq!(local.status, 200);
    let posted = ureq::post(collector.url("/api/v1/hosts")).send_empty();
    assert!(
        matches!(posted, Err(ureq::Error::StatusCode(405))),
        "{posted:?}"
    );
}

#[tokio::test]
async fn the_page_is_served_whole_and_has_nothing_inline() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let page = collector.get("/");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for forbidden in [
        "<script>", "<style", "style=", "onclick=", "http://", "https://",
    ] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
    let linked = page.body.split(['"', '\'']);
    let linked = linked.filter(|part| part.starts_with('/') && part.contains('.'));
    for file in linked.chain(["/format.js", "/model.js", "/charts.js"]) {
        let answer = collector.get(file);
        assert_eq!(answer.status, 200, "{file}");
        assert!(!answer.body.is_empty(), "{file}");
        let tag = answer.header("etag").to_owned();
        assert_eq!(
            get(&collector.url(file), &[("if-none-match", &tag)]).status,
            304
        );
    }
}

#[tokio::test]
async fn health_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    assert_eq!(collector.json("/healthz")["status"], "ok");
    assert_eq!(collector.json("/readyz")["status"], "ready");
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it_and_events_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let collector = with_reports(dir.path(), &["a"], 50).await;
    let taking = |coding: &str, path: &str| {
        let request = ureq::get(collector.url(path)).header("accept-encoding", coding);
        request.call().unwrap().into_parts()
    };
    let raw = |path: &str| taking("gzip", path);
    // What a compressor keeps for a reader that does not read is bounded.
    for path in ["/api/v1/reports", "/"] {
        let (head, _) = taking("gzip;q=0.5, br", path);
        assert_eq!(head.headers["content-encoding"], "gzip", "{path}");
    }
    let plain = collector.get("/api/v1/reports");
    let (head, body) = raw("/api/v1/reports");
    assert_eq!(head.headers["content-encoding"], "gzip");
    let mut bytes = Vec::new();
    body.into_reader().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    assert!(
        bytes.len() * 4 < plain.body.len(),
        "{} of {}",
        bytes.len(),
        plain.body.len()
    );
    let (head, _) = raw("/api/v1/live");
    assert!(!head.headers.contains_key("content-encoding"));
}
