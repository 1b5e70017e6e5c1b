//! What the store counts of itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::kept::Damaged;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct StoreStats {
    pub commits: AtomicU64,
    pub commits_failed: AtomicU64,
    pub commit_ns: AtomicU64,
    /// Endpoints' buckets that were not rolled up: their host has too many.
    pub rolls_left_out: AtomicU64,
    /// Reports deleted for their age or the store's size.
    pub retired: AtomicU64,
    /// Rows that cannot be read.
    pub damaged: Arc<Damaged>,
}

impl StoreStats {
    pub(crate) fn commit(&self, took: Duration, done: bool) {
        let counter = if done {
            &self.commits
        } else {
            &self.commits_failed
        };
        counter.fetch_add(1, Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.commit_ns.fetch_add(ns, Relaxed);
    }
}
