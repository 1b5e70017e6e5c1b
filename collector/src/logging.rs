//! The collector's log.

use daemon::log::{Line, LogFormat, start};

/// The target of the ready line, which no filter hides: scripts wait for it.
pub const READY_TARGET: &str = "speedmimi_collector";

/// Starts the log.
pub fn init(format: LogFormat) {
    start(format, Line::Full, &[&format!("{READY_TARGET}=info")]);
}
