//! A host over time.

use monitor_proto::v1;

use super::{GaugeRoll, Rolling, duration_ns};

/// The gauges of a host, by the names of the JSON.
pub(crate) const GAUGES: [&str; 8] = [
    "cpu_usage",
    "memory_usage",
    "disk_usage",
    "load_avg_1",
    "load_avg_5",
    "load_avg_15",
    "network_in",
    "network_out",
];

/// A host in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HostRoll {
    /// The time that its reports cover.
    pub(crate) covered_ns: u64,
    /// Reports that were not complete.
    pub(crate) incomplete: u64,
    /// In the order of `GAUGES`.
    pub(crate) gauges: [GaugeRoll; GAUGES.len()],
}

impl Rolling for HostRoll {
    fn add(&mut self, other: &Self) {
        self.covered_ns = self.covered_ns.saturating_add(other.covered_ns);
        self.incomplete = self.incomplete.saturating_add(other.incomplete);
        for (sum, gauge) in self.gauges.iter_mut().zip(&other.gauges) {
            sum.merge(gauge);
        }
    }
}

impl From<&v1::Report> for HostRoll {
    fn from(report: &v1::Report) -> Self {
        let covered_ns = duration_ns(report);
        let m = report.host_metrics.clone().unwrap_or_default();
        let gauges = [
            m.cpu_usage,
            m.memory_usage,
            m.disk_usage,
            m.load_avg_1,
            m.load_avg_5,
            m.load_avg_15,
            m.network_in,
            m.network_out,
        ]
        .map(|gauge| {
            gauge.map_or_else(GaugeRoll::default, |g| GaugeRoll {
                min: g.min,
                mean: g.mean,
                max: g.max,
                measured_ns: covered_ns,
            })
        });
        Self {
            covered_ns,
            incomplete: u64::from(!report.complete),
            gauges,
        }
    }
}
