//! A host over time.

use monitor_proto::{figures::HOST_GAUGES, v1};

use super::{GaugeRoll, Rolling, duration_ns};

/// The gauges of a host, by the names of the JSON.
pub const GAUGES: [&str; HOST_GAUGES.len()] = {
    let mut names = [""; HOST_GAUGES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = HOST_GAUGES[i].figure.name;
        i += 1;
    }
    names
};

/// A host in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostRoll {
    /// The time that its reports cover.
    pub covered_ns: u64,
    /// Reports that were not complete.
    pub incomplete: u64,
    /// In the order of `GAUGES`.
    pub gauges: [GaugeRoll; GAUGES.len()],
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
        let mut m = report.host_metrics.clone().unwrap_or_default();
        let gauges = std::array::from_fn(|i| {
            let gauge = *(HOST_GAUGES[i].place)(&mut m);
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
