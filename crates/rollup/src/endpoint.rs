//! An endpoint over time.

use monitor_proto::{json, v1};

use super::{GaugeRoll, OtherCounters, Rolling, duration_ns, histogram};

/// An endpoint in one bucket: the sums of its windows.  The tags are those of its
/// form on disk: one that was used is not used again for anything else.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndpointRoll {
    /// The time that its windows cover.
    #[prost(uint64, tag = "1")]
    pub covered_ns: u64,
    /// The part of it in which HTTP was counted.
    #[prost(uint64, tag = "2")]
    pub http_ns: u64,
    /// Reports that were not complete.
    #[prost(uint64, tag = "3")]
    pub incomplete: u64,
    /// As each window's end had it.
    #[prost(message, required, tag = "4")]
    pub active: GaugeRoll,
    #[prost(uint64, tag = "5")]
    pub connections_opened: u64,
    #[prost(uint64, tag = "6")]
    pub connections_failed: u64,
    #[prost(uint64, tag = "7")]
    pub connections_closed: u64,
    #[prost(uint64, tag = "8")]
    pub bytes_received: u64,
    #[prost(uint64, tag = "9")]
    pub bytes_sent: u64,
    #[prost(uint64, tag = "10")]
    pub retransmits: u64,
    #[prost(uint64, tag = "11")]
    pub requests: u64,
    #[prost(uint64, tag = "12")]
    pub exchanges: u64,
    #[prost(uint64, tag = "13")]
    pub responses_1xx: u64,
    #[prost(uint64, tag = "14")]
    pub responses_2xx: u64,
    #[prost(uint64, tag = "15")]
    pub responses_3xx: u64,
    #[prost(uint64, tag = "16")]
    pub responses_4xx: u64,
    #[prost(uint64, tag = "17")]
    pub responses_5xx: u64,
    #[prost(message, required, tag = "18")]
    pub exchange_duration: v1::Histogram,
    #[prost(message, required, tag = "19")]
    pub connect_duration: v1::Histogram,
    #[prost(message, required, tag = "20")]
    pub other: OtherCounters,
}

impl EndpointRoll {
    /// One window.
    pub fn new(endpoint: &v1::Endpoint, report: &v1::Report) -> Self {
        let covered_ns = duration_ns(report);
        let active = endpoint.connections_active as f64;
        let mut roll = Self {
            covered_ns,
            incomplete: u64::from(!report.complete),
            active: GaugeRoll {
                min: active,
                mean: active,
                max: active,
                measured_ns: covered_ns,
            },
            ..Self::default()
        };
        let window = endpoint.window.as_ref();
        roll.other = window.map(OtherCounters::of).unwrap_or_default();
        if let Some(window) = window {
            roll.count(window);
        }
        roll
    }

    /// Without the histograms that a metric is not made of: they are most of it.
    pub fn only(mut self, metric: &str) -> Self {
        if !metric.starts_with("exchange_duration") {
            self.exchange_duration = v1::Histogram::default();
        }
        if !metric.starts_with("connect_duration") {
            self.connect_duration = v1::Histogram::default();
        }
        self
    }

    /// The time in which requests and responses were counted.
    pub fn http1_ns(&self) -> u64 {
        if self.http1_is_seen() {
            self.http_ns
        } else {
            0
        }
    }

    /// Whether requests and responses can be seen in it, as `protocol::seen` has it of
    /// one window: where there were exchanges of streams that are not HTTP/1 alone,
    /// nobody knows how many they held.
    fn http1_is_seen(&self) -> bool {
        let responses = [
            self.responses_1xx,
            self.responses_2xx,
            self.responses_3xx,
            self.responses_4xx,
            self.responses_5xx,
        ];
        self.exchanges == 0 || self.requests > 0 || responses != [0; 5]
    }

    fn count(&mut self, w: &v1::Counters) {
        self.connections_opened = w.connections_opened;
        let failed = w.connections_failed.as_ref();
        self.connections_failed =
            failed.map_or(0, |failed| json::ConnectionsFailed::from(failed).total());
        self.connections_closed = w.connections_closed;
        self.bytes_received = w.bytes_received;
        self.bytes_sent = w.bytes_sent;
        self.retransmits = w.retransmits;
        self.connect_duration = w.connect_duration.clone().unwrap_or_default();
        if let Some(http) = &w.http {
            self.http_ns = self.covered_ns;
            self.requests = http.requests;
            self.exchanges = http.exchanges;
            let r = json::Responses::from_codes(&http.responses_by_code);
            self.responses_1xx = r.informational;
            self.responses_2xx = r.successful;
            self.responses_3xx = r.redirection;
            self.responses_4xx = r.client_error;
            self.responses_5xx = r.server_error;
            self.exchange_duration = http.exchange_duration.clone().unwrap_or_default();
        }
    }
}

impl Rolling for EndpointRoll {
    fn add(&mut self, other: &Self) {
        // What covers no time holds nothing, and makes nothing unknown.
        if self.covered_ns == 0 {
            self.other = other.other;
        } else if other.covered_ns > 0 {
            self.other.add(&other.other);
        }
        let sums = [
            (&mut self.covered_ns, other.covered_ns),
            (&mut self.http_ns, other.http_ns),
            (&mut self.incomplete, other.incomplete),
            (&mut self.connections_opened, other.connections_opened),
            (&mut self.connections_failed, other.connections_failed),
            (&mut self.connections_closed, other.connections_closed),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.retransmits, other.retransmits),
            (&mut self.requests, other.requests),
            (&mut self.exchanges, other.exchanges),
            (&mut self.responses_1xx, other.responses_1xx),
            (&mut self.responses_2xx, other.responses_2xx),
            (&mut self.responses_3xx, other.responses_3xx),
            (&mut self.responses_4xx, other.responses_4xx),
            (&mut self.responses_5xx, other.responses_5xx),
        ];
        for (sum, n) in sums {
            *sum = sum.saturating_add(n);
        }
        self.active.merge(&other.active);
        histogram::merge(&mut self.exchange_duration, &other.exchange_duration);
        histogram::merge(&mut self.connect_duration, &other.connect_duration);
    }

    fn heap_bytes(&self) -> usize {
        let buckets =
            self.exchange_duration.buckets.capacity() + self.connect_duration.buckets.capacity();
        buckets * size_of::<u64>()
    }
}
