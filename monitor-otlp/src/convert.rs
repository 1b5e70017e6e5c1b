//! A report as requests of OTLP.

use std::ops::Range;

use monitor_proto::{figures, labels, split as splits, v1};
use prost::Message;

use crate::{
    REQUEST_BYTES_MAX,
    metrics::{Kind, Metric, Read, of_endpoints, of_hosts},
    wire::{
        self, AggregationTemporality, Buckets, Data, ExponentialHistogram,
        ExponentialHistogramDataPoint, Gauge, KeyValue, Metric as WireMetric, NumberDataPoint,
        Request, Resource, ResourceMetrics, Scope, ScopeMetrics, Sum, Value,
    },
};

/// Every sum and histogram goes on from its start.
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// The semantic conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// A whole request; several put one behind another are one request too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Encoded.
    pub body: Vec<u8>,
    /// How many points it has.
    pub points: u64,
}

/// What a report says, as of its window's end, in parts of at most
/// [`REQUEST_BYTES_MAX`] each.  Only an endpoint that is larger by itself makes
/// a larger one, which the bounds of a report rule out.
#[must_use]
pub fn parts(report: &v1::Report) -> Vec<Part> {
    let mut parts = Vec::new();
    split(report, 0..report.endpoints.len(), true, &mut parts);
    parts
}

fn split(report: &v1::Report, endpoints: Range<usize>, with_host: bool, parts: &mut Vec<Part>) {
    let mut points = Points::new(report);
    if with_host {
        points.host();
    }
    for metric in of_endpoints() {
        points.endpoints(&metric, &report.endpoints[endpoints.clone()]);
    }
    let part = points.finish();
    if part.body.len() <= REQUEST_BYTES_MAX || endpoints.len() < 2 {
        if part.points > 0 {
            parts.push(part);
        }
        return;
    }
    let middle = endpoints.start + endpoints.len() / 2;
    split(report, endpoints.start..middle, with_host, parts);
    split(report, middle..endpoints.end, false, parts);
}

/// The metrics of one request on their way.
struct Points<'a> {
    report: &'a v1::Report,
    metrics: Vec<WireMetric>,
    count: u64,
}

impl<'a> Points<'a> {
    fn new(report: &'a v1::Report) -> Self {
        Self {
            report,
            metrics: Vec::new(),
            count: 0,
        }
    }

    fn host(&mut self) {
        let report = self.report;
        let none = v1::HostMetrics::default();
        let host = report.host_metrics.as_ref().unwrap_or(&none);
        for metric in of_hosts() {
            let points = match metric.read {
                Read::HostGauge(gauge) => (gauge.figure.read)(host)
                    .map(|value| {
                        let attributes = gauge.attributes.iter();
                        let attributes = attributes.map(|(k, v)| wire::text(k, v));
                        self.number(attributes.collect(), 0, number(value))
                    })
                    .into_iter()
                    .collect(),
                Read::Cores => report
                    .host
                    .iter()
                    .map(|of| self.number(Vec::new(), 0, Value::AsDouble(of.cores.into())))
                    .collect(),
                Read::NetworkIo => self.network_io(host),
                Read::Losses => self.losses(),
                Read::Pressure => self.pressure(host),
                Read::Target(read) => self.targets(read),
                Read::NetworkNamespace(read) => self.network_namespaces(read),
                Read::Own(_) | Read::Total(_) | Read::Split(..) | Read::Histogram(..) => Vec::new(),
            };
            self.numbers(&metric, points);
        }
    }

    fn pressure(&self, host: &v1::HostMetrics) -> Vec<NumberDataPoint> {
        // Since boot, as the totals of the interfaces.
        let since = host.interfaces_since_unix_ns;
        let point = |(resource, stall, us): (&str, &str, u64)| {
            let attributes = vec![wire::text("resource", resource), wire::text("stall", stall)];
            self.number(attributes, since, Value::AsDouble(us as f64 / 1e6))
        };
        splits::pressure(host).map(point).collect()
    }

    fn targets(&self, read: fn(&v1::Target) -> Option<figures::Number>) -> Vec<NumberDataPoint> {
        let point = |target: &v1::Target| {
            let mut attributes = vec![wire::text("target", &target.path)];
            let known = labels::attributes_of_target(target);
            attributes.extend(known.map(|(k, v)| wire::text(k, v)));
            Some(self.number(attributes, 0, number(read(target)?)))
        };
        self.report.targets.iter().filter_map(point).collect()
    }

    fn network_namespaces(
        &self,
        read: fn(&v1::NetworkNamespace) -> Option<figures::Number>,
    ) -> Vec<NumberDataPoint> {
        let point = |namespace: &v1::NetworkNamespace| {
            let id = namespace.id.to_string();
            let attributes = vec![wire::text("network_namespace", &id)];
            Some(self.number(attributes, 0, number(read(namespace)?)))
        };
        let namespaces = self.report.network_namespaces.iter();
        namespaces.filter_map(point).collect()
    }

    fn losses(&self) -> Vec<NumberDataPoint> {
        let mut losses: Vec<_> = self.report.losses_totals.iter().collect();
        // A map has no order, and a replay has the same bytes.
        losses.sort_unstable();
        let since = self.report.losses_since_unix_ns;
        let point = |(reason, &n): (&String, &u64)| {
            self.number(vec![wire::text("reason", reason)], since, integer(n))
        };
        losses.into_iter().map(point).collect()
    }

    fn network_io(&self, host: &v1::HostMetrics) -> Vec<NumberDataPoint> {
        let since = host.interfaces_since_unix_ns;
        let mut points = Vec::new();
        for interface in &host.interfaces {
            for (direction, total) in [
                ("receive", interface.receive_bytes_total),
                ("transmit", interface.transmit_bytes_total),
            ] {
                let Some(total) = total else { continue };
                let attributes = vec![
                    wire::text("network.interface.name", &interface.device),
                    wire::text("network.io.direction", direction),
                ];
                points.push(self.number(attributes, since, integer(total)));
            }
        }
        points
    }

    fn endpoints(&mut self, metric: &Metric, endpoints: &[v1::Endpoint]) {
        let none = v1::Counters::default();
        let mut points = Vec::new();
        let mut histograms = Vec::new();
        for endpoint in endpoints {
            let since = endpoint.totals_since_unix_ns;
            let totals = endpoint.totals.as_ref().unwrap_or(&none);
            match metric.read {
                Read::Own(read) => {
                    let value = read(endpoint).map(number);
                    points.extend(value.map(|n| self.number(attributes(endpoint), 0, n)));
                }
                Read::Total(read) => {
                    let total = read(totals).map(number);
                    points.extend(total.map(|n| self.number(attributes(endpoint), since, n)));
                }
                Read::Split(by, read) => {
                    for (value, n) in read(totals) {
                        let mut attributes = attributes(endpoint);
                        attributes.push(wire::text(by, &value));
                        points.push(self.number(attributes, since, integer(n)));
                    }
                }
                Read::Histogram(role, read)
                    if role.is_none_or(|role| endpoint.role == i32::from(role)) =>
                {
                    let histogram = read(totals).map(|h| self.histogram(endpoint, h));
                    histograms.extend(histogram);
                }
                Read::Histogram(..)
                | Read::HostGauge(_)
                | Read::Cores
                | Read::NetworkIo
                | Read::Losses
                | Read::Pressure
                | Read::Target(_)
                | Read::NetworkNamespace(_) => {}
            }
        }
        if metric.kind == Kind::Histogram {
            let count = histograms.len();
            let data = Data::ExponentialHistogram(ExponentialHistogram {
                data_points: histograms,
                aggregation_temporality: CUMULATIVE,
            });
            self.push(metric, count, data);
        } else {
            self.numbers(metric, points);
        }
    }

    fn number(&self, attributes: Vec<KeyValue>, since: u64, value: Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.start(since),
            time_unix_nano: self.report.window_end_unix_ns,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(
        &self,
        endpoint: &v1::Endpoint,
        h: &v1::Histogram,
    ) -> ExponentialHistogramDataPoint {
        let in_buckets = h.buckets.iter().fold(0u64, |sum, &n| sum.saturating_add(n));
        let mut attributes = attributes(endpoint);
        if let Some((address, port)) = server(&endpoint.address) {
            attributes.push(wire::text("server.address", address));
            attributes.push(wire::integer("server.port", port.into()));
        }
        ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start(endpoint.totals_since_unix_ns),
            time_unix_nano: self.report.window_end_unix_ns,
            count: in_buckets,
            sum: Some(h.sum_ns as f64 / 1e9),
            scale: h.scale,
            positive: Some(Buckets {
                offset: h.offset,
                bucket_counts: h.buckets.clone(),
            }),
            ..ExponentialHistogramDataPoint::default()
        }
    }

    /// A stream of points cannot have begun after its newest one.
    fn start(&self, since: u64) -> u64 {
        since.min(self.report.window_end_unix_ns)
    }

    fn numbers(&mut self, metric: &Metric, points: Vec<NumberDataPoint>) {
        let count = points.len();
        let data = if metric.kind == Kind::Counter {
            Data::Sum(Sum {
                data_points: points,
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            })
        } else {
            Data::Gauge(Gauge {
                data_points: points,
            })
        };
        self.push(metric, count, data);
    }

    fn push(&mut self, metric: &Metric, points: usize, data: Data) {
        if points == 0 {
            return;
        }
        self.count += points as u64;
        self.metrics.push(WireMetric {
            name: metric.name.to_owned(),
            description: metric.description.to_owned(),
            unit: metric.unit.to_owned(),
            data: Some(data),
            ..WireMetric::default()
        });
    }

    fn finish(self) -> Part {
        let version = self.report.agent.as_ref().map(|a| a.version.clone());
        let request = Request {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource(self.report)),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(Scope {
                        name: "speedmimi".to_owned(),
                        version: version.unwrap_or_default(),
                        ..Scope::default()
                    }),
                    metrics: self.metrics,
                    ..ScopeMetrics::default()
                }],
                schema_url: SCHEMA_URL.to_owned(),
            }],
        };
        Part {
            body: request.encode_to_vec(),
            points: self.count,
        }
    }
}

/// What the points are about: the host.  As an instance of a service it is told
/// apart by its id, for two hosts may have one name.
fn resource(report: &v1::Report) -> Resource {
    let (host, agent) = (report.host.as_ref(), report.agent.as_ref());
    let labels = host.into_iter().flat_map(|host| &host.labels);
    let labels = labels.map(|(k, v)| (k.as_str(), v.as_str()));
    let host = |read: fn(&v1::Host) -> &str| host.map_or("", read);
    // `host_labels::RESERVED`: no label of a host is one of them.
    let known = [
        ("service.name", "speedmimi-agent"),
        ("service.instance.id", host(|h| &h.id)),
        ("service.version", agent.map_or("", |a| &a.version)),
        ("host.id", host(|h| &h.id)),
        ("host.name", host(|h| &h.name)),
        ("os.type", "linux"),
        ("os.version", host(|h| &h.kernel)),
    ];
    let known = known.into_iter().filter(|(_, value)| !value.is_empty());
    Resource {
        attributes: known.chain(labels).map(|(k, v)| wire::text(k, v)).collect(),
        ..Resource::default()
    }
}

/// The same names as the labels of `/metrics`; the host is the resource.
fn attributes(endpoint: &v1::Endpoint) -> Vec<KeyValue> {
    let known = labels::of_endpoint(endpoint).filter(|(_, value)| !value.is_empty());
    known.map(|(k, v)| wire::text(k, v)).collect()
}

/// Address and port; `None` for the overflow, which is no address.
fn server(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}

fn number(value: figures::Number) -> Value {
    match value {
        figures::Number::Integer(n) => integer(n),
        figures::Number::Float(value) => Value::AsDouble(value),
    }
}

/// OTLP's integers have a sign.
fn integer(n: u64) -> Value {
    Value::AsInt(i64::try_from(n).unwrap_or(i64::MAX))
}
