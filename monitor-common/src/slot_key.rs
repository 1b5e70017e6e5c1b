//! Whose a slot is, in memory that the programs and agents read at any time.
//!
//! A slot is given to an endpoint by one alone: the program or agent that took it
//! out of the pool.  The last word publishes the key, in one step and after the
//! address.  It holds a generation besides, which changes whenever the slot is given
//! back, so that a reader that finds it the same before and after has read the
//! address of one owner, not halves of two.

use crate::endpoint::{EndpointKey, Role};

/// How many words a place has.
pub const WORDS: usize = 3;

/// The word that publishes: port, role and flags below, the generation above.
const TAIL: usize = WORDS - 1;

/// The lower half of the last word, zero while the slot is nobody's.
const OWNER: u64 = u32::MAX as u64;

/// The place of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotKey([u64; WORDS]);

const _: () = assert!(size_of::<SlotKey>() == 24);

/// Who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The endpoint.
    pub key: EndpointKey,
    /// Which time of being somebody's this is, for this slot and endpoint alone.
    pub tail: u64,
}

/// A key as it lies in a place of generation zero.
#[inline(always)]
fn words(key: &EndpointKey) -> [u64; WORDS] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.address;
    let [port_low, port_high] = key.port.to_le_bytes();
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        u64::from_le_bytes([port_low, port_high, key.role, key.flags, 0, 0, 0, 0]),
    ]
}

/// The address of a word of a place.
#[inline(always)]
const fn word(place: *mut SlotKey, n: usize) -> *mut u64 {
    place.cast::<u64>().wrapping_add(n)
}

impl SlotKey {
    /// Says that a slot, which is nobody's, is an endpoint's from now on.
    ///
    /// `or` sets bits of a word in one step, and what was written before is seen by
    /// whoever sees them: the programs' instruction and the host's differ.
    ///
    /// # Safety
    /// The place is valid and aligned, and nobody else writes to it until the slot
    /// is given back.
    #[inline(always)]
    pub unsafe fn publish(place: *mut Self, key: &EndpointKey, or: impl FnOnce(*mut u64, u64)) {
        let [first, second, tail] = words(key);
        // SAFETY: as the caller promises; volatile, as others read it.
        unsafe { word(place, 0).write_volatile(first) };
        // SAFETY: as above.
        unsafe { word(place, 1).write_volatile(second) };
        or(word(place, TAIL), tail);
    }

    /// Says that a slot is nobody's, before it is given back.
    ///
    /// # Safety
    /// As [`Self::publish`] has it.
    #[inline(always)]
    pub unsafe fn withdraw(place: *mut Self) {
        let tail = word(place, TAIL);
        // SAFETY: as the caller promises; volatile, as others read it.
        let generation = (unsafe { tail.read_volatile() } | OWNER).wrapping_add(1);
        // SAFETY: as above.
        unsafe { tail.write_volatile(generation) };
    }

    /// Which generation a slot is in.
    ///
    /// # Safety
    /// The place is valid and aligned.
    #[inline(always)]
    #[must_use]
    pub unsafe fn generation(place: *mut Self) -> u32 {
        // SAFETY: as the caller promises; volatile, as others write it.
        (unsafe { word(place, TAIL).read_volatile() } >> 32) as u32
    }

    /// Whether a slot is that of an endpoint.
    ///
    /// # Safety
    /// The place is valid and aligned.
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_of(place: *mut Self, key: &EndpointKey) -> bool {
        let [first, second, tail] = words(key);
        // SAFETY: as the caller promises; volatile, as others write it.
        let found = |n| unsafe { word(place, n).read_volatile() };
        let differs = found(0) ^ first | found(1) ^ second | (found(TAIL) & OWNER) ^ tail;
        differs == 0
    }

    /// Who has the slot, given how to load a word of its place: no later load may
    /// come before it.  `None` while it is nobody's, or passes to somebody else.
    #[must_use]
    pub fn read(load: impl Fn(usize) -> u64) -> Option<Owner> {
        let tail = load(TAIL);
        let [port_low, port_high, role, flags, ..] = tail.to_le_bytes();
        Role::from_u8(role)?;
        let mut address = [0; 16];
        let (first, second) = address.split_at_mut(8);
        first.copy_from_slice(&load(0).to_ne_bytes());
        second.copy_from_slice(&load(1).to_ne_bytes());
        let key = EndpointKey {
            address,
            port: u16::from_le_bytes([port_low, port_high]),
            role,
            flags,
        };
        (load(TAIL) == tail).then_some(Owner { key, tail })
    }

    /// The last word of a place, which tells one owner from the next.
    #[must_use]
    pub fn tail(load: impl Fn(usize) -> u64) -> u64 {
        load(TAIL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> EndpointKey {
        EndpointKey {
            address: [n; 16],
            // The same for all: only the generation tells them apart.
            port: 80,
            role: Role::Upstream as u8,
            flags: 0,
        }
    }

    fn or(tail: *mut u64, bits: u64) {
        // SAFETY: a word of a place that outlives the test.
        unsafe { *tail |= bits };
    }

    #[test]
    fn a_published_key_is_read_back_and_a_withdrawn_one_is_not() {
        let mut place = SlotKey::default();
        let mut tails = Vec::new();
        for n in 1..4 {
            let load = |place: &SlotKey, i: usize| place.0[i];
            assert_eq!(SlotKey::read(|i| load(&place, i)), None);
            // SAFETY: a place of the test's own.
            unsafe { SlotKey::publish(&raw mut place, &key(n), or) };
            let owner = SlotKey::read(|i| load(&place, i)).unwrap();
            assert_eq!(owner.key, key(n));
            tails.push(owner.tail);
            // SAFETY: as above.
            assert!(unsafe { SlotKey::is_of(&raw mut place, &key(n)) });
            // SAFETY: as above.
            assert!(!unsafe { SlotKey::is_of(&raw mut place, &key(n + 1)) });
            // SAFETY: as above.
            unsafe { SlotKey::withdraw(&raw mut place) };
            // SAFETY: as above.
            assert_eq!(unsafe { SlotKey::generation(&raw mut place) }, n.into());
        }
        tails.dedup();
        assert_eq!(tails.len(), 3, "each owner is told from the one before");
    }
}
