//! The agent: samples the kernel's counters and the host ten times a second,
//! makes a report of every window, keeps it on disk until a collector has it,
//! and never stands in anyone's way.
//!
//! Architecture invariant: `window` and what it calls (`host`'s parsers,
//! `pace`, `units`) are pure; files, clocks and sockets are at the edge.

pub mod cli;
pub mod clock;
pub mod config;
pub mod host;
pub mod kernel;
pub mod pace;
pub mod queue;
pub mod source;
pub mod spool;
pub mod target;
pub mod token;
pub mod units;
pub mod window;
