//! What a sample takes of the counters: two cache lines of every place, however
//! many counters there are.

use std::mem::offset_of;

use monitor_common::{
    counters::{EndpointCounters, FAILURES},
    endpoint::Role,
};

use super::{EndpointAddress, EndpointId, EndpointSample};

/// The little of an endpoint that a sample takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointGlance {
    /// Which endpoint.
    pub id: EndpointId,
    /// What was counted.
    pub figures: Figures,
}

/// All endpoints at one moment, each target's in an order that stays while none
/// comes or goes, and what was lost until then, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The endpoints.
    pub endpoints: Vec<EndpointGlance>,
    /// As [`super::KernelSample::losses`].
    pub losses: Vec<(&'static str, u64)>,
}

/// The figures of a glance, since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
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

/// How many words are read of a place, its first ones: two cache lines.
pub(super) const WORDS: usize = 16;

/// Without adopted connections the agent counts nothing in its own place.
pub(super) const ADOPTED: usize = word(offset_of!(EndpointCounters, connections_adopted));
const OPENED: usize = word(offset_of!(EndpointCounters, connections_opened));
const CLOSED: usize = word(offset_of!(EndpointCounters, connections_closed));
const FAILED: usize = word(offset_of!(EndpointCounters, connections_failed));
const SRTT_SUM: usize = word(offset_of!(EndpointCounters, srtt_sum_us));
const SRTT_SAMPLES: usize = word(offset_of!(EndpointCounters, srtt_samples));
const _: () = assert!(FAILED + FAILURES <= WORDS && ADOPTED < WORDS && SRTT_SAMPLES < WORDS);

const fn word(offset: usize) -> usize {
    offset / size_of::<u64>()
}

impl Figures {
    /// Adds what one place has, given its first words.
    pub(super) fn add(&mut self, words: &[u64; WORDS]) {
        let sum = |words: &[u64]| words.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
        self.begun += words[OPENED] + words[ADOPTED];
        self.ended += words[CLOSED] + sum(&words[FAILED..FAILED + FAILURES]);
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

impl Glance {
    /// Connections of all endpoints that are open now.
    #[must_use]
    pub fn connections_active(&self) -> u64 {
        let active = self
            .endpoints
            .iter()
            .map(|e| e.figures.connections_active());
        active.sum()
    }
}

impl From<&EndpointSample> for EndpointGlance {
    fn from(sample: &EndpointSample) -> Self {
        let mut figures = Figures::default();
        figures.add(&std::array::from_fn(|i| sample.counters.words()[i]));
        Self {
            id: sample.id.clone(),
            figures,
        }
    }
}

/// Whose the slots are, so that a glance makes no addresses anew.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<Option<(u64, EndpointId)>>);

impl Ids {
    /// How many endpoints there may be.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The endpoint of a slot, given what tells its owner from the one before, and
    /// how to read whose it is.
    pub(super) fn of(
        &mut self,
        slot: u32,
        tail: u64,
        make: impl FnOnce() -> Option<(Role, EndpointAddress)>,
        target: &std::sync::Arc<str>,
    ) -> Option<&EndpointId> {
        let slot = slot as usize;
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        let place = &mut self.0[slot];
        if place.as_ref().is_none_or(|(known, _)| *known != tail) {
            *place = make().map(|(role, address)| {
                let target = std::sync::Arc::clone(target);
                let id = EndpointId {
                    target,
                    role,
                    address,
                };
                (tail, id)
            });
        }
        place.as_ref().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_glance_has_the_figures_of_all_counters() {
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
        let figures = EndpointGlance::from(&sample).figures;
        let c = &sample.counters;
        let failed: u64 = c.connections_failed.iter().sum();
        assert_eq!(figures.begun, c.connections_opened + c.connections_adopted);
        assert_eq!(figures.ended, c.connections_closed + failed);
        assert_eq!(
            (figures.srtt_sum_us, figures.srtt_samples),
            (c.srtt_sum_us, c.srtt_samples)
        );
    }

    #[test]
    fn a_slot_that_is_given_away_is_another_endpoint() {
        let mut ids = Ids::default();
        let target = Arc::from("/web");
        let address = |port: u16| EndpointAddress::Socket(([127, 0, 0, 1], port).into());
        let mut at = |tail, port| {
            let make = || Some((Role::Upstream, address(port)));
            ids.of(7, tail, make, &target).cloned().unwrap().address
        };
        assert_eq!(at(3, 80), address(80));
        assert_eq!(at(3, 81), address(80), "the owner is the same");
        assert_eq!(at(4, 81), address(81));
    }
}
