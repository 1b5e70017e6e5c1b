//! Reports that say everything.
#![allow(unreachable_pub, reason = "a fixture of several tests")]

use monitor_proto::{figures::COUNTERS, v1};

use crate::common::report;

/// A report with something of everything that is sent.
pub fn full(host: &str, sequence: u64) -> v1::Report {
    let mut report = report(host, sequence);
    let metrics = report.host_metrics.as_mut().unwrap();
    let gauge = |last| {
        Some(v1::Gauge {
            last,
            ..Default::default()
        })
    };
    metrics.disk_usage = gauge(50.0);
    metrics.load_avg_5 = gauge(0.25);
    metrics.load_avg_15 = gauge(0.125);
    metrics.network_in = gauge(1_024.0);
    metrics.network_out = gauge(2_048.0);
    metrics.interfaces_since_unix_ns = 1_763_000_000_000_000_000;
    metrics.interfaces = vec![v1::NetworkInterface {
        device: "eth0".into(),
        receive_bytes_total: Some(100 * sequence),
        transmit_bytes_total: Some(200 * sequence),
        ..Default::default()
    }];
    metrics.pressure = vec![v1::Pressure {
        resource: "io".into(),
        some_total_us: 500_000 * sequence,
        full_total_us: 250_000 * sequence,
        ..Default::default()
    }];
    // In seconds, these too are exact.
    report.targets = vec![v1::Target {
        path: "/proxy".into(),
        unit: "proxy.service".into(),
        container: "4f1b".into(),
        container_name: "web-1".into(),
        pod: "web-7c".into(),
        namespace: "shop".into(),
        memory_bytes: Some(4_096 * sequence),
        memory_limit_bytes: Some(1 << 30),
        cpu_usage_us_total: Some(1_500_000 * sequence),
        throttled_us_total: Some(125_000 * sequence),
        throttled_periods_total: Some(sequence),
        ..Default::default()
    }];
    report.network_namespaces = vec![v1::NetworkNamespace {
        id: 4_026_531_840,
        listen_overflows_total: Some(sequence),
        listen_drops_total: Some(2 * sequence),
        attempt_fails_total: Some(3 * sequence),
        syncookies_failed_total: Some(4 * sequence),
        ..Default::default()
    }];
    report.losses_totals = [("samples_dropped".to_owned(), sequence)].into();
    report.losses_since_unix_ns = 1_763_860_000_000_000_000;
    for endpoint in &mut report.endpoints {
        // In seconds, they are exact in floats.
        endpoint.srtt = Some(v1::RoundTripTime {
            samples: 2,
            min_us: 15_625,
            mean_us: 31_250,
            max_us: 46_875,
        });
        endpoint.accept_queue = Some(v1::AcceptQueue {
            listener: "0.0.0.0:80".to_owned(),
            connections: 3,
            connections_max: 9,
            limit: 128,
            drops: 1,
            drops_total: sequence,
        });
        let totals = endpoint.totals.as_mut().unwrap();
        totals.connections_failed = Some(v1::ConnectionsFailed {
            refused: sequence,
            ..Default::default()
        });
        for (n, counter) in (1..).zip(COUNTERS) {
            let place = (counter.place)(totals);
            if *place == 0 {
                *place = n * sequence;
            }
        }
        let http = totals.http.as_mut().unwrap();
        http.tls_handshake_duration = http.exchange_duration.clone();
        totals.connect_duration = http.exchange_duration.clone();
    }
    report
}
