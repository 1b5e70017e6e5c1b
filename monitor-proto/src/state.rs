//! Whether a host reports: the one definition of late and silent, which the
//! collector answers and every view shows.

use serde::{Deserialize, Serialize};

use crate::v1;

/// Reports come every 5 s: three missing in a row are a sign.
const LATE_AFTER_NS: u64 = 15_000_000_000;
/// Where windows are long, half a window more than one is.
const LATE_AFTER_WINDOWS: f64 = 1.5;
/// What a report said this long ago tells nothing of now.
const SILENT_AFTER_NS: u64 = 60_000_000_000;
const SILENT_AFTER_WINDOWS: f64 = 2.5;

/// Whether a host reports, by how long ago its newest report came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It does.
    Live,
    /// A report should have come by now.
    Late,
    /// Its newest figures say nothing of now.
    Silent,
}

impl HostState {
    /// The state of a host whose newest report came this long ago and is of a
    /// window of this length.
    #[must_use]
    pub fn new(age_ns: u64, window_ns: u64) -> Self {
        if age_ns >= silent_after_ns(window_ns) {
            Self::Silent
        } else if age_ns >= late_after_ns(window_ns) {
            Self::Late
        } else {
            Self::Live
        }
    }

    /// As tables, pages and JSON say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Late => "late",
            Self::Silent => "silent",
        }
    }
}

impl From<&v1::HostSummary> for HostState {
    fn from(host: &v1::HostSummary) -> Self {
        Self::new(host.age_ns, host.last_window_duration_ns)
    }
}

/// After this time without another report a host is late.
#[must_use]
pub fn late_after_ns(window_ns: u64) -> u64 {
    LATE_AFTER_NS.max((window_ns as f64 * LATE_AFTER_WINDOWS) as u64)
}

/// After this time without another report a host is silent.
#[must_use]
pub fn silent_after_ns(window_ns: u64) -> u64 {
    SILENT_AFTER_NS.max((window_ns as f64 * SILENT_AFTER_WINDOWS) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_late_and_then_silent_by_its_windows() {
        const S: u64 = 1_000_000_000;
        for (window_s, late_s, silent_s) in [
            (0, 15, 60),
            (5, 15, 60),
            (10, 15, 60),
            (24, 36, 60),
            (60, 90, 150),
            (3_600, 5_400, 9_000),
        ] {
            let after = |age_ns| HostState::new(age_ns, window_s * S);
            assert_eq!(after(late_s * S - 1), HostState::Live);
            assert_eq!(after(late_s * S), HostState::Late);
            assert_eq!(after(silent_s * S - 1), HostState::Late);
            assert_eq!(after(silent_s * S), HostState::Silent);
        }
        assert_eq!(HostState::new(u64::MAX, u64::MAX), HostState::Silent);
    }
}
