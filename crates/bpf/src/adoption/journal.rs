//! The adopted connections, in memory that outlives the agent.
//!
//! What an adopted connection carried is the difference of two readings, so that
//! looking at it changes no counter.  Only its beginning and its end do, and these
//! are written down before they are done: an agent that is killed in between
//! leaves a journal that the next one does again.  The journal holds what the
//! counters shall be, not what is to be added, so that doing it twice is doing it
//! once.
//!
//! Architecture invariant: pure but for the memory it is given; one writer.

use std::{collections::HashMap, mem::offset_of};

use monitor_common::{
    counters::{EndpointCounters, Failure},
    ending::Ending,
};

/// The words of one entry.
pub(crate) const ENTRY_WORDS: usize = 16;

/// Words that outlive the process.
pub(crate) trait Words {
    fn get(&self, place: usize) -> u64;
    fn set(&mut self, place: usize, word: u64);
}

/// The counters of which the agent itself is the only writer.
pub(crate) trait OwnCounters {
    fn get(&self, slot: u32, word: usize) -> u64;
    fn set(&self, slot: u32, word: usize, count: u64);
}

/// What a connection carried: payload received and sent, segments received, sent
/// and sent again.
pub(crate) type StreamCounters = [u64; STREAM_COUNTERS];

const STREAM_COUNTERS: usize = 5;

/// One adopted connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) cookie: u64,
    pub(crate) slot: u32,
    pub(crate) role: u8,
    /// The flags below.
    pub(crate) flags: u8,
    /// When it was adopted, or when what it carried was last added to the
    /// counters.
    pub(crate) base: StreamCounters,
    /// When it was looked at last.
    pub(crate) last: StreamCounters,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed(Ending),
    Failed,
    /// Its end was counted before.
    Counted,
}

impl Entry {
    /// Its handshake was completed.
    pub(crate) const ESTABLISHED: u8 = 1;
    /// The peer's FIN is among what was received.
    pub(crate) const PEER_FIN: u8 = 1 << 1;
    /// The last dump did not have it.
    pub(crate) const MISSING: u8 = 1 << 2;
    /// It is closed, and its end was counted; the process still holds it.
    pub(crate) const GONE: u8 = 1 << 3;

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What is in no counter yet.
    pub(crate) fn pending(&self) -> StreamCounters {
        std::array::from_fn(|i| self.last[i].saturating_sub(self.base[i]))
    }

    fn identity(&self) -> u64 {
        u64::from(self.slot) | u64::from(self.role) << 32 | u64::from(self.flags) << 40
    }
}

// An entry's words.
const COOKIE: usize = 0;
const IDENTITY: usize = 1;
const BASE: usize = 2;
const LAST: usize = BASE + STREAM_COUNTERS;

// The journal's words; it lies where the first entry would.
const ARMED: usize = 0;
const ENTRY: usize = 1;
const SLOT: usize = 2;
const COOKIE_THEN: usize = 3;
const IDENTITY_THEN: usize = 4;
const REBASE: usize = 5;
const COUNTS: usize = 6;
// Which counter counts the end, and what it shall be.
const END: usize = COUNTS + COUNTED.len();
const END_COUNT: usize = END + 1;

/// An end that no counter counts.
const NO_END: u64 = u64::MAX;

const _: () = assert!(LAST + STREAM_COUNTERS <= ENTRY_WORDS && END_COUNT < ENTRY_WORDS);

macro_rules! counted {
    ($($field:ident)*) => {
        [$(word(offset_of!(EndpointCounters, $field))),*]
    };
}

const fn word(offset: usize) -> usize {
    offset / size_of::<u64>()
}

/// The counters that an adopted connection changes, but for its end, the figures first.
const COUNTED: [usize; 7] = counted!(bytes_received bytes_sent packets_received packets_sent
    retransmits bytes_unacked connections_adopted);
const UNACKED: usize = 5;
const ADOPTED: usize = 6;

/// The counter of an end, if there is one.
fn end_word(ended: Ended) -> Option<usize> {
    match ended {
        Ended::Closed(ending) => {
            Some(word(offset_of!(EndpointCounters, connections_closed)) + ending as usize)
        }
        Ended::Failed => {
            Some(word(offset_of!(EndpointCounters, connections_failed)) + Failure::Other as usize)
        }
        Ended::Counted => None,
    }
}

/// The adopted connections of one target.
#[derive(Debug)]
pub(crate) struct Journal<W> {
    words: W,
    places: HashMap<u64, usize>,
    free: Vec<usize>,
}

impl<W: Words> Journal<W> {
    /// Goes on with what an agent before left in room for so many entries, having
    /// done what it left undone.
    pub(crate) fn recover(words: W, entries: usize, counters: &impl OwnCounters) -> Self {
        let mut journal = Self {
            words,
            places: HashMap::new(),
            free: Vec::new(),
        };
        if journal.words.get(ARMED) != 0 {
            journal.apply(counters);
        }
        for place in (1..=entries).rev() {
            match journal.words.get(place * ENTRY_WORDS + COOKIE) {
                0 => journal.free.push(place),
                cookie => drop(journal.places.insert(cookie, place)),
            }
        }
        journal
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn get(&self, cookie: u64) -> Option<Entry> {
        self.places.get(&cookie).map(|&place| self.read(place))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.places.values().map(|&place| self.read(place))
    }

    fn read(&self, place: usize) -> Entry {
        read(&self.words, place)
    }

    /// Adopts a connection; false where there is no room.
    pub(crate) fn add(&mut self, entry: &Entry, counters: &impl OwnCounters) -> bool {
        let Some(place) = self.free.pop() else {
            return false;
        };
        self.places.insert(entry.cookie, place);
        self.write_counters(place, BASE, &entry.base);
        self.write_counters(place, LAST, &entry.last);
        let mut counts = [0; COUNTED.len()];
        counts[ADOPTED] = 1;
        self.commit(place, entry, false, &counts, Ended::Counted, counters);
        true
    }

    /// Takes over an entry from a smaller journal; its counts are made already.
    pub(crate) fn copy(&mut self, entry: &Entry) {
        if let Some(place) = self.free.pop() {
            self.places.insert(entry.cookie, place);
            self.write_counters(place, BASE, &entry.base);
            self.write_counters(place, LAST, &entry.last);
            self.set(place, IDENTITY, entry.identity());
            self.set(place, COOKIE, entry.cookie);
        }
    }

    /// Notes what was seen of a connection.
    pub(crate) fn observe(&mut self, cookie: u64, last: &StreamCounters, flags: u8) {
        let Some(&place) = self.places.get(&cookie) else {
            return;
        };
        let entry = Entry {
            flags,
            ..self.read(place)
        };
        self.write_counters(place, LAST, last);
        self.set(place, IDENTITY, entry.identity());
    }

    /// Adds what a connection carried to the counters, and its end.  It is kept
    /// where `keep` says that the process still holds it.
    pub(crate) fn end(
        &mut self,
        cookie: u64,
        ended: Ended,
        unacked: u64,
        keep: bool,
        counters: &impl OwnCounters,
    ) {
        let Some(&place) = self.places.get(&cookie) else {
            return;
        };
        let mut entry = self.read(place);
        let mut counts = [0; COUNTED.len()];
        counts[..STREAM_COUNTERS].copy_from_slice(&entry.pending());
        counts[UNACKED] = unacked;
        if keep {
            entry.flags |= Entry::GONE;
        } else {
            entry.cookie = 0;
            self.places.remove(&cookie);
            self.free.push(place);
        }
        self.commit(place, &entry, keep, &counts, ended, counters);
    }

    /// Writes down what shall be, and then does it.
    fn commit(
        &mut self,
        place: usize,
        then: &Entry,
        rebase: bool,
        counts: &[u64; COUNTED.len()],
        ended: Ended,
        counters: &impl OwnCounters,
    ) {
        self.words.set(ENTRY, place as u64);
        self.words.set(SLOT, then.slot.into());
        self.words.set(COOKIE_THEN, then.cookie);
        self.words.set(IDENTITY_THEN, then.identity());
        self.words.set(REBASE, rebase.into());
        for (i, (word, count)) in COUNTED.iter().zip(counts).enumerate() {
            let sum = counters.get(then.slot, *word).wrapping_add(*count);
            self.words.set(COUNTS + i, sum);
        }
        let end = end_word(ended);
        self.words.set(END, end.map_or(NO_END, |word| word as u64));
        if let Some(word) = end {
            let count = counters.get(then.slot, word).wrapping_add(1);
            self.words.set(END_COUNT, count);
        }
        self.words.set(ARMED, 1);
        self.apply(counters);
    }

    fn apply(&mut self, counters: &impl OwnCounters) {
        // Both were written from narrower numbers.
        let slot = self.words.get(SLOT) as u32;
        let place = self.words.get(ENTRY) as usize;
        for (i, word) in COUNTED.iter().enumerate() {
            counters.set(slot, *word, self.words.get(COUNTS + i));
        }
        let end = self.words.get(END);
        if end != NO_END {
            counters.set(slot, end as usize, self.words.get(END_COUNT));
        }
        if self.words.get(REBASE) != 0 {
            let last = self.read(place).last;
            self.write_counters(place, BASE, &last);
        }
        self.set(place, IDENTITY, self.words.get(IDENTITY_THEN));
        self.set(place, COOKIE, self.words.get(COOKIE_THEN));
        self.words.set(ARMED, 0);
    }

    fn set(&mut self, place: usize, word: usize, value: u64) {
        self.words.set(place * ENTRY_WORDS + word, value);
    }

    fn write_counters(&mut self, place: usize, at: usize, counters: &StreamCounters) {
        for (i, figure) in counters.iter().enumerate() {
            self.set(place, at + i, *figure);
        }
    }
}

/// What is pending in a journal that another process writes, by slot.
pub(crate) fn peek(words: &impl Words, entries: usize) -> impl Iterator<Item = Entry> {
    let entries = (1..=entries).map(|place| read(words, place));
    entries.filter(|entry| entry.cookie != 0)
}

fn read(words: &impl Words, place: usize) -> Entry {
    let word = |at: usize| words.get(place * ENTRY_WORDS + at);
    let identity = word(IDENTITY);
    let [_, _, _, _, role, flags, _, _] = identity.to_le_bytes();
    Entry {
        cookie: word(COOKIE),
        // The lower half.
        slot: identity as u32,
        role,
        flags,
        base: std::array::from_fn(|i| word(BASE + i)),
        last: std::array::from_fn(|i| word(LAST + i)),
    }
}

#[cfg(test)]
mod tests;
