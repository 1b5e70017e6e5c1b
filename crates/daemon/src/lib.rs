//! What every daemon does in the same way: how it prints errors, reads durations,
//! sizes and the files that its configuration names, tells what goes on failing, and what
//! time it is.
//!
//! Architecture invariant: nothing of what a daemon is for.

mod authorities;
pub mod clock;
mod error;
mod file;
#[cfg(feature = "log")]
pub mod log;
pub mod log_limit;
#[cfg(feature = "manual")]
pub mod manual;
pub mod token;
pub mod units;

pub use authorities::{AUTHORITIES_BYTES_MAX, system_authorities};
pub use error::{complain, error_chain};
pub use file::{FileError, read_file, read_text};
pub use log_limit::once_a_minute;
