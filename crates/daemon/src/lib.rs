//! What every daemon does in the same way: how it prints errors, reads durations,
//! sizes and files of certificates, tells what goes on failing, and what time it is.
//!
//! Architecture invariant: nothing of what a daemon is for.

pub mod clock;
mod error;
#[cfg(feature = "log")]
pub mod log;
pub mod log_limit;
mod pem_file;
pub mod units;

pub use error::error_chain;
pub use log_limit::once_a_minute;
pub use pem_file::{PemFileError, read_pem_file};

/// What to do where another agent runs.  One that watches several targets is
/// nearly always what is meant.
pub const ANOTHER_AGENT: &str = "to watch more, add it to the configuration of that one: \
    --cgroup, --pid and --unit may be repeated; a second agent on a host needs its own --pin-dir, \
    --spool-dir, --control-socket and host id (/etc/machine-id), or the reports of both mix";
