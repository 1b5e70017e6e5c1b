//! The request of a report: the messages of remote write 1.0
//! (`prometheus.WriteRequest`), in snappy's block format.

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

#[derive(Clone, PartialEq, Message)]
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
        let others = labels.0.iter().map(|(name, value)| (*name, value.as_str()));
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

/// The body of a report's request.
pub(super) fn encode(report: v1::Report) -> Vec<u8> {
    let end_ms = report.window_end_unix_ns / 1_000_000;
    let mut series = Series {
        timestamp_ms: i64::try_from(end_ms).unwrap_or(i64::MAX),
        all: Vec::new(),
    };
    write_report(&mut series, report);
    let request = WriteRequest {
        timeseries: series.all,
    };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .expect("a request is far below the 4 GiB that snappy takes")
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
        let body = encode(report());
        assert_eq!(body, encode(report()));
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
}
