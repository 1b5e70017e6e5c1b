//! The agent: samples the kernel's counters and the host ten times a second,
//! makes a report of every window, keeps it on disk until a collector has it,
//! and never stands in anyone's way.
//!
//! Architecture invariant: `window` and what it calls (`host`'s parsers,
//! `pace`, `units`) are pure; files, clocks and sockets are at the edge.

pub mod capabilities;
pub mod cli;
pub mod clock;
pub mod config;
mod config_file;
pub mod control;
pub mod delivery;
pub mod doctor;
pub mod host;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod otlp;
pub mod pace;
pub mod queue;
mod reload;
pub mod reporter;
pub mod resume;
pub mod run;
pub mod sampler;
pub mod source;
pub mod spool;
pub mod target;
pub mod token;
pub mod top;
pub mod uncounted;
pub mod units;
pub mod view;
pub mod window;

/// What to do where another agent runs.  One that watches several targets is
/// nearly always what is meant.
pub(crate) const ANOTHER_AGENT: &str = "to watch more, add it to the configuration of that one: \
    --cgroup, --pid and --unit may be repeated; a second agent on a host needs its own --pin-dir, \
    --spool-dir, --control-socket and host id (/etc/machine-id), or the reports of both mix";

/// An error with all its causes on one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Errors that are transparent for their cause would repeat it.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
