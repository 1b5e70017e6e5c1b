//! Reports as they come, to everyone who watches.
//!
//! A watcher that reads too slowly loses the oldest and is told how many: the
//! writer never waits for it.

use std::sync::Arc;

use tokio::sync::broadcast;

/// Reports that a slow watcher may lag behind.
const LAG_MAX: usize = 256;

/// A report that was just committed, its body as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct LiveReport {
    pub(crate) host_id: Arc<str>,
    pub(crate) host_name: Arc<str>,
    pub(crate) body: Arc<[u8]>,
}

impl LiveReport {
    /// Whether it is of this host, given by id or name; empty means any.
    pub(crate) fn is_of(&self, host: &str) -> bool {
        host.is_empty() || *self.host_id == *host || *self.host_name == *host
    }
}

/// Where live reports are sent and watched.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    reports: broadcast::Sender<LiveReport>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            reports: broadcast::Sender::new(LAG_MAX),
        }
    }

    /// Never waits.
    pub(crate) fn send(&self, report: LiveReport) {
        // Without a watcher there is nothing to keep.
        if self.reports.receiver_count() > 0 {
            drop(self.reports.send(report));
        }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<LiveReport> {
        self.reports.subscribe()
    }
}
