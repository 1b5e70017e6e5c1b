//! Clients of listeners, of one report and of a time range.

use serde::{Deserialize, Serialize};

use super::SummaryHost;
use crate::v1;

/// What happened to the connections of a client, of the others, or of all listeners.
///
/// In a report, what is of others may be below zero: a connection of an earlier window
/// was only now told of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct ClientFigures {
    /// Connections that began.
    pub connections_opened: i64,
    /// Payload received.
    pub bytes_received: i64,
    /// Payload sent and acknowledged.
    pub bytes_sent: i64,
    /// Connections that this host reset.
    pub closed_reset_sent: i64,
    /// Connections that the client reset.
    pub closed_reset_received: i64,
    /// HTTP/1 requests; `null` where they were not looked at.
    pub requests: Option<i64>,
    /// Turns of what is not HTTP/1; `null` where they were not looked at.
    pub exchanges: Option<i64>,
    /// HTTP/1 requests that were open when their connection ended; `null` likewise.
    pub requests_without_response: Option<i64>,
}

impl ClientFigures {
    /// Of all listeners in a report's window.
    #[must_use]
    pub fn of_listeners(report: &v1::Report) -> Self {
        let listeners = report.endpoints.iter();
        let listeners = listeners.filter(|e| e.role == i32::from(v1::Role::Downstream));
        let mut sum = Self::default();
        for window in listeners.filter_map(|e| e.window.as_ref()) {
            let http = window.http.as_ref();
            sum.add(&Self {
                connections_opened: signed(window.connections_opened),
                bytes_received: signed(window.bytes_received),
                bytes_sent: signed(window.bytes_sent),
                closed_reset_sent: signed(window.closed_reset_sent.unwrap_or(0)),
                closed_reset_received: signed(window.closed_reset_received.unwrap_or(0)),
                requests: http.map(|http| signed(http.requests)),
                exchanges: http.map(|http| signed(http.exchanges)),
                requests_without_response: http.map(|http| signed(http.requests_without_response)),
            });
        }
        sum
    }

    /// Adds others; what was measured of one of them is known.
    pub fn add(&mut self, other: &Self) {
        self.with(other, i64::saturating_add);
    }

    /// What is left without others.
    pub fn remove(&mut self, other: &Self) {
        self.with(other, i64::saturating_sub);
    }

    fn with(&mut self, other: &Self, f: fn(i64, i64) -> i64) {
        let known = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(f(a.unwrap_or(0), b.unwrap_or(0))),
        };
        *self = Self {
            connections_opened: f(self.connections_opened, other.connections_opened),
            bytes_received: f(self.bytes_received, other.bytes_received),
            bytes_sent: f(self.bytes_sent, other.bytes_sent),
            closed_reset_sent: f(self.closed_reset_sent, other.closed_reset_sent),
            closed_reset_received: f(self.closed_reset_received, other.closed_reset_received),
            requests: known(self.requests, other.requests),
            exchanges: known(self.exchanges, other.exchanges),
            requests_without_response: known(
                self.requests_without_response,
                other.requests_without_response,
            ),
        };
    }

    /// The same without what is below zero.
    #[must_use]
    pub fn at_least_none(self) -> Self {
        let known = |n: Option<i64>| n.map(|n| n.max(0));
        Self {
            connections_opened: self.connections_opened.max(0),
            bytes_received: self.bytes_received.max(0),
            bytes_sent: self.bytes_sent.max(0),
            closed_reset_sent: self.closed_reset_sent.max(0),
            closed_reset_received: self.closed_reset_received.max(0),
            requests: known(self.requests),
            exchanges: known(self.exchanges),
            requests_without_response: known(self.requests_without_response),
        }
    }

    /// Payload in both directions.
    #[must_use]
    pub const fn bytes(&self) -> i64 {
        self.bytes_received.saturating_add(self.bytes_sent)
    }

    /// Resets in both directions.
    #[must_use]
    pub const fn resets(&self) -> i64 {
        self.closed_reset_sent
            .saturating_add(self.closed_reset_received)
    }
}

impl From<&v1::Client> for ClientFigures {
    fn from(c: &v1::Client) -> Self {
        Self {
            connections_opened: signed(c.connections_opened),
            bytes_received: signed(c.bytes_received),
            bytes_sent: signed(c.bytes_sent),
            closed_reset_sent: signed(c.closed_reset_sent),
            closed_reset_received: signed(c.closed_reset_received),
            requests: c.requests.map(signed),
            exchanges: c.exchanges.map(signed),
            requests_without_response: c.requests_without_response.map(signed),
        }
    }
}

/// What is stored fits.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The clients of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Clients {
    /// How many bits of an IPv4 address count.
    pub prefix_v4: u32,
    /// How many bits of an IPv6 address count.
    pub prefix_v6: u32,
    /// Those with the most bytes or connections in the window.
    pub top: Vec<Client>,
    /// What the listeners had besides.
    pub other: ClientFigures,
}

/// A client and its figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Client {
    /// An address, or a network such as `192.0.2.0/24`.
    pub address: String,
    /// In the window.
    #[serde(flatten)]
    pub figures: ClientFigures,
}

impl Clients {
    pub(super) fn of(report: &v1::Report) -> Option<Self> {
        let clients = report.clients.as_ref()?;
        let mut other = ClientFigures::of_listeners(report);
        let client = |c: &v1::Client| {
            let figures = ClientFigures::from(c);
            other.remove(&figures);
            Client {
                address: c.address.clone(),
                figures,
            }
        };
        Some(Self {
            prefix_v4: clients.prefix_v4,
            prefix_v6: clients.prefix_v6,
            top: clients.top.iter().map(client).collect(),
            other,
        })
    }
}

/// An answer of `/api/v1/top`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Top {
    /// What a row is: `client`.
    pub by: String,
    /// By what the rows are ordered, the largest first.
    pub sort: String,
    /// Windows that end after this, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// Up to this one, included.
    #[schemars(extend("format" = "date-time"))]
    pub until: String,
    /// How many clients were told apart.
    pub rows_total: u64,
    /// The first of them.
    pub rows: Vec<TopRow>,
    /// What the listeners had besides: with the rows it is the total.
    pub other: ClientFigures,
    /// All listeners of the hosts that count clients.
    pub total: ClientFigures,
    /// Hosts with reports in the range that do not count clients, and are not in it.
    pub hosts_without: Vec<SummaryHost>,
    /// Why something may be missing; left out where the answer is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
}

/// A client in a time range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TopRow {
    /// An address, or a network such as `192.0.2.0/24`.
    pub client: String,
    /// On how many hosts it was seen.
    pub hosts: u64,
    /// In the range.
    #[serde(flatten)]
    pub figures: ClientFigures,
}
