//! The wall clock and a steady one, as numbers.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Unix nanoseconds, now.
#[must_use]
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Unix milliseconds, now.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}

/// A time that only goes on, whatever the clock is set to: what it said at the
/// start, and the nanoseconds since then.  Ages are differences of it.
#[must_use]
pub fn steady_ns() -> u64 {
    static START: LazyLock<(u64, Instant)> = LazyLock::new(|| (unix_ns(), Instant::now()));
    let (start_ns, start) = *START;
    start_ns.saturating_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
