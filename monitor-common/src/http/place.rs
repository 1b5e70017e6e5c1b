//! How far a segment was read.

use core::ptr;

/// A number by way of a place of the socket's: of one on the stack the kernel's verifier
/// may know which it is, and then follows each to the program's end.
#[inline(always)]
pub(super) fn forget(place: &mut u8, number: u32) -> u32 {
    let place = ptr::from_mut(place);
    // SAFETY: a reference is valid and aligned.
    unsafe { place.write_volatile(number as u8) };
    // SAFETY: as above.
    u32::from(unsafe { place.read_volatile() })
}

/// A place in a segment.
///
/// It is kept in the stream's next sequence number, and read from there each time: the
/// kernel's verifier wants to know how much of a packet is loaded, and would follow
/// every way to every place otherwise.
#[derive(Clone, Copy)]
pub(super) struct Place {
    begin_seq: u32,
    at: u32,
    end: u32,
}

impl Place {
    /// In a segment of which `next_seq` is the end.
    #[inline(always)]
    pub(super) fn new(next_seq: &mut u32, at: u32, end: u32) -> Self {
        let mut place = Self {
            begin_seq: next_seq.wrapping_sub(end),
            at,
            end,
        };
        place.go_on(next_seq, 0);
        place
    }

    #[inline(always)]
    pub(super) const fn at(self) -> u32 {
        self.at
    }

    /// How much there is yet.
    #[inline(always)]
    pub(super) const fn left(self) -> u32 {
        self.end.saturating_sub(self.at)
    }

    #[inline(always)]
    pub(super) fn go_on(&mut self, next_seq: &mut u32, bytes: u32) {
        let seq = self.begin_seq.wrapping_add(self.at).wrapping_add(bytes);
        let next_seq = ptr::from_mut(next_seq);
        // SAFETY: a reference is valid and aligned.
        unsafe { next_seq.write_volatile(seq) };
        // SAFETY: as above.
        let seq = unsafe { next_seq.read_volatile() };
        self.at = seq.wrapping_sub(self.begin_seq);
    }

    #[inline(always)]
    pub(super) fn end(&mut self, next_seq: &mut u32) {
        *next_seq = self.begin_seq.wrapping_add(self.end);
        self.at = self.end;
    }
}

/// How many parts of a segment were read.
///
/// Kept on the stack, not in a register: without `CAP_PERFMON` the verifier follows the
/// processor's speculation beyond the last one, up to a store that it fences.
pub(super) struct Parts(u64);

impl Parts {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// Whether there may be one more, of so many.
    #[inline(always)]
    pub(super) fn next(&mut self, limit: u32) -> bool {
        let count = ptr::from_mut(&mut self.0);
        // SAFETY: a reference is valid and aligned.
        let so_far = unsafe { count.read_volatile() };
        // SAFETY: as above.
        unsafe { count.write_volatile(so_far + 1) };
        so_far < u64::from(limit)
    }
}
