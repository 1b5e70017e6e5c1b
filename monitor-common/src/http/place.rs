//! How far a segment was read.

use core::ptr;

/// A number by way of a place in the socket's storage: of one in a register or on the stack
/// the kernel's verifier may know which it is, and then follows each to the program's
/// end.  The place is of whoever reads the next segment of a direction, alone, and
/// says nothing to anybody else.
#[inline(always)]
pub(super) fn forget(scratch: &mut u32, number: u32) -> u32 {
    let scratch = ptr::from_mut(scratch);
    // SAFETY: a reference is valid and aligned.
    unsafe { scratch.write_volatile(number) };
    // SAFETY: as above.
    unsafe { scratch.read_volatile() }
}

/// A place in a segment, or beyond its end where what follows is passed over.
#[derive(Clone, Copy)]
pub(super) struct Place {
    at: u32,
    end: u32,
}

impl Place {
    #[inline(always)]
    pub(super) fn new(scratch: &mut u32, at: u32, end: u32) -> Self {
        Self {
            at: forget(scratch, at),
            end,
        }
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
    pub(super) fn go_on(&mut self, scratch: &mut u32, bytes: u32) {
        self.at = forget(scratch, self.at.wrapping_add(bytes));
    }

    #[inline(always)]
    pub(super) fn end(&mut self) {
        self.at = self.end;
    }
}

/// How many parts of a segment were read.
///
/// Kept on the stack, not in a register: without `CAP_PERFMON` the verifier follows the
/// processor's speculation beyond the last one, up to a store that it fences.
pub(crate) struct Parts(u64);

impl Parts {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    /// Whether there may be one more, of so many.
    #[inline(always)]
    pub(crate) fn next(&mut self, limit: u32) -> bool {
        let count = ptr::from_mut(&mut self.0);
        // SAFETY: a reference is valid and aligned.
        let so_far = unsafe { count.read_volatile() };
        // SAFETY: as above.
        unsafe { count.write_volatile(so_far + 1) };
        so_far < u64::from(limit)
    }
}
