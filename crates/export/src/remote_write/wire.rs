//! The request of a report: the messages of remote write 1.0
//! (`prometheus.WriteRequest`), in snappy's block format.

use std::collections::HashSet;

use monitor_proto::v1;
use prost::Message;

use crate::metrics::{Labels, Sink, Value, write_report};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// Takes samples as series of one point each.
struct Series {
    timestamp_ms: i64,
    all: Vec<TimeSeries>,
}

impl Sink for Series {
    fn sample(
        &mut self,
        name: &str,
        labels: &Labels,
        more: Option<(&'static str, &str)>,
        value: Value,
    ) {
        let value = match value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
        };
        let named = std::iter::once(("__name__", name));
        // A label without a value is one that is not there.
        let others = labels
            .0
            .iter()
            .map(|(name, value)| (&**name, value.as_str()));
        let others = others.chain(more);
        let mut labels: Vec<Label> = named
            .chain(others.filter(|(_, value)| !value.is_empty()))
            .map(|(name, value)| Label {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        self.all.push(TimeSeries {
            labels,
            samples: vec![Sample {
                value,
                timestamp_ms: self.timestamp_ms,
            }],
        });
    }
}

/// The value that ends a series for Prometheus (`model/value`, `StaleNaN`): without
/// it one that was renamed counts beside its new name for five minutes.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

fn end_ms(report: &v1::Report) -> i64 {
    i64::try_from(report.window_end_unix_ns / 1_000_000).unwrap_or(i64::MAX)
}

/// The series of a report, at its window's end.
fn series(report: v1::Report) -> Vec<TimeSeries> {
    let mut series = Series {
        timestamp_ms: end_ms(&report),
        all: Vec::new(),
    };
    write_report(&mut series, report);
    series.all
}

/// Ends a series.
fn stale(mut series: TimeSeries, timestamp_ms: i64) -> TimeSeries {
    series.samples = vec![Sample {
        value: STALE,
        timestamp_ms,
    }];
    series
}

fn compressed(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let request = WriteRequest { timeseries };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .expect("a request is far below the 4 GiB that snappy takes")
}

/// The body of a report's request: its series, and the ends of those that the
/// report before it had and this one has not.
pub(super) fn encode(report: v1::Report, before: Option<v1::Report>) -> Vec<u8> {
    let end_ms = end_ms(&report);
    let mut all = series(report);
    let before = before.map_or_else(Vec::new, series);
    let ended: Vec<TimeSeries> = {
        let known: HashSet<&[Label]> = all.iter().map(|one| one.labels.as_slice()).collect();
        let ended = before
            .into_iter()
            .filter(|one| !known.contains(one.labels.as_slice()));
        ended.map(|one| stale(one, end_ms)).collect()
    };
    all.extend(ended);
    compressed(all)
}

/// The body of the request that ends all series of a host: right after its last
/// report, so that reports which come later are newer still.
pub(super) fn encode_end(last: v1::Report) -> Vec<u8> {
    let after_ms = end_ms(&last).saturating_add(1);
    let all = series(last).into_iter();
    compressed(all.map(|one| stale(one, after_ms)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> v1::Report {
        v1::Report {
            host: Some(v1::Host {
                id: "id".into(),
                name: "web".into(),
                ..Default::default()
            }),
            window_end_unix_ns: 1_763_860_000_123_456_789,
            endpoints: vec![v1::Endpoint {
                address: "127.0.0.1:80".into(),
                totals: Some(v1::Counters {
                    connections_opened: 7,
                    http: Some(v1::HttpCounters::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            losses_totals: [("a".to_owned(), 1), ("b".to_owned(), 2)].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_replay_is_byte_identical_and_its_labels_are_sorted() {
        let body = encode(report(), None);
        assert_eq!(body, encode(report(), None));
        let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let request = WriteRequest::decode(plain.as_slice()).unwrap();
        let text = |label: &Label| (label.name.clone(), label.value.clone());
        let opened = request
            .timeseries
            .iter()
            .find(|s| {
                s.labels
                    .iter()
                    .any(|l| l.value == "speedmimi_connections_opened_total")
            })
            .unwrap();
        assert_eq!(opened.samples[0].timestamp_ms, 1_763_860_000_123);
        assert!((opened.samples[0].value - 7.0).abs() < f64::EPSILON);
        for series in &request.timeseries {
            let labels: Vec<_> = series.labels.iter().map(text).collect();
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
            assert!(labels.iter().all(|(_, value)| !value.is_empty()));
        }
    }

    fn decoded(body: &[u8]) -> Vec<TimeSeries> {
        let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        WriteRequest::decode(plain.as_slice()).unwrap().timeseries
    }

    fn is_stale(series: &TimeSeries) -> bool {
        series.samples[0].value.to_bits() == STALE.to_bits()
    }

    fn has(series: &TimeSeries, value: &str) -> bool {
        series.labels.iter().any(|label| label.value == value)
    }

    #[test]
    fn series_that_are_gone_end_and_a_replay_is_byte_identical() {
        let named = |upstream: &str, addresses: &[&str]| {
            let mut report = report();
            let endpoint = report.endpoints.remove(0);
            report.endpoints = addresses
                .iter()
                .map(|&address| v1::Endpoint {
                    address: address.into(),
                    upstream: upstream.into(),
                    ..endpoint.clone()
                })
                .collect();
            report
        };
        let renamed = || encode(named("new", &[":1"]), Some(named("old", &[":1"])));
        assert_eq!(renamed(), renamed());
        let (ended, going): (Vec<_>, Vec<_>) = decoded(&renamed()).into_iter().partition(is_stale);
        assert!(!ended.is_empty() && ended.iter().all(|one| has(one, "old")));
        assert!(!going.iter().any(|one| has(one, "old")));
        assert_eq!(ended[0].samples[0].timestamp_ms, 1_763_860_000_123);

        let gone = decoded(&encode(
            named("u", &[":1"]),
            Some(named("u", &[":1", ":2"])),
        ));
        assert!(gone.iter().all(|one| is_stale(one) == has(one, ":2")));
        let same = decoded(&encode(named("u", &[":1"]), Some(named("u", &[":1"]))));
        assert!(!same.iter().any(is_stale));
    }

    #[test]
    fn a_silent_host_ends_right_after_its_last_report() {
        let all = decoded(&encode(report(), None));
        let ends = decoded(&encode_end(report()));
        assert_eq!(all.len(), ends.len());
        for (one, end) in all.iter().zip(&ends) {
            assert!(is_stale(end) && one.labels == end.labels);
            assert_eq!(end.samples[0].timestamp_ms, one.samples[0].timestamp_ms + 1);
        }
    }
}
