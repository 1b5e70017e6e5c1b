//! Adding to counters that other CPUs and interrupts add to as well.

use core::arch::asm;

/// Adds without returning the old value: the only atomic addition that every
/// supported kernel's instruction set has (BPF_ATOMIC | BPF_ADD).
#[inline(always)]
pub(crate) fn add(counter: *mut u64, n: u64) {
    // SAFETY: callers pass a pointer into a map's value, aligned to eight bytes;
    // the verifier proves it.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {n}", counter = in(reg) counter, n = in(reg) n);
    }
}

/// Adds to a field of the counters of an endpoint.
macro_rules! bump {
    ($counters:expr, $($field:tt)+) => {
        $crate::count::add_nonzero(
            // SAFETY: only the address of the field is taken.
            unsafe { &raw mut (*$counters).$($field)+ },
            1,
        )
    };
}

/// The same with a number.
macro_rules! bump_by {
    ($counters:expr, $n:expr, $($field:tt)+) => {
        $crate::count::add_nonzero(
            // SAFETY: only the address of the field is taken.
            unsafe { &raw mut (*$counters).$($field)+ },
            $n,
        )
    };
}

pub(crate) use {bump, bump_by};

/// Adds unless there is nothing to add.
#[inline(always)]
pub(crate) fn add_nonzero(counter: *mut u64, n: u64) {
    if n != 0 {
        add(counter, n);
    }
}
