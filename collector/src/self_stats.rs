//! What the collector counts of itself.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use daemon::log_limit;
use export::ForwardStats;
use store::StoreStats;

use crate::auth::Peer;

/// Why a report was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Without the token.
    Unauthenticated,
    /// It breaks a rule and would break it again.
    Invalid,
    /// Too many streams at once.
    Streams,
    /// Too many connections at once.
    Connections,
    /// A TLS handshake failed: mostly a certificate that is not the right one.
    Handshake,
    /// A report of a host for which the sender has no right.
    Forbidden,
    /// There was no room for it in the budget of memory.
    Memory,
    /// More bytes than a host may send.
    Rate,
    /// Too many hosts.
    Hosts,
    /// The disk is full.
    DiskFull,
    /// The store cannot be written.
    Store,
}

impl Refusal {
    /// All reasons, in the order of their names.
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::Connections, "connections"),
        (Self::DiskFull, "disk_full"),
        (Self::Forbidden, "forbidden"),
        (Self::Handshake, "handshake"),
        (Self::Hosts, "hosts"),
        (Self::Invalid, "invalid"),
        (Self::Memory, "memory"),
        (Self::Rate, "rate"),
        (Self::Store, "store"),
        (Self::Streams, "streams"),
        (Self::Unauthenticated, "unauthenticated"),
    ];
}

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct SelfStats {
    pub(crate) stored: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    /// Streams of reports that ended without being closed: a network or an agent
    /// that went away.
    pub(crate) streams_broken: AtomicU64,
    pub(crate) streams_active: AtomicU64,
    pub(crate) watchers_active: AtomicU64,
    pub(crate) grpc_connections: AtomicU64,
    pub(crate) http_connections: AtomicU64,
    pub(crate) store: Arc<StoreStats>,
    /// One of each receiver of remote write.
    pub(crate) remotes: Vec<Arc<ForwardStats>>,
    /// One of each receiver of OTLP.
    pub(crate) otlps: Vec<Arc<ForwardStats>>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl SelfStats {
    pub(crate) fn new<R: Display, O: Display>(remotes: &[R], otlps: &[O]) -> Self {
        let remotes = remotes.iter().map(|url| ForwardStats::new(url).into());
        let otlps = otlps.iter().map(|url| ForwardStats::new(url).into());
        Self {
            remotes: remotes.collect(),
            otlps: otlps.collect(),
            ..Self::default()
        }
    }

    /// Counts a refusal, and says once a minute who is refused and what to do.
    pub(crate) fn refuse(&self, reason: Refusal, peer: &Peer, why: &dyn Display) {
        let slot = Self::slot(reason);
        self.refused[slot].fetch_add(1, Relaxed);
        let (_, reason) = Refusal::ALL[slot];
        let peer = peer.to_string();
        if let Some(left_out) = log_limit::line(reason, &peer) {
            tracing::warn!(reason, peer, %why, left_out, "request rejected");
        }
    }

    pub(crate) fn refused(&self, reason: Refusal) -> u64 {
        self.refused[Self::slot(reason)].load(Relaxed)
    }

    fn slot(reason: Refusal) -> usize {
        Refusal::ALL
            .iter()
            .position(|(other, _)| *other == reason)
            .expect("ALL names every reason, as a test checks")
    }
}

/// Takes one of `max` places; `None` where all are taken.
pub(crate) fn take_place(
    stats: &Arc<SelfStats>,
    of: fn(&SelfStats) -> &AtomicU64,
    max: u64,
) -> Option<Place> {
    let place = Place {
        stats: Arc::clone(stats),
        of,
    };
    // Dropping the place gives it back, also where it was one too many.
    (of(stats).fetch_add(1, Relaxed) < max).then_some(place)
}

/// A place that is given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    stats: Arc<SelfStats>,
    of: fn(&SelfStats) -> &AtomicU64,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.of)(&self.stats).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use export::Rejection;

    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let stats = Arc::new(SelfStats::default());
        let take = || take_place(&stats, |s| &s.streams_active, 2);
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some() && take().is_none());
        drop(first);
        assert!(take().is_some());
        assert_eq!(stats.streams_active.load(Relaxed), 1);
    }

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../docs/metrics.md");
        let refusals = Refusal::ALL.map(|(_, reason)| reason);
        let rejections = Rejection::ALL.map(|(_, reason)| reason);
        for reason in refusals.iter().chain(&rejections) {
            assert!(page.contains(&format!("\n| `{reason}` |")), "{reason}");
        }
    }

    #[test]
    fn every_refusal_has_a_slot_of_its_own() {
        let stats = SelfStats::default();
        for (n, (reason, _)) in (1..).zip(Refusal::ALL) {
            for _ in 0..n {
                stats.refuse(reason, &Peer::default(), &"a test");
            }
        }
        for (n, (reason, _)) in (1..).zip(Refusal::ALL) {
            assert_eq!(stats.refused(reason), n);
        }
    }
}
