//! Reports summed up over time.  Pure: no store, no clock.
//!
//! A window counts where it ends; what it lasted is summed with it, so that a
//! rate is what was counted divided by the time in which it was counted, and a
//! time without reports is a gap, never a zero.

mod counters;
mod endpoint;
mod gauge;
mod histogram;
mod host;

use std::collections::HashMap;

pub use counters::{EndpointRoll, LaterCounters, ROLLED_COUNTERS, RolledCounter};
pub use gauge::GaugeRoll;
pub use host::{GAUGES, HostRoll};
use monitor_proto::v1;

/// The lengths of the roll-ups' buckets, in seconds.
pub const TIERS_S: [u64; 2] = [60, 3600];

/// What can be summed up over time.
pub trait Rolling: Clone + Default {
    /// Adds another window or bucket.
    fn add(&mut self, other: &Self);

    /// What it takes beside itself.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// What tells one endpoint of a host from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    pub role: i32,
    pub target: String,
    pub address: String,
}

impl From<&v1::Endpoint> for EndpointId {
    fn from(e: &v1::Endpoint) -> Self {
        Self {
            role: e.role,
            target: e.target.clone(),
            address: e.address.clone(),
        }
    }
}

/// A bucket of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    pub tier_s: u64,
    pub start_s: u64,
}

impl Bucket {
    /// The bucket in which a window ends: one that ends on a boundary belongs
    /// to the bucket before it.
    pub fn of(report: &v1::Report, tier_s: u64) -> Self {
        let end_s = report.window_end_unix_ns.saturating_sub(1) / 1_000_000_000;
        Self {
            tier_s,
            start_s: end_s - end_s % tier_s,
        }
    }
}

/// The roll-ups of some reports.
#[derive(Debug, Default)]
pub struct Rolls {
    pub hosts: HashMap<(i64, Bucket), HostRoll>,
    pub endpoints: HashMap<(i64, EndpointId, Bucket), EndpointRoll>,
}

impl Rolls {
    /// Adds a report of the host with this key, to every tier.
    pub fn add(&mut self, host: i64, report: &v1::Report) {
        for tier_s in TIERS_S {
            let bucket = Bucket::of(report, tier_s);
            self.hosts
                .entry((host, bucket))
                .or_default()
                .add(&HostRoll::from(report));
            for endpoint in &report.endpoints {
                self.endpoints
                    .entry((host, EndpointId::from(endpoint), bucket))
                    .or_default()
                    .add(&EndpointRoll::new(endpoint, report));
            }
        }
    }
}

/// The time a window lasted; an agent that does not say it means its ends.
pub fn duration_ns(report: &v1::Report) -> u64 {
    match report.window_duration_ns {
        0 => report.window_end_unix_ns - report.window_start_unix_ns,
        ns => ns,
    }
}

#[cfg(test)]
mod tests;
