//! Whose the slots are, so that a snapshot makes no addresses anew.

use kernel_sample::{EndpointAddress, EndpointId};
use monitor_common::endpoint::Role;

/// By slot, the endpoint and what tells its owner from the one before.
#[derive(Debug, Default)]
pub(crate) struct Ids(Vec<Option<(u64, EndpointId)>>);

impl Ids {
    /// How many endpoints there may be.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The endpoint of a slot, given what tells its owner from the one before, and
    /// how to read whose it is.
    pub(crate) fn of(
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
