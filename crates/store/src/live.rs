//! Reports as they come, to everyone who watches.
//!
//! A watcher that reads too slowly loses the oldest and is told how many: the
//! writer never waits for it.

use std::sync::Arc;

use budget::{Budget, Held, Use};
use daemon::log_limit;
use monitor_proto::v1;
use tokio::sync::broadcast;

use crate::codec::{self, CodecError};

/// Reports that a slow watcher may lag behind.
const LAG_MAX: usize = 256;

/// A report that was just committed, its body as it is kept.
#[derive(Clone, Debug)]
pub struct LiveReport {
    pub host_id: Arc<str>,
    pub host_name: Arc<str>,
    pub body: Arc<[u8]>,
    /// The body's room until no watcher waits for it; without room there is no body.
    pub held: Option<Arc<Held>>,
}

impl LiveReport {
    /// Whether it is of this host, given by id or name; empty means any.
    pub fn is_of(&self, host: &str) -> bool {
        host.is_empty() || *self.host_id == *host || *self.host_name == *host
    }

    /// The report, in room that it has until it is sent; `None` where there is none,
    /// or it is unreadable.
    pub fn decoded(&self, mut room: Held) -> Option<(v1::Report, Held)> {
        self.held.as_ref()?;
        match codec::decode_in(&self.body, &mut room) {
            Ok(report) => Some((report, room)),
            Err(CodecError::Exhausted(_)) => None,
            Err(error) => {
                if let Some(left_out) = log_limit::line("live report", &self.host_id) {
                    tracing::error!(%error, left_out, "cannot decode a live report");
                }
                None
            }
        }
    }
}

/// Where live reports are sent and watched.
#[derive(Clone, Debug)]
pub struct Live {
    budget: Budget,
    reports: broadcast::Sender<LiveReport>,
}

impl Live {
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            reports: broadcast::Sender::new(LAG_MAX),
        }
    }

    /// Never waits.
    pub fn send(&self, mut report: LiveReport) {
        // Without a watcher there is nothing to keep.
        if self.reports.receiver_count() == 0 {
            return;
        }
        let bytes = report.body.len() as u64;
        match self.budget.take(Use::Watchers, &report.host_id, bytes) {
            Ok(held) => report.held = Some(Arc::new(held)),
            Err(_) => report.body = Arc::default(),
        }
        drop(self.reports.send(report));
    }

    pub fn watch(&self) -> broadcast::Receiver<LiveReport> {
        self.reports.subscribe()
    }
}
