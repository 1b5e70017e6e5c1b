//! What is read from the kernel, as plain data.

use std::{fmt, net::SocketAddr, sync::Arc};

use monitor_common::{counters::EndpointCounters, endpoint::Role};

use crate::{ListenerSample, LiveSocket, TargetClients};

/// The address that an endpoint is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    /// A listener's or a peer's; v4-mapped ones as IPv4.
    Socket(SocketAddr),
    /// What found no place in the map.
    Other,
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Other => f.write_str("other"),
        }
    }
}

/// Identifies an endpoint across samples.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    /// The watched cgroup's path below the cgroup2 mount; `/` is the whole host.
    pub target: Arc<str>,
    /// Who opened the connections.
    pub role: Role,
    /// Where to.
    pub address: EndpointAddress,
}

/// One endpoint's counters, summed over the CPUs.
#[derive(Clone, Debug)]
pub struct EndpointSample {
    /// Which endpoint.
    pub id: EndpointId,
    /// Since [`KernelSample::since_unix_ns`] of the endpoint's target.
    pub counters: Box<EndpointCounters>,
    /// When this endpoint's target began to be counted.
    pub since_unix_ns: u64,
}

/// A live socket of a target.
#[derive(Clone, Debug)]
pub struct SocketSample {
    /// The endpoint that it is counted under.
    pub endpoint: EndpointId,
    /// The socket itself.
    pub live: LiveSocket,
}

/// Everything that the kernel has counted so far.
#[derive(Clone, Debug, Default)]
pub struct KernelSample {
    /// By target, role and address.
    pub endpoints: Vec<EndpointSample>,
    /// What went uncounted, by reason, since `since_unix_ns`.
    pub losses: Vec<(&'static str, u64)>,
    /// The live sockets of the targets; at full detail alone.
    pub sockets: Vec<SocketSample>,
    /// The listening addresses of the targets.
    pub listeners: Vec<ListenerSample>,
    /// The targets' clients, where they are counted.
    pub clients: Vec<TargetClients>,
    /// How old the live part of the byte counts is at the most.
    pub live_bytes_age_ms: u64,
    /// Whether there are sockets in network namespaces that cannot be looked at.
    pub sockets_hidden: bool,
    /// The connections that the counters say are open, less the sockets there are,
    /// beyond what began and ended while they were looked at; `None` where they
    /// were not.
    pub connection_difference: Option<i64>,
    /// When the oldest target's counters began: its maps were made then, by
    /// this agent or by one before it.
    pub since_unix_ns: u64,
}
