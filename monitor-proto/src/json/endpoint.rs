//! A listener or a peer, and the top sockets by bytes.

use serde::{Deserialize, Serialize};

use super::{Counters, rfc3339};
use crate::{
    labels,
    protocol::{self, Protocol, Spoken, spoken},
    v1,
};

/// One listener (downstream) or one peer (upstream) of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Endpoint {
    /// `downstream` or `upstream`.
    pub role: String,
    /// Address and port, or `other`.
    pub address: String,
    /// The name that the proxy's configuration gives it; empty where unknown.
    pub name: String,
    /// The upstream it belongs to; empty where unknown.
    pub upstream: String,
    /// The backend it is; empty where unknown.
    pub backend: String,
    /// The watched cgroup.
    pub target: String,
    /// Connections open at the window's end.
    pub connections_active: u64,
    /// What its connections speak: with `other`, such as TLS, requests and
    /// responses cannot be seen and durations are those of exchanges; with `mixed`,
    /// durations are those of both.  `null` where nothing tells.
    pub protocol: Option<Protocol>,
    /// What happened in the window.
    #[serde(flatten)]
    pub window: Counters,
    /// What happened since the totals began.
    pub totals: Totals,
    /// How old the live part of the byte counts is at the most.
    pub live_bytes_age_ms: u64,
    /// Smoothed round-trip times seen in the window; `null` where none was.
    pub srtt: Option<RoundTripTime>,
    /// The listener's queue of connections to accept; `null` where it is none, or its
    /// sockets could not be read.
    pub accept_queue: Option<AcceptQueue>,
}

impl Endpoint {
    /// What its connections ever spoke besides HTTP/1.
    #[must_use]
    pub fn spoken(&self) -> Spoken {
        spoken!(self.totals.counters)
    }
}

/// Every counter since a point in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Totals {
    /// When they began, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// The counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Smoothed round-trip times.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct RoundTripTime {
    /// How many were seen.
    pub samples: u64,
    /// The smallest.
    pub min_us: u64,
    /// The mean.
    pub mean_us: u64,
    /// The largest.
    pub max_us: u64,
}

/// Established connections that a listener has not accepted yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AcceptQueue {
    /// Where its sockets listen; endpoints of one such listener share its queue.
    pub listener: String,
    /// How many wait at the window's end.
    pub connections: u64,
    /// The most at any sample of the window.
    pub connections_max: u64,
    /// The backlog: of each socket one more than this may wait.
    pub limit: u64,
    /// Segments that were dropped in the window: SYNs and final ACKs that found no room, and
    /// those that belong to no connection.
    pub drops: u64,
    /// The same since the agent saw the listener first.
    pub drops_total: u64,
}

/// One socket that stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SocketSummary {
    /// As `ss -e` has it.
    pub cookie: u64,
    /// `downstream` or `upstream`.
    pub role: String,
    /// Local address and port.
    pub local: String,
    /// Remote address and port.
    pub remote: String,
    /// The client's, where the PROXY protocol told of it.
    pub client: Option<String>,
    /// The TCP state.
    pub state: String,
    /// The watched cgroup.
    pub target: String,
    /// Time since it was opened; `None` where nobody saw that.
    pub age_ms: Option<u64>,
    /// Payload received.
    pub bytes_received: u64,
    /// Payload acknowledged by the peer.
    pub bytes_sent: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time.
    pub srtt_us: u64,
    /// HTTP/1 requests.
    pub requests: u64,
    /// Whether requests were pipelined.
    pub pipelined: bool,
}

impl From<&v1::Endpoint> for Endpoint {
    fn from(e: &v1::Endpoint) -> Self {
        Self {
            role: labels::role(e.role).to_owned(),
            address: e.address.clone(),
            name: e.name.clone(),
            upstream: e.upstream.clone(),
            backend: e.backend.clone(),
            target: e.target.clone(),
            connections_active: e.connections_active,
            protocol: Protocol::of_window(e),
            window: e
                .window
                .as_ref()
                .map(|window| Counters::new(window, protocol::seen_in_window(e)))
                .unwrap_or_default(),
            totals: Totals {
                since: rfc3339(e.totals_since_unix_ns),
                counters: e.totals.as_ref().map(Into::into).unwrap_or_default(),
            },
            live_bytes_age_ms: e.live_bytes_age_ms,
            srtt: e.srtt.as_ref().map(|t| RoundTripTime {
                samples: t.samples,
                min_us: t.min_us,
                mean_us: t.mean_us,
                max_us: t.max_us,
            }),
            accept_queue: e.accept_queue.as_ref().map(|q| AcceptQueue {
                listener: q.listener.clone(),
                connections: q.connections,
                connections_max: q.connections_max,
                limit: q.limit,
                drops: q.drops,
                drops_total: q.drops_total,
            }),
        }
    }
}

impl From<&v1::SocketSummary> for SocketSummary {
    fn from(s: &v1::SocketSummary) -> Self {
        Self {
            cookie: s.cookie,
            role: labels::role(s.role).to_owned(),
            local: s.local.clone(),
            remote: s.remote.clone(),
            client: Some(s.client.clone()).filter(|client| !client.is_empty()),
            state: s.state.clone(),
            target: s.target.clone(),
            age_ms: s.age_ms,
            bytes_received: s.bytes_received,
            bytes_sent: s.bytes_sent,
            retransmits: s.retransmits,
            srtt_us: s.srtt_us,
            requests: s.requests,
            pipelined: s.pipelined,
        }
    }
}
