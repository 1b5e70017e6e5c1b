//! The two clocks: one to name an instant, one to measure between two.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// One instant by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant {
    /// The wall clock, which may be set.
    pub unix_ns: u64,
    /// Time since boot, sleep included, which never goes back; comparable
    /// between processes of one boot.
    pub boot_ns: u64,
}

impl Instant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            unix_ns: unix_ns(),
            boot_ns: timespec_ns(clock_gettime(ClockId::Boottime)),
        }
    }
}

/// The clock of the kernel's programs: time since boot without sleep.
#[must_use]
pub fn monotonic_ns() -> u64 {
    timespec_ns(clock_gettime(ClockId::Monotonic))
}

/// The CPU time that this process has used so far.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    timespec_ns(clock_gettime(ClockId::ProcessCPUTime))
}

/// Unix milliseconds, now.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn timespec_ns(t: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}
