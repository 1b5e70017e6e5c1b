//! A problem as everyone is told of it.

use serde::{Deserialize, Serialize};

use crate::Kind;

/// How bad it is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Users are affected, or nobody can tell.
    Critical,
}

impl Severity {
    /// All, the worst last.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// As tables, labels and JSON say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.word() == name)
    }
}

/// What a subject is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A host, one of its targets or network namespaces.
    #[default]
    Host,
    /// A downstream endpoint.
    Listener,
    /// An upstream endpoint.
    Backend,
}

impl Place {
    /// As labels and JSON say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Listener => "listener",
            Self::Backend => "backend",
        }
    }
}

/// Whose problem it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Subject {
    /// What it is.
    #[serde(rename = "type")]
    pub place: Place,
    /// The host's name.
    pub host: String,
    /// The host's id.
    pub host_id: String,
    /// The target's path; empty where it is all of the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// An endpoint's address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The name that the proxy's configuration gives a listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// The name of a backend's upstream.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// The name of a backend.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// The network namespace, where it is of one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network_namespace: String,
}

/// A figure that shows the problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Evidence {
    /// What it is, as reports call it where they have it.
    pub name: String,
    /// How much.
    pub value: f64,
    /// `ratio`, `seconds`, or what is counted.
    pub unit: String,
}

/// What is wrong with one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "FoundProblem")]
pub struct Problem {
    /// The name of its kind.
    pub kind: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whose it is.
    pub subject: Subject,
    /// When it began, RFC 3339: the beginning of the first window that showed it.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// The same in Unix nanoseconds; 0 where it was read from JSON.
    #[serde(skip)]
    pub since_unix_ns: u64,
    /// One sentence that says it.
    pub summary: String,
    /// The figures of the last window that could be judged.
    pub evidence: Vec<Evidence>,
    /// Words of the agent that belong to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to look at next.
    pub next: String,
}

/// Problems in one answer: nobody reads more, and each takes about a kilobyte.
pub const PROBLEMS_MAX: usize = 1000;

/// What `GET /api/v1/problems` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problems {
    /// Worst first, [`PROBLEMS_MAX`] at the most.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub total: u64,
    /// How many hosts were judged.
    pub hosts: u64,
}

impl Problem {
    fn rank(&self) -> usize {
        Kind::named(&self.kind).map_or(usize::MAX, |kind| kind as usize)
    }
}

/// Brings problems into their order: worst first, then by kind, then what began
/// first, then by name.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| {
        let by_severity = b.severity.cmp(&a.severity);
        let by_kind = || a.rank().cmp(&b.rank());
        let by_time = || a.since.cmp(&b.since);
        let key = |p: &Problem| {
            let s = &p.subject;
            let key = [
                &s.host,
                &s.host_id,
                &s.target,
                &s.endpoint,
                &s.network_namespace,
            ];
            key.map(String::clone)
        };
        by_severity
            .then_with(by_kind)
            .then_with(by_time)
            .then_with(|| key(a).cmp(&key(b)))
    });
}
