//! The agent: samples the kernel's counters and the host ten times a second,
//! makes a report of every window, keeps it on disk until a collector has it,
//! and never stands in anyone's way.
//!
//! Architecture invariant: `window` and what it calls (`host`'s parsers,
//! `pace`, `units`) are pure; files, clocks and sockets are at the edge.

pub mod backends;
pub mod capabilities;
pub mod cli;
pub mod clock;
pub mod config;
mod configured_host;
pub mod control;
pub mod doctor;
pub mod judge;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod pace;
pub mod queue;
mod reload;
pub mod reporter;
pub mod resume;
pub mod run;
pub mod sampler;
pub mod target;
pub mod top;
pub mod uncounted;
pub mod unix_socket;
pub mod view;
