//! The JSON of a report is a contract: these names and shapes never change.

use monitor_proto::{json, v1};

fn report(level: v1::Level) -> v1::Report {
    let counters = v1::Counters {
        connections_opened: 3,
        connections_closed: 3,
        bytes_received: 120,
        bytes_sent: 900,
        connections_failed: Some(v1::ConnectionsFailed {
            refused: 1,
            ..Default::default()
        }),
        http: (level == v1::Level::Http).then(|| v1::HttpCounters {
            requests: 3,
            responses_by_code: [
                ("200".to_owned(), 2),
                ("2XX".to_owned(), 1),
                ("404".to_owned(), 4),
            ]
            .into(),
            exchange_duration: Some(v1::Histogram {
                count: 3,
                sum_ns: 1_200_000,
                scale: 2,
                offset: -46,
                buckets: vec![3],
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    v1::Report {
        host: Some(v1::Host {
            id: "h".into(),
            name: "n".into(),
            ..Default::default()
        }),
        agent: Some(v1::Agent {
            version: "0.1.0".into(),
            epoch: 1_763_860_000_123,
            level: level.into(),
            ..Default::default()
        }),
        sequence: 7,
        window_start_unix_ns: 1_763_860_000_000_000_000,
        window_end_unix_ns: 1_763_860_005_000_000_000,
        complete: true,
        endpoints: vec![v1::Endpoint {
            role: v1::Role::Downstream.into(),
            address: "127.0.0.1:8080".into(),
            target: "/proxy".into(),
            window: Some(counters.clone()),
            totals: Some(counters),
            totals_since_unix_ns: 1_763_860_000_000_000_000,
            ..Default::default()
        }],
        losses: [("endpoint_map_full".to_owned(), 0)].into(),
        ..Default::default()
    }
}

#[test]
fn a_report_has_the_documented_shape() {
    let value = serde_json::to_value(json::Report::from(&report(v1::Level::Http))).unwrap();
    assert_eq!(value["agent"]["epoch"], 1_763_860_000_123u64);
    assert_eq!(value["agent"]["level"], "http");
    assert_eq!(value["window_start"], "2025-11-23T01:06:40Z");
    let endpoint = &value["endpoints"][0];
    assert_eq!(endpoint["role"], "downstream");
    assert_eq!(endpoint["connections_failed"]["refused"], 1);
    assert_eq!(endpoint["bytes_received"], 120);
    assert_eq!(endpoint["requests"], 3);
    assert_eq!(
        endpoint["responses"],
        serde_json::json!({"1xx": 0, "2xx": 3, "3xx": 0, "4xx": 4, "5xx": 0})
    );
    assert_eq!(endpoint["exchange_duration"]["count"], 3);
    assert!(endpoint["exchange_duration"]["p99_ms"].as_f64().unwrap() > 0.3);
    assert_eq!(endpoint["totals"]["since"], "2025-11-23T01:06:40Z");
    assert_eq!(endpoint["totals"]["requests"], 3);
    assert_eq!(value["losses"]["endpoint_map_full"], 0);
}

#[test]
fn what_was_not_measured_is_null() {
    let value = serde_json::to_value(json::Report::from(&report(v1::Level::Tcp))).unwrap();
    let endpoint = &value["endpoints"][0];
    assert!(endpoint["requests"].is_null() && endpoint["responses"].is_null());
    assert!(endpoint["totals"]["requests"].is_null());
    assert!(value["host_metrics"]["cpu_usage"].is_null());
}

#[test]
fn a_report_survives_the_way_through_json() {
    let report = json::Report::from(&report(v1::Level::Http));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<json::Report>(&text).unwrap(), report);
}
