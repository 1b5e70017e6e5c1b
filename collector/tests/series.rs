//! Figures over time, from reports and from roll-ups.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, eventually, now_ns, report};
use monitor_proto::v1::{self, ExportOutcome};
use serde_json::Value;

const WINDOW_NS: u64 = 5_000_000_000;
const DOWNSTREAM: &str = "role=downstream&endpoint=127.0.0.1:8080";

/// The report whose window ends so many windows ago.
fn ago(base_ns: u64, sequence: u64, windows: u64) -> v1::Report {
    let mut r = report("web", sequence);
    r.window_end_unix_ns = base_ns - windows * WINDOW_NS;
    r.window_start_unix_ns = r.window_end_unix_ns - WINDOW_NS;
    r
}

/// What the points add up to: rate times covered time.
fn total(answer: &Value) -> f64 {
    let step_s = answer["step_s"].as_f64().unwrap();
    let points = answer["series"][0]["points"].as_array();
    let points = points.map_or(&[][..], Vec::as_slice);
    let of = |p: &Value| p["value"].as_f64().unwrap_or(0.0) * p["coverage"].as_f64().unwrap();
    points.iter().map(of).sum::<f64>() * step_s
}

fn series(collector: &Collector, query: &str) -> Value {
    collector.json(&format!("/api/v1/series?host=web&since=30m&{query}"))
}

#[tokio::test]
async fn every_tier_holds_every_report_once_also_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    // Aligned, so that 12 windows fill a minute.
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    let mut sequence = 0;
    for round in 1..=3u64 {
        let collector = Collector::start(dir.path());
        let mut agent = collector.agent().await;
        for _ in 0..24 {
            sequence += 1;
            // From the newest to the oldest: the order does not matter.
            let outcome = agent.export(ago(base_ns, sequence, sequence - 1)).await;
            assert_eq!(outcome, ExportOutcome::Stored);
            // A replay is not counted again.
            let again = agent.export(ago(base_ns, sequence, sequence - 1)).await;
            assert_eq!(again, ExportOutcome::Duplicate);
        }
        let expected = 5.0 * sequence as f64;
        if round == 2 {
            // It is killed before it may have rolled up everything.
            collector.kill_9();
            continue;
        }
        for (step, tier) in [("30s", "raw"), ("1m", "1m"), ("1h", "1h")] {
            let query = format!("metric=requests&{DOWNSTREAM}&step={step}");
            eventually(tier, || {
                let answer = series(&collector, &query);
                assert_eq!(answer["tier"], tier);
                let sum = total(&answer);
                assert!(sum < expected + 0.01, "{tier} counts twice: {sum}");
                (sum - expected).abs() < 0.01
            });
        }
        let full = series(&collector, &format!("metric=requests&{DOWNSTREAM}&step=1m"));
        let points = full["series"][0]["points"].as_array().unwrap();
        let covered = points.iter().filter(|p| p["coverage"] == 1.0).count() as u64;
        assert_eq!(covered, 2 * round, "{full}");
        assert!(
            points.iter().any(|p| p["value"].is_null()),
            "gaps stay gaps"
        );
        collector.kill_9();
    }
}

#[tokio::test]
async fn figures_are_those_of_the_reports() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    for sequence in 1..=12 {
        agent.export(ago(base_ns, sequence, sequence - 1)).await;
    }
    let value = |metric: &str, filter: &str, step: &str| -> Value {
        let answer = series(&collector, &format!("metric={metric}&{filter}&step={step}"));
        let points = answer["series"][0]["points"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let measured = points.into_iter().find(|p| !p["value"].is_null());
        measured.unwrap_or_default()
    };
    for step in ["30s", "1m"] {
        eventually("it is rolled up", || {
            value("bytes_sent", DOWNSTREAM, step)["coverage"] == 1.0
        });
        let number =
            |metric: &str, filter: &str| value(metric, filter, step)["value"].as_f64().unwrap();
        assert!((number("bytes_sent", DOWNSTREAM) - 180.0).abs() < 1e-6);
        assert!((number("responses_5xx", DOWNSTREAM) - 0.2).abs() < 1e-6);
        assert!((number("connections_active", DOWNSTREAM) - 3.0).abs() < 1e-6);
        // 4 of 5 lie below 2^-11.25 s, all of them below 2^-11 s.
        let p99 = number("exchange_duration_p99", DOWNSTREAM);
        assert!((0.41..=0.49).contains(&p99), "{p99}");
        let cpu = value("cpu_usage", "", step);
        assert_eq!(
            (&cpu["min"], &cpu["value"], &cpu["max"]),
            (&0.5.into(), &1.0.into(), &99.0.into())
        );
    }
    let both = series(&collector, "metric=requests&step=30s");
    let roles: Vec<_> = both["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["role"].clone())
        .collect();
    assert_eq!(roles, ["downstream", "upstream"]);
    assert_eq!(both["unit"], "1/s");
    assert!(both["error_ratio"].is_null());
}

/// A listener with a name and one without, and two upstreams, `api` of two backends; the
/// figures of the `n`th endpoint are `n` times those of the first.
fn named(base_ns: u64, sequence: u64) -> v1::Report {
    let mut r = ago(base_ns, sequence, sequence - 1);
    let [listener, backend] = [0, 1].map(|n| r.endpoints[n].clone());
    let of = |n: u64, like: &v1::Endpoint, [name, upstream, backend]: [&str; 3]| {
        let mut e = v1::Endpoint {
            address: format!("10.0.0.{n}:80"),
            name: name.into(),
            upstream: upstream.into(),
            backend: backend.into(),
            ..like.clone()
        };
        e.window.as_mut().unwrap().bytes_sent = 1_000 * n;
        e
    };
    r.endpoints = vec![
        of(1, &listener, ["shop", "", ""]),
        of(2, &listener, ["", "", ""]),
        of(3, &backend, ["", "api", "one"]),
        of(4, &backend, ["", "api", "two"]),
        of(5, &backend, ["", "pay", "one"]),
    ];
    r
}

#[tokio::test]
async fn series_are_chosen_by_the_names_of_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    for sequence in 1..=12 {
        agent.export(named(base_ns, sequence)).await;
    }
    let mut other = report("other", 1);
    other.endpoints[1].upstream = "api".into();
    agent.export(other).await;
    // Each endpoint's bytes, by the place of its address.
    let found = |filter: &str, step: &str| {
        let query = format!("metric=bytes_sent&{filter}&step={step}");
        let answer = series(&collector, &query);
        let all = answer["series"].as_array().unwrap().iter();
        all.map(|one| {
            let address = one["endpoint"].as_str().unwrap();
            let n = address.strip_prefix("10.0.0.").unwrap();
            let n: u64 = n.strip_suffix(":80").unwrap().parse().unwrap();
            let alone = serde_json::json!({"step_s": answer["step_s"], "series": [one]});
            (n, total(&alone).round() as u64)
        })
        .collect::<Vec<_>>()
    };
    for step in ["30s", "1m"] {
        eventually("it is rolled up", || {
            found("role=downstream", step).len() == 2
        });
        let bytes = |ns: &[u64]| ns.iter().map(|n| (*n, 12_000 * n)).collect::<Vec<_>>();
        eventually("all of it is", || {
            found("", step) == bytes(&[1, 2, 3, 4, 5])
        });
        for (filter, expected) in [
            ("listener=shop", &[1][..]),
            ("listener=10.0.0.1:80", &[]),
            ("listener=10.0.0.2:80", &[2]),
            ("upstream=api", &[3, 4]),
            ("upstream=api&backend=two", &[4]),
            ("upstream=api&backend=10.0.0.3:80", &[3]),
            ("backend=one", &[3, 5]),
            ("backend=one&role=upstream&endpoint=10.0.0.5:80", &[5]),
            ("upstream=gone", &[]),
        ] {
            assert_eq!(found(filter, step), bytes(expected), "{filter} {step}");
        }
    }
    // Of all hosts, and spread over time.
    let hosts = collector.json("/api/v1/series?metric=bytes_sent&upstream=api&since=30m&step=1m");
    let hosts: Vec<_> = hosts["series"].as_array().unwrap().iter().collect();
    let of_web = |one: &&&Value| one["host"]["name"] == "web";
    assert_eq!(hosts.iter().filter(of_web).count(), 2);
    let count = |filter: &str| {
        let path = format!("/api/v1/heatmap?host=web&since=30m&step=1m&{filter}");
        let answer = collector.json(&path);
        let columns = answer["columns"].as_array().unwrap().iter();
        let counts = columns.filter_map(|column| column["counts"].as_array());
        counts.flatten().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    let one = count("upstream=pay");
    assert!(one > 0);
    assert_eq!(count("upstream=api"), 2 * one);
    assert_eq!(count("role=upstream"), 3 * one);
    for (query, words) in [
        (
            "metric=requests&listener=a&upstream=b",
            "ask for one of the two",
        ),
        (
            "metric=requests&upstream=b&role=downstream",
            "role=downstream has none",
        ),
        (
            "metric=requests&listener=b&role=upstream",
            "role=upstream has none",
        ),
        ("metric=cpu_usage&backend=b", "is of a host: leave out role"),
        (
            &format!("metric=requests&backend={}", "x".repeat(4097)),
            "backend has 4097 bytes: no name has more than 4096",
        ),
    ] {
        let answer = collector.get(&format!("/api/v1/series?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(words), "{}", answer.body);
    }
}

/// Where all of them are too many for an answer, one upstream's are not.
#[tokio::test]
async fn an_upstream_of_many_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut r = ago(now_ns(), 1, 0);
    let backend = r.endpoints.pop().unwrap();
    r.endpoints.extend((0..1_200).map(|n| v1::Endpoint {
        address: format!("10.{}.{}.1:80", n / 256, n % 256),
        upstream: format!("up-{}", n % 20),
        ..backend.clone()
    }));
    agent.export(r).await;
    let path = "/api/v1/series?metric=requests&since=5m";
    let all = collector.get(path);
    assert_eq!(all.status, 400, "{}", all.body);
    assert!(all.body.contains("an upstream"), "{}", all.body);
    let one = collector.json(&format!("{path}&upstream=up-7"));
    let found = one["series"].as_array().unwrap();
    assert!(found.iter().all(|one| one["upstream"] == "up-7"));
    assert_eq!(found.len(), 60);
}

#[tokio::test]
async fn requests_within_tls_are_unknown_and_those_of_an_idle_listener_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    // A minute of TLS, and before it one in which nothing happened.
    for sequence in 1..=24 {
        let mut r = ago(base_ns, sequence, sequence - 1);
        let window = r.endpoints[0].window.as_mut().unwrap();
        let counted = window.http.take().unwrap();
        let mut http = v1::HttpCounters::default();
        if sequence <= 12 {
            http.exchanges = 5;
            http.exchange_duration = counted.exchange_duration;
        }
        window.http = Some(http);
        agent.export(r).await;
    }
    for (metric, minutes) in [
        ("requests", [Some(0.0), None]),
        ("responses_2xx", [Some(0.0), None]),
        ("responses_5xx", [Some(0.0), None]),
        ("exchanges", [Some(0.0), Some(1.0)]),
    ] {
        for (step, steps) in [("30s", 2), ("1m", 1)] {
            let query = format!("metric={metric}&{DOWNSTREAM}&step={step}");
            let covered = || -> Vec<Value> {
                let answer = series(&collector, &query);
                let points = answer["series"][0]["points"].as_array();
                let points = points.cloned().unwrap_or_default();
                points
                    .into_iter()
                    .filter(|p| p["coverage"] == 1.0)
                    .collect()
            };
            eventually("it is rolled up", || covered().len() == 2 * steps);
            let values: Vec<_> = covered().iter().map(|p| p["value"].as_f64()).collect();
            let expected = minutes.map(|value| vec![value; steps]).concat();
            assert_eq!(values, expected, "{metric} by {step}");
        }
    }
}

#[tokio::test]
async fn series_have_the_names_of_the_newest_report() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns();
    for (sequence, backend) in [(1, "old"), (2, "api-1")] {
        let mut r = ago(base_ns, sequence, 3 - sequence);
        r.endpoints[0].name = "public".into();
        (r.endpoints[1].upstream, r.endpoints[1].backend) = ("api".into(), backend.into());
        // A listener without a name.
        let mut other = r.endpoints[0].clone();
        (other.name, other.address) = (String::new(), "127.0.0.1:8090".into());
        r.endpoints.push(other);
        agent.export(r).await;
    }
    let answer = series(&collector, "metric=requests");
    let names = answer["series"].as_array().unwrap().iter().map(|one| {
        let of = |key: &str| one.get(key).map(|name| name.as_str().unwrap());
        [of("endpoint"), of("name"), of("upstream"), of("backend")]
    });
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            [Some("127.0.0.1:8080"), Some("public"), None, None],
            [Some("127.0.0.1:8090"), None, None, None],
            [Some("127.0.0.1:8081"), None, Some("api"), Some("api-1")],
        ]
    );
    let of_host = series(&collector, "metric=cpu_usage");
    assert!(of_host["series"][0].get("name").is_none(), "{of_host}");
}

#[tokio::test]
async fn bad_questions_are_answered_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for (query, words) in [
        ("", "cpu_usage"),
        ("metric=nonsense", "requests"),
        ("metric=requests&step=1s", "10 s"),
        ("metric=requests&step=x", "duration"),
        ("metric=requests&since=now&until=1h", "not after"),
        ("metric=requests&since=52w&step=1m", "larger step"),
        ("metric=requests&role=sideways", "downstream"),
        ("metric=cpu_usage&role=upstream", "of a host"),
    ] {
        let answer = collector.get(&format!("/api/v1/series?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
    }
    let unknown = collector.json("/api/v1/series?metric=requests&host=nobody");
    assert!(unknown["series"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_has_so_many_points_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut wide = ago(now_ns(), 1, 1);
    wide.endpoints = (0..200)
        .map(|n| v1::Endpoint {
            address: format!("10.0.0.7:{}", 1000 + n),
            ..wide.endpoints[0].clone()
        })
        .collect();
    agent.export(wide).await;
    let get = |query: &str| {
        let answer = collector.get(&format!("/api/v1/series?metric=requests&{query}"));
        (answer.status, answer.body)
    };
    // 200 series of 1,800 and more steps each.
    let (status, body) = get("since=5h&step=10s");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("larger step"), "{body}");
    eventually("it is rolled up", || {
        let (status, body) = get("since=30h&step=1m");
        status == 400 && body.contains("larger step")
    });
    for fits in [
        "since=5h",
        "since=5h&step=1m",
        "since=5h&step=10s&endpoint=10.0.0.7:1000",
    ] {
        let (status, body) = get(fits);
        assert_eq!(status, 200, "{fits}: {body}");
    }
}
