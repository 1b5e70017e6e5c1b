//! A report and a page of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Clients, Endpoint, HostMetrics, NetworkNamespace, SocketSummary, Target, rfc3339};
use crate::v1;

/// What `GET /api/v1/reports` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Reports {
    /// By window end, then host, epoch and sequence.
    pub reports: Vec<Report>,
    /// What to ask for next; `null` where there is no more.
    pub next_cursor: Option<String>,
}

/// What happened on one host in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Report {
    /// The host.
    pub host: Host,
    /// Its agent.
    pub agent: Agent,
    /// Counts from 1 within an epoch, without gaps.
    pub sequence: u64,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub window_start: String,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub window_end: String,
    /// The window by the monotonic clock: what rates are divided by.
    pub window_duration_ns: u64,
    /// False on any gap, loss, level change or adoption in the window.
    pub complete: bool,
    /// Why it is not complete.
    pub incomplete_reasons: Vec<String>,
    /// What is to be known of the agent and takes nothing from the figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How many samples the gauges are made of.
    pub samples: u32,
    /// The host's metrics.
    pub host_metrics: HostMetrics,
    /// Listeners and peers.
    pub endpoints: Vec<Endpoint>,
    /// The sockets that stand out.
    pub top_sockets: Vec<SocketSummary>,
    /// The clients of the listeners; left out where they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
    /// The watched cgroups.
    pub targets: Vec<Target>,
    /// The network namespaces of the targets.
    pub network_namespaces: Vec<NetworkNamespace>,
    /// The figures by which the report can be checked.
    pub reconciliation: Option<Reconciliation>,
    /// What went uncounted in the window, by reason.
    pub losses: BTreeMap<String, u64>,
    /// The same since `losses_since`.
    pub losses_totals: BTreeMap<String, u64>,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub losses_since: String,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Host {
    /// Stable across restarts.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which boot.
    pub boot_id: String,
    /// Its kernel's release.
    pub kernel: String,
    /// How many cores it has.
    pub cores: u32,
    /// As its agent's configuration says.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Unix milliseconds at which its spool was made.
    pub epoch: u64,
    /// `tcp` or `http`.
    pub level: String,
    /// Its own consumption in the window, as a share of one core.
    pub cpu_usage_ratio: f64,
    /// Its resident memory.
    pub memory_bytes: u64,
}

/// The figures by which a report can be checked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Reconciliation {
    /// How many more connections are counted as active than there are sockets
    /// that the kernel lists: 0.  `null` where the sockets were not looked at, or
    /// some of them cannot be.
    pub connection_difference: Option<i64>,
}

/// The name of a level, as flags and JSON have it.
pub(super) fn level(level: i32) -> &'static str {
    match v1::Level::try_from(level) {
        Ok(v1::Level::Tcp) => "tcp",
        Ok(v1::Level::Http) => "http",
        Ok(v1::Level::Unspecified) | Err(_) => "unspecified",
    }
}

impl From<&v1::Host> for Host {
    fn from(h: &v1::Host) -> Self {
        Self {
            id: h.id.clone(),
            name: h.name.clone(),
            boot_id: h.boot_id.clone(),
            kernel: h.kernel.clone(),
            cores: h.cores,
            labels: h.labels.clone(),
        }
    }
}

impl From<&v1::Agent> for Agent {
    fn from(a: &v1::Agent) -> Self {
        Self {
            version: a.version.clone(),
            epoch: a.epoch,
            level: level(a.level).to_owned(),
            cpu_usage_ratio: a.cpu_usage_ratio,
            memory_bytes: a.memory_bytes,
        }
    }
}

impl From<&v1::Report> for Report {
    fn from(r: &v1::Report) -> Self {
        Self {
            host: r.host.as_ref().map(Into::into).unwrap_or_default(),
            agent: r.agent.as_ref().map(Into::into).unwrap_or_default(),
            sequence: r.sequence,
            window_start: rfc3339(r.window_start_unix_ns),
            window_end: rfc3339(r.window_end_unix_ns),
            window_duration_ns: r.window_duration_ns,
            complete: r.complete,
            incomplete_reasons: r.incomplete_reasons.clone(),
            notes: r.notes.clone(),
            samples: r.samples,
            host_metrics: r.host_metrics.as_ref().map(Into::into).unwrap_or_default(),
            endpoints: r.endpoints.iter().map(Into::into).collect(),
            top_sockets: r.top_sockets.iter().map(Into::into).collect(),
            clients: Clients::of(r),
            targets: r.targets.iter().map(Into::into).collect(),
            network_namespaces: r.network_namespaces.iter().map(Into::into).collect(),
            reconciliation: r.reconciliation.as_ref().map(|c| Reconciliation {
                connection_difference: c.connection_difference,
            }),
            losses: r.losses.clone(),
            losses_totals: r.losses_totals.clone(),
            losses_since: rfc3339(r.losses_since_unix_ns),
        }
    }
}
