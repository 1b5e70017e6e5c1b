//! The agent's own metrics, in Prometheus' text format: what it loses, holds,
//! delivers and costs.  What it counts for the proxy is in the reports.

mod serve;
mod text;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use delivery::{Progress, SharedSpool, lock};
pub use serve::serve;

use crate::{
    clock::process_cpu_ns,
    queue::SAMPLES_MAX,
    reporter::OwnLosses,
    sampler::{Shared, resident_bytes},
};

/// Where the figures come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The sampler's newest.
    pub shared: Arc<Shared>,
    /// The reports that wait.
    pub spool: SharedSpool,
    /// How much of them there may be.
    pub spool_bytes_max: u64,
    /// What became of the others.
    pub progress: Arc<Progress>,
    /// What the agent lost.
    pub losses: OwnLosses,
}

/// The newest sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LastSample {
    unix_ns: u64,
    duration: Duration,
    interval: Duration,
    endpoints: u64,
    connections_active: u64,
}

/// Everything that is told, at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
struct AgentMetrics {
    cpu_ns: u64,
    memory_bytes: u64,
    losses: Vec<(&'static str, u64)>,
    samples_queued: u64,
    spool_reports: u64,
    spool_bytes: u64,
    spool_bytes_max: u64,
    reports_delivered: u64,
    connected: bool,
    sample: Option<LastSample>,
}

impl Source {
    /// The metrics, now.
    #[must_use]
    pub fn text(&self) -> String {
        text::render(&self.figures())
    }

    fn figures(&self) -> AgentMetrics {
        let newest = self.shared.newest.load_full();
        let kernel = newest.as_ref().and_then(|n| n.kernel.as_ref());
        let mut losses: Vec<_> = self.losses.by_reason().into();
        losses.extend(kernel.iter().flat_map(|k| k.losses.iter().copied()));
        let sample = newest.as_ref().map(|n| LastSample {
            unix_ns: n.at.unix_ns,
            duration: n.took,
            interval: n.interval,
            endpoints: kernel.map_or(0, |k| k.endpoints.len() as u64),
            connections_active: kernel.map_or(0, |k| k.connections_active()),
        });
        let spool = lock(&self.spool);
        losses.extend(spool.losses().by_reason());
        AgentMetrics {
            cpu_ns: process_cpu_ns(),
            memory_bytes: resident_bytes(),
            losses,
            samples_queued: self.shared.samples.waiting() as u64,
            spool_reports: spool.pending(),
            spool_bytes: spool.bytes(),
            spool_bytes_max: self.spool_bytes_max,
            reports_delivered: self.progress.delivered.load(Ordering::Relaxed),
            connected: self.progress.connected.load(Ordering::Relaxed),
            sample,
        }
    }
}

/// How many samples may wait for their report.
const QUEUE_CAPACITY: u64 = SAMPLES_MAX as u64;
