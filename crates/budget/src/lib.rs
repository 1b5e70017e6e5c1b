//! One budget of bytes for everything in flight.
//!
//! What strangers decide about is counted before or while it is held: messages
//! that come in, answers that wait to be taken, scrapes, and what watchers have
//! not read yet.  Each use has a share, so that readers never take the room of
//! agents, and one peer has a half of each, so that the others find some.  What
//! does not fit is refused and counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;

/// What the bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Messages on their way into the store: as they come, while they are read, and
    /// until they are committed.
    Messages,
    /// Answers by HTTP and gRPC: while they are made and until they are taken.
    Answers,
    /// `/metrics`: what it is written from.
    Scrapes,
    /// Reports that watchers have not taken yet.
    Watchers,
}

impl Use {
    /// All, by their names as labels, and their shares in eighths.
    pub const ALL: [(Self, &'static str, u64); 4] = [
        (Self::Answers, "answers", 2),
        (Self::Messages, "messages", 2),
        (Self::Scrapes, "scrapes", 3),
        (Self::Watchers, "watchers", 1),
    ];

    fn slot(self) -> usize {
        match self {
            Self::Answers => 0,
            Self::Messages => 1,
            Self::Scrapes => 2,
            Self::Watchers => 3,
        }
    }
}

const EIGHTHS: u64 = 8;
/// So many peers find room at least: each has this part of a share at the most.  What
/// `/metrics` is written from is the same for all who ask.
const PEERS_MIN: u64 = 2;

/// There is no room for it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the memory limit (--memory-limit) is reached: read responses to their end, request less at \
     once, or try again later"
)]
pub struct Exhausted;

/// A handle on the budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    shares: [Share; Use::ALL.len()],
}

#[derive(Debug, Default)]
struct Share {
    taken: Mutex<Taken>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    /// Only who has something is in it.
    by_peer: HashMap<Arc<str>, u64>,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit,
            shares: Default::default(),
        }))
    }

    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How much is held for this use.
    pub fn used(&self, of: Use) -> u64 {
        self.0.taken(of).all
    }

    /// How often there was no room for this use.
    pub fn refused(&self, of: Use) -> u64 {
        self.0.shares[of.slot()].refused.load(Relaxed)
    }

    /// Nothing yet, for this peer.
    pub fn open(&self, of: Use, peer: &Arc<str>) -> Held {
        Held {
            inner: Arc::clone(&self.0),
            of,
            peer: Arc::clone(peer),
            bytes: 0,
        }
    }

    /// So many bytes for this peer.
    pub fn take(&self, of: Use, peer: &Arc<str>, bytes: u64) -> Result<Held, Exhausted> {
        let mut held = self.open(of, peer);
        held.resize(bytes)?;
        Ok(held)
    }
}

impl Inner {
    fn taken(&self, of: Use) -> MutexGuard<'_, Taken> {
        let taken = &self.shares[of.slot()].taken;
        taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self, of: Use) -> u64 {
        let (_, _, eighths) = Use::ALL[of.slot()];
        self.limit / EIGHTHS * eighths
    }

    /// More for a peer, which has `before` of the same thing already.  Whatever its
    /// size, it fits where the peer has little else and all others have no more than
    /// half of the share: the largest report passes, one at a time.
    fn add(&self, of: Use, peer: &Arc<str>, before: u64, bytes: u64) -> Result<(), Exhausted> {
        let share = self.share(of);
        let mut taken = self.taken(of);
        let own = taken.by_peer.get(peer).copied().unwrap_or(0);
        let fits = taken.all.saturating_add(bytes) <= share
            && (of == Use::Scrapes || own.saturating_add(bytes) <= share / PEERS_MIN);
        let alone = own - before <= share / EIGHTHS && taken.all - own <= share / PEERS_MIN;
        if !fits && !alone {
            drop(taken);
            self.shares[of.slot()].refused.fetch_add(1, Relaxed);
            return Err(Exhausted);
        }
        taken.all += bytes;
        *taken.by_peer.entry(Arc::clone(peer)).or_default() += bytes;
        Ok(())
    }

    fn give_back(&self, of: Use, peer: &Arc<str>, bytes: u64) {
        let mut taken = self.taken(of);
        taken.all -= bytes;
        if let Some(own) = taken.by_peer.get_mut(peer) {
            *own -= bytes;
            if *own == 0 {
                taken.by_peer.remove(peer);
            }
        }
    }
}

/// Bytes that are given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    inner: Arc<Inner>,
    of: Use,
    peer: Arc<str>,
    bytes: u64,
}

impl Held {
    /// Holds so many bytes from here on.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.inner.add(self.of, &self.peer, self.bytes, more)?;
            self.bytes = bytes;
        }
        self.shrink(bytes);
        Ok(())
    }

    /// How many it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many bytes beside these, for the same use and peer.
    pub fn another(&self, bytes: u64) -> Result<Self, Exhausted> {
        let mut another = Self {
            inner: Arc::clone(&self.inner),
            of: self.of,
            peer: Arc::clone(&self.peer),
            bytes: 0,
        };
        another.resize(bytes)?;
        Ok(another)
    }

    /// Holds so many bytes from here on, where it held more.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.inner.give_back(self.of, &self.peer, less);
            self.bytes = bytes;
        }
    }

    /// A part of these bytes on its own.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            inner: Arc::clone(&self.inner),
            of: self.of,
            peer: Arc::clone(&self.peer),
            bytes,
        }
    }

    /// Holds what another of the same use and peer does.
    pub fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Holds so many bytes more.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        self.resize(self.bytes.saturating_add(bytes))
    }

    /// The same bytes, which are a part of this until nobody needs them any more.
    pub fn share(self: &Arc<Self>, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Counted {
            bytes,
            _held: Arc::clone(self),
        })
    }

    /// The same bytes, for which this stands until nobody needs them any more.
    pub fn around(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Counted { bytes, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.inner.give_back(self.of, &self.peer, self.bytes);
        }
    }
}

struct Counted<B, H> {
    bytes: B,
    _held: H,
}

impl<B: AsRef<[u8]>, H> AsRef<[u8]> for Counted<B, H> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 800;
    const SHARE: u64 = 200;

    fn peers() -> [Arc<str>; 3] {
        ["a", "b", "c"].map(Arc::from)
    }

    #[test]
    fn every_use_has_its_slot_and_the_shares_are_the_whole() {
        for (i, (of, _, _)) in Use::ALL.iter().enumerate() {
            assert_eq!(of.slot(), i);
        }
        assert_eq!(
            Use::ALL.iter().map(|(_, _, share)| share).sum::<u64>(),
            EIGHTHS
        );
    }

    #[test]
    fn a_peer_has_half_and_others_the_rest_and_all_is_given_back() {
        let budget = Budget::new(LIMIT);
        let [a, b, c] = peers();
        let of_a = budget.take(Use::Answers, &a, SHARE / 2).unwrap();
        assert_eq!(budget.take(Use::Answers, &a, 1).unwrap_err(), Exhausted);
        let of_b = budget.take(Use::Answers, &b, SHARE / 2).unwrap();
        assert!(budget.take(Use::Answers, &c, 1).is_err());
        assert!(budget.take(Use::Messages, &a, 1).is_ok(), "another use");
        assert_eq!(budget.used(Use::Answers), SHARE);
        assert_eq!(budget.refused(Use::Answers), 2);
        drop((of_a, of_b));
        assert!(budget.take(Use::Answers, &c, 1).is_ok());
        assert_eq!(budget.used(Use::Answers), 0);
        assert!(budget.0.taken(Use::Answers).by_peer.is_empty());
    }

    #[test]
    fn something_large_passes_alone() {
        let budget = Budget::new(LIMIT);
        let [a, b, _] = peers();
        let _little = budget.take(Use::Answers, &a, SHARE / EIGHTHS).unwrap();
        let mut large = budget.take(Use::Answers, &a, 1).unwrap();
        large.resize(10 * SHARE).unwrap();
        assert!(budget.take(Use::Answers, &a, 1).is_err());
        assert!(budget.take(Use::Answers, &b, 10 * SHARE).is_err());
        large.resize(SHARE / 4).unwrap();
        assert!(budget.take(Use::Answers, &b, 10 * SHARE).is_ok());
    }

    #[test]
    fn a_text_counts_until_its_last_copy_is_gone() {
        let budget = Budget::new(LIMIT);
        let [a, ..] = peers();
        let text = budget.take(Use::Scrapes, &a, 5).unwrap().around("12345");
        let part = text.slice(1..2);
        drop(text);
        assert_eq!((&part[..], budget.used(Use::Scrapes)), (&b"2"[..], 5));
        drop(part);
        assert_eq!(budget.used(Use::Scrapes), 0);
    }
}
