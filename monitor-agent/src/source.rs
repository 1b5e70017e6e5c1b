//! Where the kernel's counters come from, as the rest of the agent sees it.
//!
//! The agent's own thread owns one [`CounterSource`] and nothing else does, so
//! that an implementation needs no lock.  What is expected of it:
//!
//! - `sample(Detail::Hot)` is called up to ten times a second.  It may leave the
//!   two histograms of every endpoint at zero and must fill everything else.
//! - `sample(Detail::Full)` is called once a report, and fills everything.
//! - Every counter of an endpoint only grows while `since_unix_ns` stays the
//!   same.  Where counting began anew, `since_unix_ns` is later than before.
//! - An endpoint may be missing from a sample (retired): its last totals are
//!   kept by the reports.  If it appears again, it goes on from these, or has a
//!   later `since_unix_ns`.
//! - A loss reason keeps its name; its value only grows while
//!   `KernelSample::since_unix_ns` stays the same.
//! - `set_level` loses no count, and what level http alone counts stands still
//!   at level tcp.
//! - Dropping it detaches nothing.

use std::error::Error;

use crate::kernel::{KernelSample, Target};

/// How much of the counters is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All but the histograms.
    Hot,
    /// Everything.
    Full,
}

/// How much the kernel's programs look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Connections and their streams.
    Tcp,
    /// HTTP exchanges as well.
    Http,
}

/// Why counters could not be read; the source's own error.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Reads the kernel's counters.
pub trait CounterSource: Send {
    /// Reads the counters of every endpoint.
    ///
    /// # Errors
    /// Where the kernel's maps cannot be read.
    fn sample(&mut self, detail: Detail) -> Result<KernelSample, SourceError>;

    /// Changes what the programs look at.
    ///
    /// # Errors
    /// Where programs cannot be attached or detached.
    fn set_level(&mut self, level: Level) -> Result<(), SourceError>;
}

/// A source that was opened.
pub struct Opened {
    /// Reads the counters.
    pub source: Box<dyn CounterSource>,
    /// What the programs look at.
    pub level: Level,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Opens the source over these targets at this level: over all of them when the
/// agent starts, and over those that are there whenever a watched cgroup was made
/// again.  The source before is dropped first.
pub type Opener = Box<dyn FnMut(&[Target], Level) -> Result<Opened, SourceError> + Send>;
