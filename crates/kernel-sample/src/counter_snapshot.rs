//! What a sample takes of the counters: three cache lines of every stripe, however
//! many counters there are.

use std::mem::offset_of;

use monitor_common::{
    counters::{EndpointCounters, FAILURES},
    ending::ENDINGS,
};

use crate::{EndpointId, EndpointSample};

/// The little of an endpoint that a sample takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// Which endpoint.
    pub id: EndpointId,
    /// What was counted.
    pub counts: SnapshotCounts,
}

/// All endpoints at one moment, each target's in an order that stays while none
/// comes or goes, and what was lost until then, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// The endpoints.
    pub endpoints: Vec<EndpointSnapshot>,
    /// As [`crate::KernelSample::losses`].
    pub losses: Vec<(&'static str, u64)>,
}

/// What a snapshot has of an endpoint, since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Connections that began, adopted ones too.
    pub begun: u64,
    /// Connections that ended in any way.
    pub ended: u64,
    /// The sum of the smoothed round-trip times seen at callbacks.
    pub srtt_sum_us: u64,
    /// How many were seen.
    pub srtt_samples: u64,
    /// A sum of counters, one of which grows whenever something happens on the
    /// wire.
    pub activity: u64,
}

/// How many words are read of a stripe, its first ones: three cache lines.
pub const WORDS: usize = 24;

/// Without adopted connections the agent counts nothing in its own stripe.
pub const ADOPTED: usize = word(offset_of!(EndpointCounters, connections_adopted));
const OPENED: usize = word(offset_of!(EndpointCounters, connections_opened));
const CLOSED: usize = word(offset_of!(EndpointCounters, connections_closed));
const FAILED: usize = word(offset_of!(EndpointCounters, connections_failed));
const SRTT_SUM: usize = word(offset_of!(EndpointCounters, srtt_sum_us));
const SRTT_SAMPLES: usize = word(offset_of!(EndpointCounters, srtt_samples));
const _: () = assert!(FAILED + FAILURES <= WORDS && ADOPTED < WORDS && SRTT_SAMPLES < WORDS);

const fn word(offset: usize) -> usize {
    offset / size_of::<u64>()
}

impl SnapshotCounts {
    /// Adds what one stripe has, given its first words.
    pub fn add(&mut self, words: &[u64; WORDS]) {
        let sum = |words: &[u64]| words.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
        self.begun += words[OPENED] + words[ADOPTED];
        self.ended += sum(&words[CLOSED..CLOSED + ENDINGS]);
        self.ended += sum(&words[FAILED..FAILED + FAILURES]);
        self.srtt_sum_us += words[SRTT_SUM];
        self.srtt_samples += words[SRTT_SAMPLES];
        self.activity = self.activity.wrapping_add(sum(words));
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections_active(&self) -> u64 {
        self.begun.saturating_sub(self.ended)
    }
}

impl CounterSnapshot {
    /// Connections of all endpoints that are open now.
    #[must_use]
    pub fn connections_active(&self) -> u64 {
        let active = self.endpoints.iter().map(|e| e.counts.connections_active());
        active.sum()
    }
}

impl From<&EndpointSample> for EndpointSnapshot {
    fn from(sample: &EndpointSample) -> Self {
        let mut counts = SnapshotCounts::default();
        counts.add(&std::array::from_fn(|i| sample.counters.words()[i]));
        Self {
            id: sample.id.clone(),
            counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use monitor_common::endpoint::Role;

    use super::*;
    use crate::EndpointAddress;

    #[test]
    fn a_snapshot_has_the_sums_of_all_counters() {
        let mut counters = Box::new(EndpointCounters::ZERO);
        for (n, word) in (1..).zip(counters.words_mut()) {
            *word = n * n;
        }
        let sample = EndpointSample {
            id: EndpointId {
                target: Arc::from("/web"),
                role: Role::Upstream,
                address: EndpointAddress::Other,
            },
            counters,
            since_unix_ns: 1,
        };
        let counts = EndpointSnapshot::from(&sample).counts;
        let c = &sample.counters;
        let failed: u64 = c.connections_failed.iter().sum();
        assert_eq!(counts.begun, c.connections_opened + c.connections_adopted);
        assert_eq!(counts.ended, c.closed() + failed);
        assert_eq!(
            (counts.srtt_sum_us, counts.srtt_samples),
            (c.srtt_sum_us, c.srtt_samples)
        );
    }
}
