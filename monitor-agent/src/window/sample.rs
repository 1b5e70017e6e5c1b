//! One sample as it waits for its report: reduced to what a window needs, so
//! that a thousand of them stay small whatever the number of endpoints.

use monitor_common::counters::EndpointCounters;

use crate::{
    host::gauges::Gauges,
    kernel::{EndpointId, KernelSample},
};

/// One sample.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The time since the sample before it: what its gauges stand for.
    pub elapsed_ns: u64,
    /// The host's gauges.
    pub gauges: Gauges,
    /// The mean smoothed round-trip time, in microseconds, of every endpoint
    /// that had some since the sample before.
    pub round_trips: Vec<(EndpointId, u64)>,
}

/// The endpoints whose round-trip times were seen between two samples, with
/// their means in microseconds.
#[must_use]
pub fn round_trips(earlier: &KernelSample, later: &KernelSample) -> Vec<(EndpointId, u64)> {
    let mut means = Vec::new();
    for (i, now) in later.endpoints.iter().enumerate() {
        // Endpoints keep their places unless one was added or retired.
        let same_place = earlier.endpoints.get(i).filter(|e| e.id == now.id);
        let before = same_place.or_else(|| earlier.endpoints.iter().find(|e| e.id == now.id));
        let zero = EndpointCounters::ZERO;
        let before = before.map_or(&zero, |e| &*e.counters);
        let samples = now
            .counters
            .srtt_samples
            .saturating_sub(before.srtt_samples);
        let sum_us = now.counters.srtt_sum_us.saturating_sub(before.srtt_sum_us);
        if let Some(mean_us) = sum_us.checked_div(samples) {
            means.push((now.id.clone(), mean_us));
        }
    }
    means
}

/// Whether anything happened on the wire between two samples.
#[must_use]
pub fn saw_traffic(earlier: &KernelSample, later: &KernelSample) -> bool {
    activity(earlier) != activity(later)
}

fn activity(sample: &KernelSample) -> u64 {
    let one = |c: &EndpointCounters| {
        let parts = [
            c.connections_opened,
            c.connections_closed,
            c.failed_before_syn,
            c.bytes_received,
            c.bytes_sent,
            c.packets_received,
            c.packets_sent,
            c.connections_failed.iter().sum(),
            c.requests.iter().sum(),
        ];
        parts.iter().fold(0u64, |sum, n| sum.wrapping_add(*n))
    };
    let counters = sample.endpoints.iter().map(|e| one(&e.counters));
    counters.fold(0, u64::wrapping_add)
}
