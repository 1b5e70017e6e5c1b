//! The list of hosts, and the statistics in the original's shape.

use serde::{Deserialize, Serialize};

use super::{Agent, Host, rfc3339};
use crate::{
    state::{self, HostState},
    v1,
};

/// What `GET /api/v1/hosts` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Hosts {
    /// By name, then id.
    pub hosts: Vec<HostSummary>,
}

/// What is known of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostSummary {
    /// The host, as its last report has it.
    pub host: Host,
    /// Its agent, as its last report has it.
    pub agent: Agent,
    /// When its first report came, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub first_seen: String,
    /// When its last report came, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_seen: String,
    /// The end of its newest window, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_window_end: String,
    /// The sequence number of its newest report.
    pub last_sequence: u64,
    /// How many of its reports are kept.
    pub reports: u64,
    /// Reports missing within its last epoch.
    pub missing_reports: u64,
    /// Reports that came with a known key and another body.
    pub conflicts: u64,
    /// Whether it reports: `live`, `late` or `silent`.  `None`, as the three
    /// below, where the collector is too old to say it.
    pub state: Option<HostState>,
    /// How long ago its newest report came.
    pub age_ms: Option<u64>,
    /// At which age it is late.
    pub late_after_ms: Option<u64>,
    /// At which age it is silent: its newest figures say nothing of now.
    pub silent_after_ms: Option<u64>,
}

/// What `GET /api/v1/hosts/{id}/stats` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StatsResponse {
    /// The newest figures.
    pub stats: Stats,
}

/// The newest figures of a host, names and units of the original; what was not
/// measured is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Stats {
    /// Percent of all cores.
    pub cpu_usage: Option<f64>,
    /// Percent of memory not available.
    pub memory_usage: Option<f64>,
    /// Percent of the root filesystem.
    pub disk_usage: Option<f64>,
    /// As /proc/loadavg has it.
    pub load_avg_1: Option<f64>,
    /// As /proc/loadavg has it.
    pub load_avg_5: Option<f64>,
    /// As /proc/loadavg has it.
    pub load_avg_15: Option<f64>,
    /// Bytes per second.
    pub network_in: Option<f64>,
    /// Bytes per second.
    pub network_out: Option<f64>,
    /// Unix seconds of the sample.
    pub timestamp: u64,
    /// How many cores the host has: what a load average is a share of.
    pub cores: u32,
}

impl From<&v1::HostSummary> for HostSummary {
    fn from(h: &v1::HostSummary) -> Self {
        let ms = |ns: u64| ns / 1_000_000;
        Self {
            host: h.host.as_ref().map(Into::into).unwrap_or_default(),
            agent: h.agent.as_ref().map(Into::into).unwrap_or_default(),
            first_seen: rfc3339(h.first_seen_unix_ns),
            last_seen: rfc3339(h.last_seen_unix_ns),
            last_window_end: rfc3339(h.last_window_end_unix_ns),
            last_sequence: h.last_sequence,
            reports: h.reports,
            missing_reports: h.missing_reports,
            conflicts: h.conflicts,
            state: Some(HostState::from(h)),
            age_ms: Some(ms(h.age_ns)),
            late_after_ms: Some(ms(state::late_after_ns(h.last_window_duration_ns))),
            silent_after_ms: Some(ms(state::silent_after_ns(h.last_window_duration_ns))),
        }
    }
}

impl From<&v1::Report> for Stats {
    fn from(r: &v1::Report) -> Self {
        let metrics = r.host_metrics.clone().unwrap_or_default();
        let last = |g: Option<v1::Gauge>| g.map(|g| g.last);
        Self {
            cpu_usage: last(metrics.cpu_usage),
            memory_usage: last(metrics.memory_usage),
            disk_usage: last(metrics.disk_usage),
            load_avg_1: last(metrics.load_avg_1),
            load_avg_5: last(metrics.load_avg_5),
            load_avg_15: last(metrics.load_avg_15),
            network_in: last(metrics.network_in),
            network_out: last(metrics.network_out),
            timestamp: r.window_end_unix_ns / 1_000_000_000,
            cores: r.host.as_ref().map_or(0, |h| h.cores),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null() {
        let idle = v1::Gauge::default();
        let report = v1::Report {
            host_metrics: Some(v1::HostMetrics {
                cpu_usage: Some(idle),
                ..v1::HostMetrics::default()
            }),
            ..v1::Report::default()
        };
        let stats = serde_json::to_value(Stats::from(&report)).expect("stats are JSON");
        assert_eq!(stats["cpu_usage"], 0.0, "measured, and idle");
        for name in [
            "memory_usage",
            "disk_usage",
            "load_avg_1",
            "load_avg_5",
            "load_avg_15",
            "network_in",
            "network_out",
        ] {
            assert!(stats[name].is_null(), "{name}: {stats}");
        }
    }
}
