//! The counters of an endpoint, of a window or in total.

#![allow(
    clippy::doc_markdown,
    reason = "the comments of counters are the help that everybody reads"
)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{histogram, protocol, v1};

include!("../generated/counters.rs");

/// Responses by class of their status code.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Responses {
    /// 100 to 199; interim, so a request may have several.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    pub successful: u64,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 500 to 599.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// A histogram of durations with its quantiles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Histogram {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// The median; `null` where there is no value.
    pub p50_ms: Option<f64>,
    /// 90 % lie below.
    pub p90_ms: Option<f64>,
    /// 99 % lie below.
    pub p99_ms: Option<f64>,
    /// 2^scale buckets per octave.
    pub scale: i32,
    /// The index of the first bucket.
    pub offset: i32,
    /// The counts; empty buckets at both ends are left out.
    pub buckets: Vec<u64>,
}

impl From<&v1::Histogram> for Histogram {
    fn from(h: &v1::Histogram) -> Self {
        let quantile_ms = |q| histogram::quantile_seconds(h, q).map(|s| s * 1e3);
        Self {
            count: h.count,
            sum_ns: h.sum_ns,
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p99_ms: quantile_ms(0.99),
            scale: h.scale,
            offset: h.offset,
            buckets: h.buckets.clone(),
        }
    }
}

impl Responses {
    /// Sums codes ("200") and class remainders ("2XX") by their first digit.
    #[must_use]
    pub fn from_codes(codes: &BTreeMap<String, u64>) -> Self {
        let mut sums = Self::default();
        for (code, &n) in codes {
            let class = match code.as_bytes().first() {
                Some(b'1') => &mut sums.informational,
                Some(b'2') => &mut sums.successful,
                Some(b'3') => &mut sums.redirection,
                Some(b'4') => &mut sums.client_error,
                Some(b'5') => &mut sums.server_error,
                _ => continue,
            };
            *class = class.saturating_add(n);
        }
        sums
    }
}

impl Counters {
    /// TLS handshakes that failed; `None` where they were not counted.
    #[must_use]
    pub fn tls_failed(&self) -> Option<u64> {
        let (alert, end) = (
            self.tls_handshakes_failed_alert,
            self.tls_handshakes_failed_end,
        );
        Some(alert?.saturating_add(end?))
    }
}

impl From<&v1::Counters> for Counters {
    fn from(c: &v1::Counters) -> Self {
        Self::new(c, protocol::seen(c))
    }
}
