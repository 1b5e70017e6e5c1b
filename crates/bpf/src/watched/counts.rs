//! What is counted: the counters, whose they are, and what was lost, all in the
//! agent's own memory.
//!
//! Every slot has a stripe for each CPU, or for several CPUs, which the programs alone
//! write, and one more that the agent alone writes.

use std::cell::RefCell;

use kernel_sample::{EndpointAddress, SnapshotCounts, counter_snapshot, counter_snapshot::ADOPTED};
use monitor_common::{
    counters::{EndpointCounters, WORDS},
    endpoint::{EndpointKey, OTHER_SLOTS, Role, other_slot},
    losses::{LOSSES, Loss, Lost},
    meta::Meta,
    slot_key::{Owner, SlotKey},
};

use crate::{
    adoption::{Books, journal::OwnCounters},
    error::KernelError,
    maps::{Access, Mapped, stripes, withdraw},
    object::maps,
    pins::Pins,
};

/// The maps of one target's counters.
#[derive(Debug)]
pub(crate) struct Counts {
    slots: u32,
    stripes: u32,
    counters: Mapped<EndpointCounters>,
    /// The slots in whose own stripe there may be something.
    has_own: RefCell<Vec<bool>>,
    keys: Mapped<SlotKey>,
    lost: Mapped<Lost>,
}

/// How many connections began and ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
}

impl Connections {
    pub(crate) fn of(counters: &EndpointCounters) -> Self {
        let failed: u64 = counters.connections_failed.iter().sum();
        Self {
            begun: counters.connections_adopted + counters.connections_opened,
            ended: counters.closed() + failed,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.begun += other.begun;
        self.ended += other.ended;
    }
}

impl Counts {
    pub(crate) fn open(pins: &Pins, meta: &Meta, access: Access) -> Result<Self, KernelError> {
        let slots = meta.endpoints_max + OTHER_SLOTS;
        let stripes = stripes(meta);
        let counters = pins.map(maps::COUNTERS)?;
        let values = (slots * stripes) as usize;
        let counters: Mapped<EndpointCounters> =
            Mapped::with(access, &counters, maps::COUNTERS, values)?;
        let own = |slot| counters.word((slot * stripes + stripes - 1) as usize, ADOPTED);
        // Another agent may adopt while this one only reads.
        let has_own = |slot| access == Access::Read || own(slot) > 0;
        Ok(Self {
            slots,
            stripes,
            has_own: RefCell::new((0..slots).map(has_own).collect()),
            counters,
            keys: Mapped::with(access, &pins.map(maps::KEYS)?, maps::KEYS, slots as usize)?,
            lost: Mapped::with(access, &pins.map(maps::LOST)?, maps::LOST, stripes as usize)?,
        })
    }

    pub(crate) fn slots(&self) -> std::ops::Range<u32> {
        0..self.slots
    }

    pub(crate) fn keys(&self) -> &Mapped<SlotKey> {
        &self.keys
    }

    /// Whose a slot is, given its present [`Self::tail`]; `None` while it is free.
    pub(crate) fn key(&self, slot: u32, tail: u64) -> Option<(Role, EndpointAddress)> {
        for role in [Role::Downstream, Role::Upstream] {
            if slot == other_slot(role) {
                return Some((role, EndpointAddress::Other));
            }
        }
        let owner = self.owner(slot).filter(|owner| owner.tail == tail)?;
        Some((Role::from_u8(owner.key.role)?, address(&owner.key)))
    }

    /// What tells one owner of a slot from the next.
    pub(crate) fn tail(&self, slot: u32) -> u64 {
        SlotKey::tail(|word| self.keys.acquire(slot as usize, word))
    }

    fn owner(&self, slot: u32) -> Option<Owner> {
        SlotKey::read(|word| self.keys.acquire(slot as usize, word))
    }

    pub(crate) fn endpoint_key(&self, slot: u32) -> Option<EndpointKey> {
        self.owner(slot).map(|owner| owner.key)
    }

    /// A slot's counters, over all its stripes.
    pub(crate) fn sum(&self, slot: u32) -> Box<EndpointCounters> {
        let mut sum = Box::new(EndpointCounters::ZERO);
        let mut words = [0u64; WORDS];
        for stripe in 0..self.stripes {
            self.counters.words(self.index(slot, stripe), 0, &mut words);
            for (total, n) in sum.words_mut().iter_mut().zip(&words) {
                *total = total.wrapping_add(*n);
            }
        }
        sum
    }

    /// What a snapshot takes of a slot, over all its stripes.
    pub(crate) fn snapshot(&self, slot: u32) -> SnapshotCounts {
        let mut counts = SnapshotCounts::default();
        let mut add = |stripe| {
            let mut words = [0; counter_snapshot::WORDS];
            self.counters.words(self.index(slot, stripe), 0, &mut words);
            counts.add(&words);
        };
        (0..self.stripes - 1).for_each(&mut add);
        if self.has_own.borrow()[slot as usize] {
            add(self.stripes - 1);
        }
        counts
    }

    /// The connections of all slots that are somebody's.
    pub(crate) fn connections(&self) -> Connections {
        let mut all = Connections::default();
        let has_owner = |&slot: &u32| slot < OTHER_SLOTS || self.owner(slot).is_some();
        for slot in self.slots().filter(has_owner) {
            let SnapshotCounts { begun, ended, .. } = self.snapshot(slot);
            all.add(Connections { begun, ended });
        }
        all
    }

    /// Sets a slot to zero that the programs do not find any more.
    pub(crate) fn clear(&self, slot: u32) {
        for stripe in 0..self.stripes {
            for word in 0..WORDS {
                self.counters.set_word(self.index(slot, stripe), word, 0);
            }
        }
        withdraw(&self.keys, slot);
    }

    /// Adds what was lost, by reason.
    pub(crate) fn losses(&self, totals: &mut [u64; LOSSES]) {
        for stripe in 0..self.stripes as usize {
            let mut counts = [0u64; LOSSES];
            self.lost.words(stripe, 0, &mut counts);
            for loss in Loss::ALL {
                totals[loss as usize] += counts[loss as usize];
            }
        }
    }

    fn index(&self, slot: u32, stripe: u32) -> usize {
        (slot * self.stripes + stripe) as usize
    }

    fn own(&self, slot: u32) -> usize {
        self.index(slot, self.stripes - 1)
    }
}

impl OwnCounters for Counts {
    fn get(&self, slot: u32, word: usize) -> u64 {
        self.counters.word(self.own(slot), word)
    }

    fn set(&self, slot: u32, word: usize, count: u64) {
        self.has_own.borrow_mut()[slot as usize] = true;
        self.counters.set_word(self.own(slot), word, count);
    }
}

impl Books for Counts {
    fn lose(&self, loss: Loss) {
        let (own, word) = (self.stripes as usize - 1, loss as usize);
        self.lost.set_word(own, word, self.lost.word(own, word) + 1);
    }
}

pub(crate) fn address(key: &EndpointKey) -> EndpointAddress {
    let ip = std::net::Ipv6Addr::from(key.address).to_canonical();
    EndpointAddress::Socket((ip, key.port).into())
}

#[cfg(test)]
mod tests {
    use monitor_common::ENDPOINTS_MAX_DEFAULT;

    use super::*;

    #[test]
    fn memory_does_not_follow_the_cpus_of_large_machines() {
        let stripes = |cpus| {
            stripes(&Meta {
                cpus,
                ..Meta::new("/t", 0, 0)
            })
        };
        assert_eq!([2, 32, 33, 256].map(stripes), [3, 33, 33, 33]);
        let bytes = (ENDPOINTS_MAX_DEFAULT + OTHER_SLOTS) as usize
            * stripes(256) as usize
            * size_of::<EndpointCounters>();
        assert!(bytes < 136 << 20, "{bytes}");
    }
}
