//! The description of the API against what is answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, get, now_ns, report};
use monitor_proto::v1;
use serde_json::Value;

/// Every field must be described, of the described type, and every field that
/// is required must be there.
fn hold(value: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let found = document.pointer(name.trim_start_matches('#'));
        return hold(
            value,
            found.unwrap_or_else(|| panic!("{name}")),
            document,
            at,
        );
    }
    if let Some(words) = schema["oneOf"].as_array() {
        let is_one = words.iter().any(|word| word["const"] == *value);
        assert!(is_one, "{at} is {value}, described as {schema}");
        return;
    }
    if let Some(one_of) = schema["anyOf"].as_array() {
        if value.is_null() {
            assert!(one_of.iter().any(|s| s["type"] == "null"), "{at} is null");
            return;
        }
        return hold(value, &one_of[0], document, at);
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let described = schema["type"].to_string();
    let fits = described.contains(is) || (is == "integer" && described.contains("number"));
    assert!(fits, "{at} is {is}, described as {described}");
    for item in value.as_array().into_iter().flatten() {
        hold(item, &schema["items"], document, &format!("{at}[]"));
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let described = match &schema["properties"][name] {
            Value::Null => &schema["additionalProperties"],
            described => described,
        };
        let free = schema.get("properties").is_none() && described.is_null();
        assert!(free || !described.is_null(), "{at}.{name} is not described");
        if !free {
            hold(field, described, document, &format!("{at}.{name}"));
        }
    }
    let required = schema["required"].as_array().filter(|_| value.is_object());
    for name in required.into_iter().flatten() {
        let there = value.get(name.as_str().unwrap()).is_some();
        assert!(there, "{at}.{name} is missing");
    }
}

#[tokio::test]
async fn every_described_answer_is_as_described() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=3 {
        let mut r = report("web", sequence);
        r.window_end_unix_ns = now_ns();
        let client = v1::Client {
            address: "192.0.2.7".into(),
            ..Default::default()
        };
        r.clients = Some(v1::Clients {
            top: vec![client],
            ..Default::default()
        });
        r.endpoints[0].accept_queue = Some(v1::AcceptQueue {
            listener: "0.0.0.0:80".into(),
            ..Default::default()
        });
        agent.export(r).await;
    }
    let document = collector.json("/api/v1/openapi.json");
    let retransmits = &document["components"]["schemas"]["Endpoint"]["properties"]["retransmits"];
    let described = "TCP segments that were sent again.";
    assert_eq!(retransmits["description"], described, "as in report.proto");
    for (path, operation) in document["paths"].as_object().unwrap() {
        if path == "/api/v1/live" {
            continue;
        }
        let mut url = path.replace("{id}", "web");
        if path == "/api/v1/series" {
            url.push_str("?metric=cpu_usage");
        }
        let answer = collector.get(&url);
        assert_eq!(answer.status, 200, "{url}");
        let content = operation["get"]["responses"]["200"]["content"]
            .as_object()
            .unwrap();
        let media = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let schema = &content
            .get(&media)
            .unwrap_or_else(|| panic!("{path}: {media}"))["schema"];
        if media == "application/json" {
            let value: Value = serde_json::from_str(&answer.body).unwrap();
            hold(&value, schema, &document, path);
        }
    }
    let endpoints = collector.json("/api/v1/series?metric=requests");
    let schema = &document["components"]["schemas"]["Series"];
    hold(&endpoints, schema, &document, "series");
}

#[tokio::test]
async fn described_parameters_are_taken_and_others_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let document = collector.json("/api/v1/openapi.json");
    for path in [
        "/api/v1/reports",
        "/api/v1/series",
        "/api/v1/heatmap",
        "/api/v1/summary",
    ] {
        let parameters = &document["paths"][path]["get"]["parameters"];
        for parameter in parameters.as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            // Empty is as not given: only an unknown name is refused for it.
            let metric = if path.ends_with("series") && name != "metric" {
                "&metric=requests"
            } else {
                ""
            };
            let answer = collector.get(&format!("{path}?{name}={metric}"));
            assert!(
                !answer.body.contains("unknown field"),
                "{path} {name}: {}",
                answer.body
            );
        }
        let unknown = collector.get(&format!("{path}?nonsense=1"));
        assert_eq!(unknown.status, 400, "{path}");
        let problem: Value = serde_json::from_str(&unknown.body).unwrap();
        hold(
            &problem,
            &document["components"]["schemas"]["Problem"],
            &document,
            "problem",
        );
    }
}

#[tokio::test]
async fn csv_has_a_line_an_endpoint_and_leads_to_the_next_page() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=3 {
        agent.export(report("web", sequence)).await;
    }
    let csv = |query: &str| {
        get(
            &collector.url(&format!("/api/v1/reports{query}")),
            &[("accept", "text/csv")],
        )
    };
    let first = csv("?limit=2");
    assert!(first.header("content-type").starts_with("text/csv"));
    assert_eq!(first.body.lines().count(), 1 + 2 * 2);
    let cell = |line: usize, column: &str| {
        let mut lines = first.body.lines();
        let i = lines
            .next()
            .unwrap()
            .split(',')
            .position(|name| name == column)
            .unwrap();
        lines
            .nth(line)
            .unwrap()
            .split(',')
            .nth(i)
            .unwrap()
            .to_owned()
    };
    assert_eq!(cell(0, "host"), "web");
    assert_eq!(cell(0, "role"), "downstream");
    assert_eq!(cell(1, "role"), "upstream");
    assert_eq!(cell(3, "requests"), "5");
    assert_eq!(cell(3, "disk_usage"), "", "not measured");
    let next = first
        .header("link")
        .split(['<', '>'])
        .nth(1)
        .unwrap()
        .to_owned();
    let second = csv(&next);
    assert_eq!(second.body.lines().count(), 1 + 2);
    assert_eq!(second.header("link"), "");
}
