//! What happened in a time range, summed up by upstream, backend, listener or host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Responses;
use crate::{
    histogram,
    protocol::{Protocol, Spoken},
    v1,
};

/// An answer of `/api/v1/summary`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Summary {
    /// What a row is: `upstream`, `backend`, `listener` or `host`.
    pub by: String,
    /// Of which endpoints: `downstream` or `upstream`.
    pub role: String,
    /// By what the rows are ordered.
    pub sort: String,
    /// What was summed up.
    #[serde(flatten)]
    pub range: SummaryRange,
    /// How long one value of a sparkline lasts.
    pub step_s: u64,
    /// What `against` of each part was made of; `null` where it was not asked for.
    pub against: Option<SummaryRange>,
    /// How far a quantile may be off, as a share of it.
    pub error_ratio: f64,
    /// How many rows there are, those in `other` included.
    pub rows_total: u64,
    /// The first ones.
    pub rows: Vec<SummaryRow>,
    /// The sum of the rows beyond the limit; `null` where there are none.
    pub other: Option<SummaryPart>,
    /// The sum of all rows.
    pub total: SummaryPart,
    /// Why something may be missing; left out where the answer is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
}

/// Windows that end after `since`, `until` included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SummaryRange {
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub until: String,
    /// What the sums are made of: `raw`, `1m` or `1h`.
    #[schemars(extend("enum" = ["raw", "1m", "1h"]))]
    pub tier: String,
}

/// A row and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SummaryRow {
    /// Whose it is.
    #[serde(flatten)]
    pub key: SummaryKey,
    /// On how many hosts it was seen in the range.
    pub hosts: u64,
    /// Its figures.
    #[serde(flatten)]
    pub part: SummaryPart,
}

/// Whose figures a row has: what is not known, or is not told apart, is left out.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct SummaryKey {
    /// The host, of rows by host and of loopback addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<SummaryHost>,
    /// What the proxy's configuration calls the group of backends.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// What it calls the backend.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// What it calls the listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// Which host.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct SummaryHost {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// The figures of a row, in the range and in the one it is compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SummaryPart {
    /// `null` where it was not there in the range.
    pub figures: Option<SummaryFigures>,
    /// The same of the other range.
    pub against: Option<SummaryFigures>,
    /// What was counted in each step of the range.
    pub sparkline: Sparkline,
}

/// What was counted step by step: its sum is that of the figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sparkline {
    /// `requests`; `exchanges` where requests cannot be seen.
    #[schemars(extend("enum" = ["requests", "exchanges"]))]
    pub metric: String,
    /// One a step, 60 at most; `null` where nothing was measured.
    pub values: Vec<Option<u64>>,
}

/// Figures of a time range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SummaryFigures {
    /// What was spoken; `null` where it is not known, or nothing was.
    pub protocol: Option<Protocol>,
    /// Every counter by its name in reports; `null` where it was not measured.
    pub counters: BTreeMap<String, Option<u64>>,
    /// Responses by class; `null` where they cannot be seen.
    pub responses: Option<Responses>,
    /// Responses 5xx of all final responses; `null` where there were none.
    #[serde(rename = "5xx_ratio")]
    pub server_error_ratio: Option<f64>,
    /// Time to answer; `null` where there was no exchange.
    pub exchange_duration: Option<SummaryDurations>,
    /// Time to connect; `null` where nothing was connected.
    pub connect_duration: Option<SummaryDurations>,
    /// Whether every report of it was complete.
    pub complete: bool,
}

/// Quantiles of one histogram, which is the sum of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SummaryDurations {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// The median.
    pub p50_ms: f64,
    /// 90 % lie below.
    pub p90_ms: f64,
    /// 99 % lie below.
    pub p99_ms: f64,
    /// 99.9 % lie below.
    pub p999_ms: f64,
}

impl SummaryDurations {
    /// `None` where there is no value, or where buckets are so wide that a quantile is
    /// beyond every number: JSON has no infinity.
    #[must_use]
    pub fn of(h: &v1::Histogram) -> Option<Self> {
        let ms = |q| {
            let ms = histogram::quantile_seconds(h, q)? * 1e3;
            ms.is_finite().then_some(ms)
        };
        Some(Self {
            count: h.count,
            sum_ns: h.sum_ns,
            p50_ms: ms(0.5)?,
            p90_ms: ms(0.9)?,
            p99_ms: ms(0.99)?,
            p999_ms: ms(0.999)?,
        })
    }
}

impl SummaryFigures {
    /// A counter by its name; `None` where it was not measured.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.get(name).copied().flatten()
    }

    /// Connections that ended by a reset of the peer.
    #[must_use]
    pub fn resets(&self) -> Option<u64> {
        self.counter("closed_reset_received")
    }

    /// TLS handshakes that failed.
    #[must_use]
    pub fn tls_failed(&self) -> Option<u64> {
        let by_alert = self.counter("tls_handshakes_failed_alert")?;
        Some(by_alert.saturating_add(self.counter("tls_handshakes_failed_end")?))
    }

    /// What is spoken besides HTTP/1.
    #[must_use]
    pub fn spoken(&self) -> Spoken {
        Spoken::by(|name| self.counter(name))
    }

    /// Payload in both directions.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let received = self.counter("bytes_received")?;
        Some(received.saturating_add(self.counter("bytes_sent")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_at_every_scale() {
        for scale in -12..=20 {
            let h = v1::Histogram {
                count: 1,
                scale,
                buckets: vec![1],
                ..v1::Histogram::default()
            };
            let figures = SummaryFigures {
                exchange_duration: SummaryDurations::of(&h),
                ..SummaryFigures::default()
            };
            let text = serde_json::to_string(&figures).unwrap();
            let read: Result<SummaryFigures, _> = serde_json::from_str(&text);
            assert!(read.is_ok(), "scale {scale}: {read:?} of {text}");
        }
    }

    #[test]
    fn a_ratio_that_is_read_is_the_one_that_was_written() {
        // Without `float_roundtrip` serde_json reads the number next to it.
        let text = "0.23193473193473194";
        let read: f64 = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
