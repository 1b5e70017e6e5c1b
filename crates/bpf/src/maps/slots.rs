//! Giving endpoints their slots, as the programs do it.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::maps::{HashMap, Map, MapData, MapError, Queue};
use monitor_common::{
    counters::CPU_PLACES_MAX, endpoint::EndpointKey, meta::Meta, slot_key::SlotKey,
};

use super::Mapped;
use crate::{
    error::{KernelError, failed},
    object::maps,
    pins::Pins,
};

/// `BPF_NOEXIST`
const NOEXIST: u64 = 1;

/// The maps that say whose a slot is.
pub(crate) struct Slots {
    endpoints: HashMap<MapData, EndpointKey, u32>,
    free: Queue<MapData, u32>,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

/// How many stripes a slot has: those of the CPUs, and the agent's own.
pub(crate) fn stripes(meta: &Meta) -> u32 {
    meta.cpus.min(CPU_PLACES_MAX) + 1
}

impl Slots {
    pub(crate) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let map = |name| Map::from_map_data(pins.map(name)?).map_err(failed("opening", name));
        Ok(Self {
            endpoints: HashMap::try_from(map(maps::ENDPOINTS)?)
                .map_err(failed("opening", maps::ENDPOINTS))?,
            free: Queue::try_from(map(maps::FREE_SLOTS)?)
                .map_err(failed("opening", maps::FREE_SLOTS))?,
        })
    }

    /// Puts slots into the pool.
    pub(crate) fn release(
        &mut self,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<(), KernelError> {
        for slot in slots {
            let pushed = self.free.push(slot, 0);
            pushed.map_err(failed("filling", maps::FREE_SLOTS))?;
        }
        Ok(())
    }

    /// Takes an endpoint's slot out of the programs' sight, unless the endpoint has
    /// another one by now.
    pub(crate) fn unlink(&mut self, key: &EndpointKey, slot: u32) -> Result<(), KernelError> {
        match self.endpoints.get(key, 0) {
            Ok(found) if found == slot => self
                .endpoints
                .remove(key)
                .map_err(failed("removing from", maps::ENDPOINTS)),
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed("reading", maps::ENDPOINTS)(error)),
        }
    }

    /// The slot of an endpoint, a new one where it has none; `None` where all are
    /// taken.  The programs may do the same at the same time.
    pub(crate) fn slot(
        &mut self,
        key: &EndpointKey,
        keys: &Mapped<SlotKey>,
    ) -> Result<Option<u32>, KernelError> {
        if let Ok(slot) = self.endpoints.get(key, 0) {
            return Ok(Some(slot));
        }
        let Ok(free) = self.free.pop(0) else {
            return Ok(None);
        };
        // Before it can be found, as whoever finds it looks whose it is.
        publish(keys, free, key);
        if self.endpoints.insert(key, free, NOEXIST).is_ok() {
            return Ok(Some(free));
        }
        withdraw(keys, free);
        self.release([free])?;
        Ok(self.endpoints.get(key, 0).ok())
    }
}

/// Sets bits of a word of a stripe, after all that was written before.
fn or(tail: *mut u64, bits: u64) {
    // SAFETY: an aligned word of a mapping that outlives the loan.
    unsafe { AtomicU64::from_ptr(tail) }.fetch_or(bits, Ordering::AcqRel);
}

/// Says whose a slot is that was taken out of the pool.
fn publish(keys: &Mapped<SlotKey>, slot: u32, key: &EndpointKey) {
    // SAFETY: a place of the map; the slot is nobody's but ours.
    unsafe { SlotKey::publish(keys.owned(slot as usize), key, or) };
}

/// Says that a slot is nobody's, before it goes back to the pool.
pub(crate) fn withdraw(keys: &Mapped<SlotKey>, slot: u32) {
    // SAFETY: as above.
    unsafe { SlotKey::withdraw(keys.owned(slot as usize)) };
    // What the next owner writes comes after.
    fence(Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use monitor_common::endpoint::Role;

    use super::*;

    fn key(n: u64) -> EndpointKey {
        let mut address = [0; 16];
        address[..8].copy_from_slice(&n.to_ne_bytes());
        address[8..].copy_from_slice(&(!n).to_ne_bytes());
        EndpointKey {
            address,
            // The same for all: only the generation tells them apart.
            port: 80,
            role: Role::Upstream as u8,
            flags: 0,
        }
    }

    /// One thread gives the slot to one endpoint after the other, and another one
    /// reads whose it is: never half of one and half of another.
    #[test]
    fn a_reader_never_sees_halves_of_two_keys() {
        const OWNERS: u64 = 200_000;
        let place: [AtomicU64; 3] = Default::default();
        let ended = AtomicBool::new(false);
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let load = |i: usize| {
                        let word = place[i].load(Ordering::Relaxed);
                        fence(Ordering::Acquire);
                        word
                    };
                    let Some(owner) = SlotKey::read(load) else {
                        continue;
                    };
                    let half = |range: std::ops::Range<usize>| {
                        u64::from_ne_bytes(owner.key.address[range].try_into().unwrap())
                    };
                    let n = half(0..8);
                    assert_eq!((owner.key, owner.tail >> 32), (key(n), n), "{owner:?}");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
            let slot = place.as_ptr().cast_mut().cast::<SlotKey>();
            for n in 0..OWNERS {
                // SAFETY: atomics have the layout of their words, and only this
                // thread writes.
                unsafe { SlotKey::publish(slot, &key(n), or) };
                if n + 1 < OWNERS {
                    // SAFETY: as above.
                    unsafe { SlotKey::withdraw(slot) };
                    fence(Ordering::Release);
                }
            }
            // The last one stays until it was seen.
            while seen.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            ended.store(true, Ordering::Relaxed);
        });
    }
}
