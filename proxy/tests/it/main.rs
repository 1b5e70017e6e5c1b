//! The real binary against real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access_log;
mod adaptive;
mod admin;
mod backends;
mod connect;
mod forwarding;
mod framing;
mod lifecycle;
mod refusals;
mod reload;
mod secure;
mod shortage;
mod splits;
mod support;
mod timeouts;
mod tunnels;
mod upgrade;
