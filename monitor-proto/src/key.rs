//! What identifies a report.

/// What identifies a report among those of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportKey {
    /// Unix milliseconds at which the spool was made.
    pub epoch: u64,
    /// Counts from 1.
    pub sequence: u64,
}
