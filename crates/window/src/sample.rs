//! One sample as it waits for its report: reduced to what a window needs, so
//! that a thousand of them stay small whatever the number of endpoints.

use host_metrics::gauges::Gauges;
use kernel_sample::{EndpointId, EndpointSnapshot, SnapshotCounts};
use std::collections::HashMap;

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

/// The endpoints whose round-trip times were seen between two snapshots, with
/// their means in microseconds.
#[must_use]
pub fn round_trips(
    earlier: &[EndpointSnapshot],
    later: &[EndpointSnapshot],
) -> Vec<(EndpointId, u64)> {
    let mut elsewhere: Option<HashMap<&EndpointId, SnapshotCounts>> = None;
    let mut means = Vec::new();
    for (i, now) in later.iter().enumerate() {
        let before = match earlier.get(i) {
            Some(same_place) if same_place.id == now.id => same_place.counts,
            // One was added or retired.
            _ => {
                let all = || earlier.iter().map(|e| (&e.id, e.counts)).collect();
                let elsewhere = elsewhere.get_or_insert_with(all);
                elsewhere.get(&now.id).copied().unwrap_or_default()
            }
        };
        let counts = now.counts;
        let samples = counts.srtt_samples.saturating_sub(before.srtt_samples);
        let sum_us = counts.srtt_sum_us.saturating_sub(before.srtt_sum_us);
        if let Some(mean_us) = sum_us.checked_div(samples) {
            means.push((now.id.clone(), mean_us));
        }
    }
    means
}

/// Whether anything happened on the wire between two snapshots.
#[must_use]
pub fn saw_traffic(earlier: &[EndpointSnapshot], later: &[EndpointSnapshot]) -> bool {
    activity(earlier) != activity(later)
}

fn activity(endpoints: &[EndpointSnapshot]) -> u64 {
    let counts = endpoints.iter().map(|e| e.counts.activity);
    counts.fold(0, u64::wrapping_add)
}
