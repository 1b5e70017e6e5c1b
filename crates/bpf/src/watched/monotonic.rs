//! What was reported once is never taken back.
//!
//! The live part of the stream counters is read apart from what was folded, so
//! a byte that is folded between the two readings is missing from both for the
//! moment.  The figure then stands still instead of going back.

use std::collections::HashMap;

use kernel_sample::{EndpointId, EndpointSample};
use monitor_common::counters::EndpointCounters;

/// The highest figures seen so far.
#[derive(Debug, Default)]
pub(crate) struct MonotonicClamp(HashMap<EndpointId, [u64; 5]>);

fn live(counters: &mut EndpointCounters) -> [&mut u64; 5] {
    [
        &mut counters.bytes_received,
        &mut counters.bytes_sent,
        &mut counters.packets_received,
        &mut counters.packets_sent,
        &mut counters.retransmits,
    ]
}

impl MonotonicClamp {
    /// Raises what went back, and remembers what went on.
    pub(crate) fn apply(&mut self, endpoints: &mut [EndpointSample]) {
        for endpoint in endpoints {
            let floor = match self.0.get_mut(&endpoint.id) {
                Some(floor) => floor,
                None => self.0.entry(endpoint.id.clone()).or_default(),
            };
            for (figure, floor) in live(&mut endpoint.counters).into_iter().zip(floor) {
                *figure = (*figure).max(*floor);
                *floor = *figure;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::endpoint::Role;

    use super::*;
    use kernel_sample::EndpointAddress;

    #[test]
    fn figures_stand_still_instead_of_going_back() {
        let mut clamp = MonotonicClamp::default();
        for (read, given) in [(5, 5), (9, 9), (7, 9), (10, 10)] {
            let mut counters = Box::new(EndpointCounters::ZERO);
            counters.bytes_sent = read;
            let id = EndpointId {
                target: "/".into(),
                role: Role::Upstream,
                address: EndpointAddress::Other,
            };
            let mut endpoints = [EndpointSample {
                id,
                counters,
                since_unix_ns: 1,
            }];
            clamp.apply(&mut endpoints);
            assert_eq!(endpoints[0].counters.bytes_sent, given);
        }
    }
}
