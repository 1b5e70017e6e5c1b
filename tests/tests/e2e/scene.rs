//! What every test sets up, and the comparison that every test ends with.

use std::{net::SocketAddr, time::Duration};

use testkit::{
    Cgroup,
    fixtures::{Agent, AgentPlan, Binaries, Collector, CollectorPlan, Level, Proxy},
    reports::{Counts, Endpoints},
    traffic::{Load, LoadErrors, Origin, OriginCounts, Outcome},
};

/// How long reports may take on a loaded machine.
pub(crate) const REPORTS: Duration = Duration::from_secs(30);

/// A watched cgroup with an agent that reports to a collector.
pub(crate) struct Scene {
    pub(crate) agent: Agent,
    pub(crate) collector: Collector,
    pub(crate) cgroup: Cgroup,
}

impl Scene {
    pub(crate) fn watched_at(level: Level) -> Self {
        Self::watching(Cgroup::create("e2e").unwrap(), level)
    }

    /// The same with processes in the cgroup that were there before the agent.
    pub(crate) fn watching(cgroup: Cgroup, level: Level) -> Self {
        let binaries = Binaries::of_this_build().unwrap();
        let collector = CollectorPlan::new(&binaries).unwrap().start().unwrap();
        let agent = AgentPlan::watching(&binaries, &cgroup)
            .unwrap()
            .at_level(level)
            .reporting_to(&collector)
            .start()
            .unwrap();
        Self {
            agent,
            collector,
            cgroup,
        }
    }

    pub(crate) fn proxy_to(&self, origin: SocketAddr) -> Proxy {
        Proxy::start(&Binaries::of_this_build().unwrap(), &self.cgroup, &[origin]).unwrap()
    }

    /// Ends the agent, whose last report is sent, and sums up all reports.
    pub(crate) fn end(self) -> Endpoints {
        let left = self.agent.stop().unwrap();
        let reports = self.collector.reports().unwrap();
        for report in &reports {
            let losses = report["losses"].as_object().unwrap();
            assert!(losses.values().all(|lost| *lost == 0), "{losses:?}");
        }
        let sums = self.collector.sums().unwrap();
        left.uninstall().unwrap();
        self.collector.stop().unwrap();
        sums
    }
}

/// An origin of the family of this address.
pub(crate) fn origin_on(ip: &str) -> Origin {
    Origin::start(&[SocketAddr::new(ip.parse().unwrap(), 0)]).unwrap()
}

/// Sends everything, and finds nothing wrong with the traffic itself.
pub(crate) fn send(load: Load) -> Outcome {
    let outcome = load.run().unwrap();
    assert_eq!(outcome.errors, LoadErrors::default());
    outcome
}

/// What the kernel must have counted at the proxy's listener.
pub(crate) fn downstream(outcome: &Outcome) -> Counts {
    expected([
        ("connections_opened", outcome.connections),
        ("connections_closed", outcome.connections),
        ("requests", outcome.requests),
        ("responses.1xx", outcome.responses.informational),
        ("responses.2xx", outcome.responses.successful),
        ("responses.3xx", outcome.responses.redirection),
        ("responses.4xx", outcome.responses.client_error),
        ("responses.5xx", outcome.responses.server_error),
        ("bytes_received", outcome.bytes_sent),
        ("bytes_sent", outcome.bytes_received),
    ])
}

/// What the kernel must have counted towards the origin.
pub(crate) fn upstream(counts: &OriginCounts) -> Counts {
    expected([
        ("connections_opened", counts.connections),
        ("connections_closed", counts.connections),
        ("requests", counts.requests),
        ("responses.1xx", counts.responses.informational),
        ("responses.2xx", counts.responses.successful),
        ("responses.3xx", counts.responses.redirection),
        ("responses.4xx", counts.responses.client_error),
        ("responses.5xx", counts.responses.server_error),
        ("bytes_received", counts.bytes_sent),
        ("bytes_sent", counts.bytes_received),
    ])
}

/// Nothing else happened: no failure, no adoption, nothing unacknowledged.
fn expected(figures: [(&str, u64); 10]) -> Counts {
    let nothing = [
        "bytes_unacked",
        "connections_adopted",
        "connections_failed.aborted",
        "connections_failed.other",
        "connections_failed.refused",
        "connections_failed.reset",
        "connections_failed.timeout",
        "connections_failed.unreachable",
        "failed_before_syn",
    ];
    let nothing = nothing.map(|name| (name, 0));
    figures
        .into_iter()
        .chain(nothing)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Compares an endpoint with what it must be.  Packets are left out: how many
/// segments carry the bytes is the kernel's business.
#[track_caller]
pub(crate) fn assert_endpoint(sums: &Endpoints, role: &str, at: SocketAddr, expected: &Counts) {
    let key = (role.to_owned(), at.to_string());
    let Some(counted) = sums.get(&key) else {
        panic!("no {key:?} among {:?}", sums.keys().collect::<Vec<_>>());
    };
    let differences: Vec<String> = expected
        .iter()
        .filter(|(name, value)| counted.get(*name) != Some(*value))
        .map(|(name, value)| format!("{name}: expected {value}, counted {:?}", counted.get(name)))
        .collect();
    assert!(
        differences.is_empty(),
        "{role} {at}:\n  {}\nof {counted:?}",
        differences.join("\n  ")
    );
}
