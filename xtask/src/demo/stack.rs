//! Everything that a demo starts.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use testkit::{
    Cgroup,
    fixtures::{Agent, AgentPlan, Binaries, Collector, CollectorPlan, Proxy},
    reports::{self, Counts, Endpoints},
    traffic::{Origin, OriginCounts},
};

use super::{picture::Picture, reconciliation::Reconciliation};

/// Origin, collector, proxy and agent.  What is ended first stands first: the
/// fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Stack {
    agent: Agent,
    proxy: Proxy,
    collector: Collector,
    origin: Origin,
    /// The proxy is in it until its end.
    _cgroup: Cgroup,
}

impl Stack {
    pub(super) fn start(binaries: &Binaries) -> Result<Self> {
        let cgroup = Cgroup::create("demo")?;
        let origin = Origin::on_loopback().context("starting the origin")?;
        let collector = CollectorPlan::new(binaries)?.start()?;
        let proxy = Proxy::start(binaries, &cgroup, &[origin.address()])?;
        let agent = AgentPlan::watching(binaries, &cgroup)?
            .reporting_to(&collector)
            .every(Duration::from_secs(1))
            .start()?;
        Ok(Self {
            agent,
            proxy,
            collector,
            origin,
            _cgroup: cgroup,
        })
    }

    pub(super) fn describe(&self) {
        eprintln!("    proxy      http://{}/", self.proxy_address());
        eprintln!("    origin     http://{}/bytes/100", self.origin.address());
        eprintln!(
            "    collector  http://{}/  (web page)",
            self.collector_http()
        );
        eprintln!(
            "    reports    http://{}/api/v1/reports",
            self.collector_http()
        );
    }

    /// The path of the traffic, with the figures of both sides.
    pub(super) fn picture(&self, figures: &Reconciliation) -> Picture {
        let (proxy, backend) = (self.proxy_address(), self.origin.address());
        Picture::new(&proxy.to_string(), &backend.to_string(), figures)
    }

    pub(super) fn proxy_address(&self) -> SocketAddr {
        self.proxy.address()
    }

    pub(super) fn collector_http(&self) -> SocketAddr {
        self.collector.http()
    }

    /// What the origin's own sockets carried.
    pub(super) fn origin_counts(&self) -> OriginCounts {
        self.origin.counts()
    }

    /// What the kernel has counted.
    pub(super) fn kernel(&self) -> Result<Endpoints> {
        Ok(reports::totals(&self.agent.snapshot()?))
    }

    /// What the collector has stored.
    pub(super) fn stored(&self) -> Result<Endpoints> {
        self.collector.sums()
    }

    /// The counters of the proxy's listener, or of its origin.
    pub(super) fn endpoint<'a>(&self, role: &str, of: &'a Endpoints) -> Option<&'a Counts> {
        let address = match role {
            "downstream" => self.proxy_address(),
            _ => self.origin.address(),
        };
        of.get(&(role.to_owned(), address.to_string()))
    }

    /// Ends everything in order, and takes everything out of the kernel.
    pub(super) fn stop(self) -> Result<()> {
        let Self {
            agent,
            proxy,
            collector,
            ..
        } = self;
        let left = agent.stop()?;
        proxy.stop()?;
        collector.stop()?;
        left.uninstall()
    }
}
