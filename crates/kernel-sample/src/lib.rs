//! What was read of the kernel's counters and of sockets, as plain data, and what
//! is expected of who reads it.
//!
//! Architecture invariant: types and their maths.  Nothing here knows how the kernel
//! is asked, so that windows and reports are pure functions over these types.

pub mod cgroup;
mod client;
pub mod container;
pub mod counter_snapshot;
mod instant;
mod kernel;
mod listener;
mod socket;
mod source;
mod target;

pub use client::{
    ClientPrefixes, EndedConnections, InvalidPrefixes, Settled, TargetClients, client,
};
pub use counter_snapshot::{CounterSnapshot, EndpointSnapshot, SnapshotCounts};
pub use instant::Instant;
pub use kernel::{EndpointAddress, EndpointId, EndpointSample, KernelSample, SocketSample};
pub use listener::ListenerSample;
pub use socket::LiveSocket;
pub use source::{CounterSource, Level, Opened, Opener, SourceError};
pub use target::Target;
