//! Listening addresses and their accept queues.

use std::{net::SocketAddr, sync::Arc};

/// The sockets of a target that listen on one address: several with `SO_REUSEPORT`, or
/// in several network namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSample {
    /// The watched cgroup's path below the cgroup2 mount.
    pub target: Arc<str>,
    /// Where they listen; v4-mapped addresses as IPv4.
    pub address: SocketAddr,
    /// How many sockets there are.
    pub sockets: u64,
    /// Established connections that wait to be accepted, over all sockets.
    pub accept_queue: u64,
    /// The most of them at any sample since the reading before.
    pub accept_queue_max: u64,
    /// The backlog of `listen(2)`, within `net.core.somaxconn`, over all sockets; of each
    /// one connection more than this may wait.
    pub accept_queue_limit: u64,
    /// Segments that were dropped since the reading before, as the kernel counts them for
    /// each socket (`sk_drops`): the queue was full, there was no memory, or they belong to
    /// no connection, such as late resets.
    pub drops: u64,
    /// The same since somebody was first seen to listen there.
    pub drops_total: u64,
}
