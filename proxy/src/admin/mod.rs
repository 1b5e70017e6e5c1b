//! The admin API: JSON over HTTP/1.1 on a listener of its own.
//!
//! It runs on the control thread and never on a worker, so that no request of a
//! client waits for it.

mod api;
mod message;
mod server;
mod stats;

pub use server::spawn;
