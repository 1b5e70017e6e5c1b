//! Closes a window, makes its report durable and tells the delivery.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use delivery::{Progress, SharedSpool, lock};
use kernel_sample::ClientPrefixes;
use monitor_proto::ReportKey;
use monitor_proto::v1;
use prost::Message;
use spool::{SpoolError, checkpoint::Checkpoint};
use tokio::sync::Notify;
use window::{Environment, Sample, Windows};

use crate::{
    names::FollowedFiles,
    queue::SAMPLES_MAX,
    resume::Resume,
    sampler::{SamplerError, SamplerHandle, Shared},
    target::Awaited,
};

/// Why there is no report; its window stays open.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The counters could not be read.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The report could not be made durable.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Makes the reports.
#[derive(Debug)]
pub struct Reporter {
    windows: Windows,
    checkpoint: Checkpoint,
    sampler: SamplerHandle,
    shared: Arc<Shared>,
    spool: SharedSpool,
    wake: Arc<Notify>,
    progress: Arc<Progress>,
    names: Arc<FollowedFiles>,
    awaited: Awaited,
    client_prefixes: Option<ClientPrefixes>,
    // Of the window that is open: kept until its report is durable.
    samples: VecDeque<Sample>,
    reasons: BTreeSet<String>,
    lost: Arc<Lost>,
}

/// What reporters lose.
#[derive(Debug, Default)]
struct Lost {
    samples_dropped: AtomicU64,
    reports_held_back: AtomicU64,
}

/// What the agent itself lost since it began, besides what its spool did.
#[derive(Clone, Debug)]
pub struct OwnLosses {
    shared: Arc<Shared>,
    lost: Arc<Lost>,
}

/// What a reporter works with.
#[derive(Debug)]
pub struct ReporterParts {
    /// This host.
    pub host: v1::Host,
    /// What the first window begins from.
    pub resume: Resume,
    /// Where what was reported last is kept beside the spool.
    pub checkpoint: Checkpoint,
    /// Everything but the kernel's counters when this agent began.
    pub start: Environment,
    /// Asks the sampler.
    pub sampler: SamplerHandle,
    /// The sampler's samples.
    pub shared: Arc<Shared>,
    /// Where reports go.
    pub spool: SharedSpool,
    /// Told of every report.
    pub wake: Arc<Notify>,
    /// What became of the reports.
    pub progress: Arc<Progress>,
    /// What the backends are called.
    pub names: Arc<FollowedFiles>,
    /// What is not there yet.
    pub awaited: Awaited,
    /// How much of clients' addresses may be told.
    pub client_prefixes: Option<ClientPrefixes>,
}

impl Reporter {
    /// Goes on where an earlier agent stopped.
    #[must_use]
    pub fn new(parts: ReporterParts) -> Self {
        let Resume {
            baseline,
            reported_until_unix_ns,
            reasons,
        } = parts.resume;
        let windows = Windows::new(parts.host, baseline, parts.start);
        Self {
            windows: windows.reported_until(reported_until_unix_ns),
            checkpoint: parts.checkpoint,
            sampler: parts.sampler,
            shared: parts.shared,
            spool: parts.spool,
            wake: parts.wake,
            progress: parts.progress,
            names: parts.names,
            awaited: parts.awaited,
            client_prefixes: parts.client_prefixes,
            samples: VecDeque::new(),
            reasons,
            lost: Arc::default(),
        }
    }

    /// Closes the window now.
    ///
    /// # Errors
    /// Where there is no report; the next one covers this window too.
    pub async fn report(&mut self) -> Result<ReportKey, ReportError> {
        let reported = self.try_report().await;
        if reported.is_err() {
            self.lost.reports_held_back.fetch_add(1, Ordering::Relaxed);
        }
        let error = reported.as_ref().err();
        self.progress
            .reported(error.map(|error| error as &(dyn std::error::Error + 'static)));
        reported
    }

    async fn try_report(&mut self) -> Result<ReportKey, ReportError> {
        let mut reading = self.sampler.read().await?;
        self.take_samples();
        self.reasons.append(&mut reading.incomplete_reasons);
        reading.incomplete_reasons.clone_from(&self.reasons);
        reading.names = self.names.names().into();
        reading.notes = self.names.notes();
        reading.notes.extend(self.awaited.names());
        reading.environment.losses = self.losses().by_reason().into();
        let samples = self.samples.make_contiguous();
        // One lock from the key to the append: a conflict that is answered meanwhile begins
        // an epoch, and gives the next report another key.
        let (key, closed, baseline) = {
            let mut spool = lock(&self.spool);
            reading.environment.spool_losses = spool.losses().by_reason().into();
            let mut closed = self.windows.close(spool.next_key(), reading, samples);
            shorten_clients(&mut closed.report, self.client_prefixes);
            let baseline = closed.baseline.encode();
            let key = spool.append(&closed.report.encode_to_vec(), &baseline)?;
            (key, closed, baseline)
        };
        self.checkpoint.write(key, &baseline);
        self.windows.commit(closed);
        self.samples.clear();
        self.reasons.clear();
        self.wake.notify_one();
        Ok(key)
    }

    fn take_samples(&mut self) {
        self.samples.extend(self.shared.samples.drain());
        let over = self.samples.len().saturating_sub(SAMPLES_MAX);
        self.samples.drain(..over);
        let dropped = &self.lost.samples_dropped;
        dropped.fetch_add(over as u64, Ordering::Relaxed);
    }

    /// What the agent itself lost, for whoever tells it.
    #[must_use]
    pub fn losses(&self) -> OwnLosses {
        OwnLosses {
            shared: Arc::clone(&self.shared),
            lost: Arc::clone(&self.lost),
        }
    }
}

impl OwnLosses {
    /// By reason, now.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 3] {
        let lost = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let samples_dropped = self.shared.samples.dropped() + lost(&self.lost.samples_dropped);
        [
            ("samples_dropped", samples_dropped),
            ("samples_failed", self.shared.failures()),
            ("reports_held_back", lost(&self.lost.reports_held_back)),
        ]
    }
}

/// Leaves of clients' addresses in the list of sockets what may be told of them, where
/// that is less than by default.
fn shorten_clients(report: &mut v1::Report, prefixes: Option<ClientPrefixes>) {
    if prefixes == Some(ClientPrefixes::default()) {
        return;
    }
    let downstream = i32::from(v1::Role::Downstream);
    let shortened = |text: &str| -> String {
        let address = text.parse::<SocketAddr>().ok();
        let known = address.zip(prefixes);
        known.map_or_else(String::new, |(address, prefixes)| {
            SocketAddr::new(prefixes.client(address.ip()), address.port()).to_string()
        })
    };
    for socket in &mut report.top_sockets {
        if socket.role == downstream {
            socket.remote = shortened(&socket.remote);
            socket.client = shortened(&socket.client);
        }
    }
}

#[cfg(test)]
mod tests;
