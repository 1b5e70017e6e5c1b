//! The clocks: of instants, of samples, and of what the agent itself takes.

use daemon::clock::unix_ns;
use kernel_sample::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now, by both clocks.
#[must_use]
pub fn now() -> Instant {
    Instant {
        unix_ns: unix_ns(),
        boot_ns: timespec_ns(clock_gettime(ClockId::Boottime)),
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

fn timespec_ns(t: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}
