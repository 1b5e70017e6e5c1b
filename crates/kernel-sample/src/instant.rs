//! When something was read.

/// One instant by two clocks: one to name it, one to measure between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant {
    /// The wall clock, which may be set.
    pub unix_ns: u64,
    /// Time since boot, sleep included, which never goes back; comparable
    /// between processes of one boot.
    pub boot_ns: u64,
}
