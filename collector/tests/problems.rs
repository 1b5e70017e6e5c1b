//! What is wrong, as every answer of the collector tells it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, process::Command};

use common::{Agent, Collector, command, eventually, report};
use monitor_proto::v1::{self, query_service_client::QueryServiceClient};
use serde_json::{Value, json};

/// A backend that refuses every connection.
fn refusing() -> v1::Counters {
    v1::Counters {
        connections_opened: 4,
        connections_failed: Some(v1::ConnectionsFailed {
            refused: 4,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A backend at which all is well.
fn healthy() -> v1::Counters {
    v1::Counters {
        connections_opened: 4,
        connections_established: 4,
        http: Some(v1::HttpCounters {
            requests: 100,
            responses_by_code: [("200".to_owned(), 100)].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Sends the n-th report, and waits until it is judged.
async fn judged(collector: &Collector, agent: &mut Agent, n: u64, backend: v1::Counters) {
    let mut r = report("web", n);
    r.endpoints.truncate(1);
    r.endpoints[0].role = v1::Role::Upstream.into();
    r.endpoints[0].upstream = "app".into();
    r.endpoints[0].backend = "one".into();
    r.endpoints[0].window = Some(backend);
    agent.export(r).await;
    let line = format!("speedmimi_collector_judged_windows_total {n}\n");
    eventually(&line, || collector.get("/metrics").body.contains(&line));
}

fn problems(collector: &Collector, query: &str) -> Vec<Value> {
    let answer = collector.json(&format!("/api/v1/problems{query}"));
    assert_eq!(answer["hosts"], 1);
    let problems = answer["problems"].as_array().unwrap().clone();
    assert_eq!(answer["total"], problems.len());
    problems
}

#[tokio::test]
async fn a_backend_that_refuses_is_in_every_answer_and_goes_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    judged(&collector, &mut agent, 1, healthy()).await;
    assert_eq!(problems(&collector, ""), <[Value; 0]>::default());
    assert!(
        collector
            .get("/metrics")
            .body
            .contains("speedmimi_problems 0\n")
    );
    for n in 2..=4 {
        judged(&collector, &mut agent, n, refusing()).await;
    }

    let told = problems(&collector, "");
    assert_eq!(told.len(), 1, "{told:?}");
    let problem = &told[0];
    assert_eq!(problem["kind"], "connect_failures");
    assert_eq!(problem["severity"], "critical");
    assert_eq!(
        problem["summary"],
        "backend app/one (127.0.0.1:8080) refuses connections"
    );
    let subject = json!({
        "type": "backend", "host": "web", "host_id": "id-web", "target": "/proxy",
        "endpoint": "127.0.0.1:8080", "upstream": "app", "backend": "one",
    });
    assert_eq!(problem["subject"], subject);
    let window = report("web", 2).window_start_unix_ns;
    assert_eq!(problem["since"], monitor_proto::json::rfc3339(window));
    let refused =
        json!({"name": "connections_failed.refused", "value": 4.0, "unit": "connections"});
    assert!(
        problem["evidence"].as_array().unwrap().contains(&refused),
        "{problem}"
    );

    for (query, is_there) in [
        ("?host=web", true),
        ("?host=id-web&severity=critical", true),
        ("?kind=connect_failures", true),
        ("?kind=disk_full", false),
    ] {
        assert_eq!(
            problems(&collector, query).len(),
            usize::from(is_there),
            "{query}"
        );
    }
    for query in ["?kind=x", "?severity=bad", "?other=1"] {
        let answer = collector.get(&format!("/api/v1/problems{query}"));
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
    }

    let mut client = QueryServiceClient::new(collector.channel().await);
    let request = v1::ListProblemsRequest {
        severity: v1::ProblemSeverity::Warning.into(),
        ..Default::default()
    };
    let answer = client.list_problems(request).await.unwrap().into_inner();
    assert_eq!((answer.total, answer.hosts), (1, 1));
    assert_eq!(answer.problems[0].since_unix_ns, window);
    assert_eq!(answer.problems[0].summary, problem["summary"]);
    let unknown = v1::ListProblemsRequest {
        kind: "x".into(),
        ..Default::default()
    };
    let status = client.list_problems(unknown).await.unwrap_err();
    assert!(
        status.message().contains("use one of connect_failures"),
        "{status}"
    );

    let metrics = collector.get("/metrics").body;
    let series = "speedmimi_problem{host=\"web\",host_id=\"id-web\",kind=\"connect_failures\",\
                  severity=\"critical\",subject=\"backend\",target=\"/proxy\",endpoint=\"127.0.0.1:8080\",\
                  upstream=\"app\",backend=\"one\"} 1\n";
    assert!(metrics.contains(series), "{metrics}");
    assert!(metrics.contains("speedmimi_problems 1\n"));

    for n in 5..=7 {
        judged(&collector, &mut agent, n, healthy()).await;
    }
    assert_eq!(problems(&collector, ""), <[Value; 0]>::default());
}

#[tokio::test]
async fn thresholds_are_those_of_the_configuration_and_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("collector.toml");
    fs::write(
        &file,
        "problem-threshold = [\"connect_failures=off\", \"disk_full=80%\"]",
    )
    .unwrap();
    let args = ["--config", file.to_str().unwrap()];
    let collector = Collector::start_with(&dir.path().join("data"), &args);
    let mut agent = collector.agent().await;
    for n in 1..=4 {
        judged(&collector, &mut agent, n, refusing()).await;
    }
    assert_eq!(problems(&collector, ""), <[Value; 0]>::default());
    fs::write(&file, "").unwrap();
    let pid = collector.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    eventually("it is followed", || {
        collector.log().contains("configuration reloaded")
    });
    for n in 5..=7 {
        judged(&collector, &mut agent, n, refusing()).await;
    }
    assert_eq!(problems(&collector, "").len(), 1);

    let bad = command()
        .args(["run", "--problem-threshold", "connect=1"])
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(64));
    let words = String::from_utf8_lossy(&bad.stderr);
    assert!(
        words.contains("--problem-threshold: \"connect\" is no kind of problem"),
        "{words}"
    );
}

#[test]
fn an_engine_does_not_tell_problems_and_the_answer_says_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start_with(dir.path(), &["--query-url", "http://127.0.0.1:1"]);
    let answer = collector.get("/api/v1/problems");
    assert_eq!(answer.status, 501);
    assert!(
        answer
            .body
            .contains("ask the collectors that take the reports"),
        "{}",
        answer.body
    );
    assert!(!collector.get("/metrics").body.contains("speedmimi_problem"));
}
