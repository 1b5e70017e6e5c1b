//! Reports that no agent sends.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

use monitor_proto::v1;
use problems::{HostJudge, Problem, Thresholds};
use proptest::prelude::*;

fn counters() -> impl Strategy<Value = v1::Counters> {
    let some = prop::collection::vec(any::<u64>(), 8);
    let buckets = prop::collection::vec(any::<u64>(), 0..600);
    (some, buckets, any::<i32>(), any::<i32>()).prop_map(|(n, buckets, scale, offset)| {
        v1::Counters {
            connections_opened: n[0],
            connections_established: n[1],
            packets_sent: n[2],
            retransmits: n[3],
            connections_failed: Some(v1::ConnectionsFailed {
                refused: n[4],
                other: n[4],
                ..v1::ConnectionsFailed::default()
            }),
            http: Some(v1::HttpCounters {
                requests: n[5],
                requests_without_response: n[6],
                responses_by_code: [("5".to_owned(), n[7]), (String::new(), n[0])].into(),
                exchange_duration: Some(v1::Histogram {
                    scale,
                    offset,
                    buckets,
                    ..v1::Histogram::default()
                }),
                ..v1::HttpCounters::default()
            }),
            ..v1::Counters::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_report_holds_the_judgement_holds(
        windows in prop::collection::vec(
            (any::<u64>(), any::<u64>(), any::<f64>(), any::<u64>(), prop::collection::vec(counters(), 0..5)),
            1..8,
        ),
    ) {
        let run = || {
            let mut judge = HostJudge::default();
            let mut told = Vec::new();
            for (start, end, gauge, count, counters) in &windows {
                let endpoints = counters.iter().enumerate().map(|(n, counters)| v1::Endpoint {
                    role: n as i32,
                    address: format!("{}", n % 3),
                    upstream: "u".to_owned(),
                    window: Some(counters.clone()),
                    srtt: Some(v1::RoundTripTime { samples: *count, mean_us: *end, ..Default::default() }),
                    ..v1::Endpoint::default()
                });
                let report = v1::Report {
                    window_start_unix_ns: *start,
                    window_end_unix_ns: *end,
                    window_duration_ns: *count,
                    endpoints: endpoints.collect(),
                    host_metrics: Some(v1::HostMetrics {
                        cpu_usage: Some(v1::Gauge { mean: *gauge, ..Default::default() }),
                        ..Default::default()
                    }),
                    losses: [("x".to_owned(), *count), ("y".to_owned(), *end)].into(),
                    ..v1::Report::default()
                };
                judge.observe(&report, Some(*end), &Thresholds::default());
                told.push(judge.problems());
            }
            told
        };
        let told = run();
        prop_assert_eq!(&told, &run(), "the same reports tell the same");
        for problem in told.iter().flatten() {
            let json = serde_json::to_string(problem).unwrap();
            let read: Problem = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read.kind, &problem.kind);
            prop_assert!(!problem.summary.is_empty());
        }
    }
}
