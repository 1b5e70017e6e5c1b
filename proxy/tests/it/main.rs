//! The real binary against real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod forwarding;
mod framing;
mod lifecycle;
mod refusals;
mod support;
mod timeouts;
mod tunnels;
