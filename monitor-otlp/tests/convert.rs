//! Requests, read by the types of the official Protocol Buffers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use monitor_otlp::{Part, REQUEST_BYTES_MAX, parts};
use monitor_proto::{host_labels, v1};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
};
use prost::Message;

fn report(endpoints: usize) -> v1::Report {
    let totals = v1::Counters {
        connections_opened: 12,
        bytes_sent: u64::MAX,
        connections_failed: Some(v1::ConnectionsFailed {
            refused: 3,
            ..Default::default()
        }),
        http: Some(v1::HttpCounters {
            requests: 5,
            requests_by_method: [("GET".to_owned(), 3)].into(),
            responses_by_code: [("200".to_owned(), 4), ("503".to_owned(), 1)].into(),
            exchange_duration: Some(v1::Histogram {
                count: 4,
                sum_ns: 3_000_000,
                scale: 2,
                offset: -41,
                buckets: vec![1, 2, 0, 0, 1],
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let endpoint = |n: usize| v1::Endpoint {
        role: if n == 0 {
            v1::Role::Downstream
        } else {
            v1::Role::Upstream
        }
        .into(),
        address: format!("[::1]:{}", 8_080 + n),
        target: "/p".into(),
        backend: "b1".into(),
        connections_active: 2,
        totals: Some(totals.clone()),
        totals_since_unix_ns: 500,
        ..Default::default()
    };
    v1::Report {
        host: Some(v1::Host {
            id: "id-1".into(),
            name: "web".into(),
            kernel: "6.18".into(),
            labels: [("region".into(), "north".into())].into(),
            ..Default::default()
        }),
        agent: Some(v1::Agent {
            version: "0.1.0".into(),
            ..Default::default()
        }),
        window_end_unix_ns: 1_000,
        host_metrics: Some(v1::HostMetrics {
            cpu_usage: Some(v1::Gauge {
                last: 50.0,
                ..Default::default()
            }),
            interfaces: vec![v1::NetworkInterface {
                device: "eth0".into(),
                receive_bytes: 1,
                receive_bytes_total: Some(70),
                transmit_bytes_total: Some(80),
                ..Default::default()
            }],
            interfaces_since_unix_ns: 100,
            ..Default::default()
        }),
        endpoints: (0..endpoints).map(endpoint).collect(),
        losses_totals: [
            ("b".to_owned(), 2),
            ("a".to_owned(), 1),
            ("c".to_owned(), 3),
        ]
        .into(),
        // A clock that was set back.
        losses_since_unix_ns: 2_000,
        ..Default::default()
    }
}

fn decode(parts: &[Part]) -> ExportMetricsServiceRequest {
    let joined: Vec<u8> = parts.iter().flat_map(|part| part.body.clone()).collect();
    ExportMetricsServiceRequest::decode(&*joined).unwrap()
}

fn all(request: &ExportMetricsServiceRequest) -> Vec<&Metric> {
    let resources = request.resource_metrics.iter();
    let scopes = resources.flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics).collect()
}

fn texts(attributes: &[KeyValue]) -> Vec<(&str, String)> {
    let text = |kv: &KeyValue| match kv.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(n) => n.to_string(),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|kv| (kv.key.as_str(), text(kv)))
        .collect()
}

/// A sum's points: value, start, and the last attribute's value.
fn sum(request: &ExportMetricsServiceRequest, name: &str) -> Vec<(i64, u64, String)> {
    let metric = all(request).into_iter().find(|m| m.name == name).unwrap();
    let Some(Data::Sum(sum)) = &metric.data else {
        panic!("{name} is no sum");
    };
    assert!(sum.is_monotonic);
    assert_eq!(sum.aggregation_temporality, 2, "cumulative");
    let point = |p: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        assert_eq!(p.time_unix_nano, 1_000);
        let Some(number_data_point::Value::AsInt(value)) = p.value else {
            panic!("{name} is no integer");
        };
        let last = texts(&p.attributes).pop().unwrap().1;
        (value, p.start_time_unix_nano, last)
    };
    sum.data_points.iter().map(point).collect()
}

#[test]
fn totals_are_cumulative_sums_that_know_when_they_began() {
    let request = decode(&parts(&report(1)));
    let owned = |(n, since, last): (i64, u64, &str)| (n, since, last.to_owned());
    assert_eq!(
        sum(&request, "speedmimi.connections.opened"),
        [owned((12, 500, "b1"))]
    );
    assert_eq!(
        sum(&request, "speedmimi.bytes.sent"),
        [owned((i64::MAX, 500, "b1"))]
    );
    assert_eq!(
        sum(&request, "speedmimi.requests"),
        [(3, 500, "GET"), (2, 500, "_OTHER")].map(owned)
    );
    assert_eq!(
        sum(&request, "speedmimi.losses"),
        [(1, 1_000, "a"), (2, 1_000, "b"), (3, 1_000, "c")].map(owned)
    );
    assert_eq!(
        sum(&request, "system.network.io"),
        [(70, 100, "receive"), (80, 100, "transmit")].map(owned)
    );
}

#[test]
fn round_trips_are_gauges_of_the_endpoints_where_any_was_seen() {
    let mut report = report(2);
    report.endpoints[1].srtt = Some(v1::RoundTripTime {
        samples: 3,
        min_us: 90,
        mean_us: 1_500,
        max_us: 2_000_000,
    });
    let request = decode(&parts(&report));
    for (name, unit, value) in [
        ("speedmimi.srtt.samples", "{sample}", 3.0),
        ("speedmimi.srtt.min", "s", 0.000_09),
        ("speedmimi.srtt.mean", "s", 0.001_5),
        ("speedmimi.srtt.max", "s", 2.0),
    ] {
        let metric = all(&request).into_iter().find(|m| m.name == name).unwrap();
        let Some(Data::Gauge(gauge)) = &metric.data else {
            panic!("{name} is no gauge");
        };
        let [point] = &gauge.data_points[..] else {
            panic!("{name} is of the endpoint without round trips too");
        };
        let measured = number_data_point::Value::AsDouble(value);
        assert_eq!((metric.unit.as_str(), point.value), (unit, Some(measured)));
        assert!(texts(&point.attributes).contains(&("role", "upstream".to_owned())));
    }
}

#[test]
fn accept_queues_are_of_the_listeners_whose_queue_is_known() {
    let mut report = report(2);
    report.endpoints[0].accept_queue = Some(v1::AcceptQueue {
        listener: "0.0.0.0:8080".to_owned(),
        connections: 3,
        connections_max: 129,
        limit: 128,
        drops: 2,
        drops_total: 7,
    });
    let request = decode(&parts(&report));
    let of = |name: &str| {
        let metric = all(&request).into_iter().find(|m| m.name == name).unwrap();
        let (points, is_sum) = match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => (&gauge.data_points, false),
            Data::Sum(sum) => (&sum.data_points, sum.is_monotonic),
            other => panic!("{other:?}"),
        };
        let [point] = &points[..] else {
            panic!("{name} is of who has no queue too");
        };
        assert!(texts(&point.attributes).contains(&("role", "downstream".to_owned())));
        let Some(number_data_point::Value::AsInt(value)) = point.value else {
            panic!("{point:?}");
        };
        (value, is_sum, metric.unit.clone())
    };
    let connection = || "{connection}".to_owned();
    for (name, value, is_sum, unit) in [
        ("connections", 3, false, connection()),
        ("connections.max", 129, false, connection()),
        ("limit", 128, false, connection()),
        ("drops", 7, true, "{packet}".to_owned()),
    ] {
        assert_eq!(
            of(&format!("speedmimi.accept_queue.{name}")),
            (value, is_sum, unit)
        );
    }
}

#[test]
fn durations_are_exponential_histograms_under_the_conventions_names() {
    let request = decode(&parts(&report(2)));
    for (name, port) in [
        ("http.server.request.duration", "8080"),
        ("http.client.request.duration", "8081"),
    ] {
        let metric = all(&request).into_iter().find(|m| m.name == name).unwrap();
        assert_eq!(metric.unit, "s");
        let Some(Data::ExponentialHistogram(histogram)) = &metric.data else {
            panic!("{name} is no exponential histogram");
        };
        assert_eq!(histogram.aggregation_temporality, 2);
        assert_eq!(histogram.data_points.len(), 1);
        let point = &histogram.data_points[0];
        let buckets = point.positive.as_ref().unwrap();
        assert_eq!((point.scale, point.count, point.zero_count), (2, 4, 0));
        assert_eq!(point.sum, Some(0.003));
        assert_eq!(
            (buckets.offset, &*buckets.bucket_counts),
            (-41, &[1, 2, 0, 0, 1][..])
        );
        let attributes = texts(&point.attributes);
        assert!(attributes.contains(&("server.address", "::1".to_owned())));
        assert!(attributes.contains(&("server.port", port.to_owned())));
    }
}

#[test]
fn the_resource_is_the_host() {
    let request = decode(&parts(&report(0)));
    assert_eq!(request.resource_metrics.len(), 1);
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let expected = [
        ("service.name", "speedmimi-agent"),
        ("service.instance.id", "id-1"),
        ("service.version", "0.1.0"),
        ("host.id", "id-1"),
        ("host.name", "web"),
        ("os.type", "linux"),
        ("os.version", "6.18"),
        ("region", "north"),
    ];
    assert_eq!(
        texts(&resource.attributes),
        expected.map(|(k, v)| (k, v.to_owned()))
    );
    let mut own = expected[..7].iter().map(|(k, _)| *k).collect::<Vec<_>>();
    own.sort_unstable();
    assert_eq!(own, host_labels::RESERVED);
}

#[test]
fn a_replay_is_byte_identical() {
    // Maps in a new process, or a new map, have another order.
    assert_eq!(parts(&report(3)), parts(&report(3)));
}

#[test]
fn the_points_are_counted_and_a_level_without_http_has_none_of_it() {
    let mut report = report(2);
    let count = |request: &ExportMetricsServiceRequest| -> u64 {
        let points = |metric: &Metric| match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => gauge.data_points.len(),
            Data::Sum(sum) => sum.data_points.len(),
            Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
            other => panic!("{other:?}"),
        };
        all(request).into_iter().map(|m| points(m) as u64).sum()
    };
    let with_http = parts(&report);
    assert_eq!(with_http[0].points, count(&decode(&with_http)));
    for endpoint in &mut report.endpoints {
        endpoint.totals.as_mut().unwrap().http = None;
    }
    let without = parts(&report);
    let request = decode(&without);
    assert_eq!(without[0].points, count(&request));
    assert!(without[0].points < with_http[0].points);
    for metric in all(&request) {
        assert!(!metric.name.contains("request") && !metric.name.contains("response"));
    }
    assert_eq!(parts(&v1::Report::default()), [], "nothing is no request");
}

#[test]
fn a_large_report_is_split_and_says_everything_once() {
    let report = report(1_500);
    let parts = parts(&report);
    assert!(parts.len() > 1);
    assert!(
        parts
            .iter()
            .all(|part| part.body.len() <= REQUEST_BYTES_MAX)
    );
    let request = decode(&parts);
    let endpoints: usize = all(&request)
        .into_iter()
        .filter(|m| m.name == "speedmimi.connections.opened")
        .map(|m| match &m.data {
            Some(Data::Sum(sum)) => sum.data_points.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(endpoints, 1_500);
    let cpu = all(&request)
        .into_iter()
        .filter(|m| m.name == "system.cpu.utilization");
    assert_eq!(cpu.count(), 1);
}
