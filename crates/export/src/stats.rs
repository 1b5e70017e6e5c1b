//! What is counted of each receiver.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::receiver::Rejection;

/// What one receiver took.
#[derive(Debug)]
pub struct ForwardStats {
    /// Without what would be a secret.
    pub url: String,
    pub sent: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    pub retries: AtomicU64,
    /// When the oldest report that waits was received; 0 where none does.
    pub(crate) waiting_since_ns: AtomicU64,
}

impl ForwardStats {
    pub fn new(url: &dyn fmt::Display) -> Self {
        Self {
            url: url.to_string(),
            sent: AtomicU64::new(0),
            rejected: Default::default(),
            retries: AtomicU64::new(0),
            waiting_since_ns: AtomicU64::new(0),
        }
    }

    pub fn rejected(&self, reason: Rejection) -> u64 {
        self.rejected[reason as usize].load(Relaxed)
    }

    /// How long the oldest report that is not sent yet has been waiting.
    pub fn behind_ns(&self, now_ns: u64) -> u64 {
        match self.waiting_since_ns.load(Relaxed) {
            0 => 0,
            since => now_ns.saturating_sub(since),
        }
    }

    pub(crate) fn reject(&self, reason: Rejection, units: u64) {
        self.rejected[reason as usize].fetch_add(units, Relaxed);
    }
}
