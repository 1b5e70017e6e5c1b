//! Adding to counters that other CPUs and interrupts add to as well.

use core::arch::asm;

use monitor_common::{counters::Durations, histogram};

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

/// Sets bits of a word.  What was written before is seen by whoever sees them: an
/// operation that returns the old value is a full barrier on every machine.
#[inline(always)]
pub(crate) fn or(word: *mut u64, bits: u64) {
    fetch_or(word, bits);
}

/// The same, which gives back what was set before.
#[inline(always)]
pub(crate) fn fetch_or(word: *mut u64, mut bits: u64) -> u64 {
    // SAFETY: as above.
    unsafe {
        asm!(
            "{bits} = atomic_fetch_or((u64 *)({word} + 0), {bits})",
            word = in(reg) word,
            bits = inout(reg) bits,
        );
    }
    bits
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

/// Adds one to a counter of an array.
///
/// The index is hidden from the verifier, which would know it more or less exactly
/// on different paths, and refuses that without `CAP_PERFMON`.
macro_rules! bump_at {
    ($counters:expr, $($field:ident).+, $index:expr) => {
        $crate::count::add_at(
            // SAFETY: only the address of the field is taken.
            unsafe { &raw mut (*$counters).$($field).+ },
            $index,
        )
    };
}

pub(crate) use bump_at;

/// The function behind `bump_at`.
#[inline(always)]
pub(crate) fn add_at<const N: usize>(counters: *mut [u64; N], index: usize) {
    let first = counters.cast::<u64>();
    // SAFETY: callers pass a pointer into a map's value.  Volatile, as others add to
    // it; what it holds does not matter, only that nobody knows it.
    let index = hide(index as u64, unsafe { first.read_volatile() });
    if index < N as u64 {
        // SAFETY: within the array, as just compared.
        add(unsafe { first.add(index as usize) }, 1);
    }
}

/// A number of which the verifier knows as little as of another one, from a map.
#[inline(always)]
pub(crate) fn hide(mut number: u64, unknown: u64) -> u64 {
    // SAFETY: two instructions on a register, the second of which undoes the first.
    unsafe { asm!("{n} ^= {u}", "{n} ^= {u}", n = inout(reg) number, u = in(reg) unknown) };
    number
}

/// Counts a duration.
#[inline(always)]
pub(crate) fn count_duration(durations: *mut Durations, took_ns: u64) {
    bump_by!(durations, took_ns, sum_ns);
    bump_at!(durations, buckets, histogram::bucket(took_ns));
}

/// Adds unless there is nothing to add.
#[inline(always)]
pub(crate) fn add_nonzero(counter: *mut u64, n: u64) {
    if n != 0 {
        add(counter, n);
    }
}
