//! Where the kernel's counters come from, as an agent sees it.
//!
//! The agent's own thread owns one [`CounterSource`] and nothing else does, so
//! that an implementation needs no lock.  What is expected of it:
//!
//! - `counter_snapshot` is called up to ten times a second, and `read` once a report.
//! - Losses of a snapshot are those of a reading at the same moment.
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

use monitor_common::endpoint::Role;

use crate::{CounterSnapshot, EndpointSample, KernelSample, Target};

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
    /// Reads of every endpoint what a sample takes.
    ///
    /// # Errors
    /// Where the kernel's maps cannot be read.
    fn counter_snapshot(&mut self) -> Result<CounterSnapshot, SourceError>;

    /// Reads every counter of every endpoint, and looks at the live sockets.
    ///
    /// # Errors
    /// Where the kernel's maps cannot be read.
    fn read(&mut self) -> Result<KernelSample, SourceError>;

    /// Reads every counter of the endpoints of upstream role that have a slot, without
    /// looking at live sockets: as often as `counter_snapshot`, while someone wants it.
    ///
    /// # Errors
    /// Where the kernel's maps cannot be read.
    fn backend_counters(&mut self) -> Result<Vec<EndpointSample>, SourceError> {
        let mut endpoints = self.read()?.endpoints;
        endpoints.retain(|endpoint| endpoint.id.role == Role::Upstream);
        Ok(endpoints)
    }

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
