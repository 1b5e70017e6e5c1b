//! The JSON that collectors serve and commands print.
//!
//! Its names are a contract: fields are added, never renamed.  Integers are
//! JSON numbers, times are RFC 3339 in UTC, and what was not measured is
//! `null`, never 0.

mod clients;
mod counters;
mod endpoint;
mod host;
mod hosts;
mod report;
mod summary;
mod time;

pub use clients::{Client, ClientFigures, Clients, Top, TopRow};
pub use counters::{ConnectionsFailed, Counters, Histogram, Responses};
pub use endpoint::{AcceptQueue, Endpoint, RoundTripTime, SocketSummary, Totals};
pub use host::{
    Cpu, Disk, Gauge, HostMetrics, Memory, NetworkInterface, NetworkNamespace, Pressure, Target,
};
pub use hosts::{HostSummary, Hosts, Stats, StatsResponse};
pub use report::{Agent, Host, Reconciliation, Report, Reports};
pub use summary::{
    Sparkline, Summary, SummaryDurations, SummaryFigures, SummaryHost, SummaryKey, SummaryPart,
    SummaryRange, SummaryRow,
};
pub use time::rfc3339;
