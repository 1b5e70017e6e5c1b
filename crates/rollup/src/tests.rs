//! Roll-ups keep what was counted.

use monitor_proto::v1;

use super::{Bucket, EndpointId, EndpointRoll, Rolling as _, Rolls};

fn report(end_s: u64, requests: u64, cpu: f64) -> v1::Report {
    let end = end_s * 1_000_000_000;
    v1::Report {
        window_start_unix_ns: end - 5_000_000_000,
        window_end_unix_ns: end,
        complete: end_s != 70,
        host_metrics: Some(v1::HostMetrics {
            cpu_usage: Some(v1::Gauge {
                last: 0.0,
                min: cpu - 1.0,
                mean: cpu,
                max: cpu + 1.0,
            }),
            ..Default::default()
        }),
        endpoints: vec![v1::Endpoint {
            window: Some(v1::Counters {
                bytes_sent: u64::MAX / 2,
                http: Some(v1::HttpCounters {
                    requests,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn a_window_that_ends_on_a_boundary_belongs_before_it() {
    let start = |end_s| Bucket::of(&report(end_s, 0, 0.0), 60).start_s;
    assert_eq!((start(119), start(120), start(121)), (60, 60, 120));
}

#[test]
fn sums_and_means_are_those_of_the_windows() {
    let mut rolls = Rolls::default();
    for (end_s, requests, cpu) in [
        (65, 10, 10.0),
        (70, 20, 40.0),
        (75, 30, 10.0),
        (125, 7, 1.0),
    ] {
        rolls.add(1, &report(end_s, requests, cpu));
    }
    let id = EndpointId::from(&v1::Endpoint::default());
    let bucket = Bucket {
        tier_s: 60,
        start_s: 60,
    };
    let endpoint = &rolls.endpoints[&(1, id.clone(), bucket)];
    assert_eq!(endpoint.requests, 60);
    assert_eq!(endpoint.covered_ns, 15_000_000_000);
    assert_eq!(endpoint.http_ns, endpoint.covered_ns);
    assert_eq!(endpoint.incomplete, 1);
    assert_eq!(endpoint.bytes_sent, u64::MAX, "saturates, never wraps");
    let cpu = rolls.hosts[&(1, bucket)].gauges[0];
    assert!((cpu.mean - 20.0).abs() < 1e-9);
    assert!((cpu.min - 9.0).abs() < 1e-9 && (cpu.max - 41.0).abs() < 1e-9);
    let hour = Bucket {
        tier_s: 3600,
        start_s: 0,
    };
    assert_eq!(rolls.endpoints[&(1, id, hour)].requests, 67);
    assert_eq!(
        rolls.hosts[&(1, hour)].gauges[1].measured_ns,
        0,
        "not measured"
    );
}

#[test]
fn what_an_earlier_version_did_not_sum_stays_unknown() {
    let window = |packets_sent, pipelined| {
        let mut report = report(65, 1, 0.0);
        let counters = report.endpoints[0].window.as_mut().unwrap();
        counters.packets_sent = packets_sent;
        counters.http.as_mut().unwrap().pipelined = pipelined;
        EndpointRoll::new(&report.endpoints[0], &report)
    };
    let mut sum = EndpointRoll::default();
    sum.add(&window(3, 1));
    sum.add(&window(4, 2));
    sum.add(&EndpointRoll::default());
    let seen = |roll: &EndpointRoll| (roll.later.packets_sent, roll.later.pipelined);
    assert_eq!(seen(&sum), (Some(7), Some(3)));
    let mut earlier = window(5, 4);
    earlier.later.packets_sent = None;
    sum.add(&earlier);
    assert_eq!(seen(&sum), (None, Some(7)));
    earlier.add(&window(6, 1));
    assert_eq!(seen(&earlier), (None, Some(5)));
}
