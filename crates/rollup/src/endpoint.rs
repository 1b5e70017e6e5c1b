//! An endpoint over time.

use monitor_proto::{figures::Seen, json, v1};

use super::{EndpointRoll, GaugeRoll, Rolling, duration_ns, histogram};

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

    /// The time in which what is measured there was counted; 0 where it cannot be seen.
    pub fn seen_ns(&self, seen: Seen) -> u64 {
        match seen {
            Seen::Tcp => self.covered_ns,
            Seen::Http => self.http_ns,
            Seen::Http1 if self.http1_is_seen() => self.http_ns,
            Seen::Http1 => 0,
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
        self.count_plain(w);
        let failed = w.connections_failed.as_ref();
        self.connections_failed =
            failed.map_or(0, |failed| json::ConnectionsFailed::from(failed).total());
        self.connect_duration = w.connect_duration.clone().unwrap_or_default();
        if let Some(http) = &w.http {
            self.http_ns = self.covered_ns;
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
            self.later = other.later;
        } else if other.covered_ns > 0 {
            self.later.add(&other.later);
        }
        let sums = [
            (&mut self.covered_ns, other.covered_ns),
            (&mut self.http_ns, other.http_ns),
            (&mut self.incomplete, other.incomplete),
            (&mut self.connections_failed, other.connections_failed),
            (&mut self.responses_1xx, other.responses_1xx),
            (&mut self.responses_2xx, other.responses_2xx),
            (&mut self.responses_3xx, other.responses_3xx),
            (&mut self.responses_4xx, other.responses_4xx),
            (&mut self.responses_5xx, other.responses_5xx),
        ];
        for (sum, n) in sums {
            *sum = sum.saturating_add(n);
        }
        for (sum, n) in self.zip_plain(other) {
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
