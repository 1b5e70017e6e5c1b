//! The wall clock, as numbers.

use std::time::{SystemTime, UNIX_EPOCH};

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
