//! Connections that are older than the programs.
//!
//! They get no callbacks.  A dump when the programs are attached finds them, each
//! dump since says what they carried, and the kernel tells of their ends.

pub(crate) mod journal;
mod reading;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap, Map, MapData};
use kernel_sample::LiveSocket;
use monitor_common::{
    adopted::Adopted,
    ending::Ending,
    endpoint::{EndpointKey, Role, other_slot},
    losses::Loss,
    slot_key::SlotKey,
};

use self::journal::{ENTRY_WORDS, Ended, Entry, Journal, OwnCounters, StreamCounters, Words};
use crate::{
    cgroup2::cgroups,
    error::{KernelError, failed},
    maps::{Access, Mapped, Slots},
    namespaces::Namespaces,
    object::maps,
    pins::Pins,
    sockdiag::{Diag, Ends},
};

/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;

/// Room for connections that are adopted later: those of a cgroup that is made
/// again, of which its first processes opened some before it was seen.
const SPARE: usize = 63;

/// How long the kernel takes at the most to tell of the end of a socket that no process
/// holds, unless it is out of memory.
const LAST_WORD: Duration = Duration::from_secs(1);

/// One entry of the journal's map.
pub(crate) type Row = [u64; ENTRY_WORDS];

/// The journal's map in memory.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: Mapped<Row>,
    pub(crate) entries: usize,
}

impl Words for Rows {
    fn get(&self, place: usize) -> u64 {
        self.rows.word(place / ENTRY_WORDS, place % ENTRY_WORDS)
    }

    fn set(&mut self, place: usize, word: u64) {
        let (row, word_of_row) = (place / ENTRY_WORDS, place % ENTRY_WORDS);
        self.rows.set_word(row, word_of_row, word);
    }
}

impl Rows {
    /// The pinned map, where there is one.
    pub(crate) fn open(pins: &Pins, access: Access) -> Result<Option<Self>, KernelError> {
        if !pins.path(maps::JOURNAL).exists() {
            return Ok(None);
        }
        Self::over(&pins.map(maps::JOURNAL)?, access).map(Some)
    }

    fn over(map: &MapData, access: Access) -> Result<Self, KernelError> {
        let info = map.info().map_err(failed("opening", maps::JOURNAL))?;
        let len = info.max_entries() as usize;
        Ok(Self {
            rows: Mapped::with(access, map, maps::JOURNAL, len)?,
            // The first row is the journal.
            entries: len.saturating_sub(1),
        })
    }

    /// A new map, pinned under a name of its own until it is whole.
    fn create(pins: &Pins, entries: usize) -> Result<Self, KernelError> {
        let len = u32::try_from(1 + entries).unwrap_or(u32::MAX);
        let made = Array::<MapData, Row>::create(len, MMAPABLE);
        let map = made.map_err(failed("making", maps::JOURNAL))?;
        let path = pins.path(maps::NEW_JOURNAL);
        // One that an agent left unfinished.
        std::fs::remove_file(&path).ok();
        map.pin(&path).map_err(|source| KernelError::Pin {
            path,
            source: Box::new(source),
        })?;
        Self::over(&pins.map(maps::NEW_JOURNAL)?, Access::Write)
    }
}

/// Where the agent's own counts go.
pub(crate) trait Books: OwnCounters {
    fn lose(&self, loss: Loss);
}

/// The adopted connections of one target, and what is needed to follow them.
pub(crate) struct Adoption {
    journal: Journal<Rows>,
    marks: HashMap<MapData, u64, Adopted>,
    /// Open while there is any adopted connection.
    ends: Vec<(u64, Ends)>,
    /// Whether ends were missed since the last dump.
    overrun: bool,
    /// Those that no dump has any more and that the kernel is going to tell of, by
    /// cookie, since when.
    awaited: std::collections::HashMap<u64, Instant>,
}

impl std::fmt::Debug for Adoption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoption").finish_non_exhaustive()
    }
}

/// What a target's connections are told from others' by.
pub(crate) struct Membership(Option<HashSet<u64>>);

impl Membership {
    /// The programs count the sockets of a cgroup and of all below it.
    pub(crate) fn of(path: &Path, label: &str) -> Self {
        if label == "/" {
            return Self(None);
        }
        Self(Some(cgroups(path).into_iter().map(|(_, id)| id).collect()))
    }

    pub(crate) fn has(&self, socket: &LiveSocket) -> bool {
        self.has_cgroup(socket.cgroup_id)
    }

    pub(crate) fn has_cgroup(&self, id: u64) -> bool {
        self.0.as_ref().is_none_or(|ids| ids.contains(&id))
    }
}

/// What adopting takes.
pub(crate) struct Adopting<'a, B> {
    pub(crate) pins: &'a Pins,
    pub(crate) storage: &'a std::os::fd::OwnedFd,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) keys: &'a Mapped<SlotKey>,
    pub(crate) books: &'a B,
    pub(crate) members: &'a Membership,
}

impl<B> Adopting<'_, B> {
    fn live(&self) -> Result<Vec<LiveSocket>, KernelError> {
        let live = |diag: &Diag, found: &mut _| diag.live(&[self.storage], found);
        self.namespaces.sockets(live)
    }
}

impl Adoption {
    /// Goes on with the connections that an agent before adopted, and adopts those
    /// that nobody follows.  The programs must be attached.
    pub(crate) fn open<B: Books>(with: &Adopting<'_, B>) -> Result<Self, KernelError> {
        let rows = match Rows::open(with.pins, Access::Write)? {
            Some(rows) => rows,
            None => new_journal(with.pins, SPARE)?,
        };
        let marks = Map::from_map_data(with.pins.map(maps::ADOPTED)?);
        let marks = marks.and_then(HashMap::try_from);
        let entries = rows.entries;
        let mut adoption = Self {
            journal: Journal::recover(rows, entries, with.books),
            marks: marks.map_err(failed("opening", maps::ADOPTED))?,
            // Before the dump: what ends after it is told.
            ends: with.namespaces.ends()?,
            overrun: false,
            awaited: std::collections::HashMap::new(),
        };
        adoption.forget_marks();
        let live = with.live()?;
        adoption.forget_missing(&live, with.books);
        adoption.adopt(&live, with)?;
        adoption.close_ends();
        Ok(adoption)
    }

    /// Marks of connections that are no longer adopted: an agent was killed.
    fn forget_marks(&mut self) {
        let known = |cookie: &u64| self.journal.get(*cookie).is_some();
        let stale: Vec<u64> = self.marks.keys().flatten().filter(|c| !known(c)).collect();
        for cookie in stale {
            self.marks.remove(&cookie).ok();
        }
    }

    /// Connections that ended while no agent looked.
    fn forget_missing<B: Books>(&mut self, live: &[LiveSocket], books: &B) {
        let present: HashSet<u64> = live.iter().map(|s| s.cookie).collect();
        let missing = |e: &Entry| !present.contains(&e.cookie);
        let missing: Vec<Entry> = self.journal.entries().filter(missing).collect();
        for entry in missing {
            books.lose(Loss::AdoptedUnseen);
            self.end(&entry, Ending::Other, 0, books);
        }
    }

    fn end<B: Books>(&mut self, entry: &Entry, ending: Ending, unacked: u64, books: &B) {
        let ended = outcome(entry, ending);
        self.journal.end(entry.cookie, ended, unacked, false, books);
        self.marks.remove(&entry.cookie).ok();
        self.awaited.remove(&entry.cookie);
    }

    fn adopt<B: Books>(
        &mut self,
        live: &[LiveSocket],
        with: &Adopting<'_, B>,
    ) -> Result<(), KernelError> {
        let candidate = |s: &&LiveSocket| {
            s.storage.is_none() && with.members.has(s) && self.journal.get(s.cookie).is_none()
        };
        let mut candidates: Vec<LiveSocket> = live.iter().filter(candidate).copied().collect();
        if candidates.is_empty() {
            return Ok(());
        }
        // A connection that was being opened during the first dump is followed by
        // the time of the second.
        let again: std::collections::HashMap<u64, LiveSocket> =
            with.live()?.into_iter().map(|s| (s.cookie, s)).collect();
        candidates.retain_mut(|candidate| match again.get(&candidate.cookie) {
            Some(now) if now.storage.is_none() => {
                *candidate = *now;
                true
            }
            _ => false,
        });
        let listeners = with.namespaces.sockets(Diag::listeners)?;
        let listening: HashSet<u16> = listeners
            .iter()
            .filter(|l| with.members.has(l))
            .map(|l| l.local.port())
            .collect();
        self.make_room(with, candidates.len())?;
        let mut slots = Slots::open(with.pins)?;
        for socket in &candidates {
            let role = reading::role(socket, &listening);
            let slot = match slots.slot(&endpoint_key(socket, role), with.keys)? {
                Some(slot) => slot,
                None => {
                    with.books.lose(Loss::EndpointMapFull);
                    other_slot(role)
                }
            };
            self.add(socket, role, slot, with.books);
        }
        tracing::info!(
            connections = candidates.len(),
            "adopted connections that are older than the programs"
        );
        Ok(())
    }

    fn add<B: Books>(&mut self, socket: &LiveSocket, role: Role, slot: u32, books: &B) {
        let flags = reading::flags(socket);
        let counters = reading::counters(socket, role, flags, &StreamCounters::default());
        let entry = Entry {
            cookie: socket.cookie,
            slot,
            role: role as u8,
            flags,
            base: counters,
            last: counters,
        };
        let mark = Adopted {
            slot,
            role: role as u8,
            ..Adopted::default()
        };
        // Without its mark its last byte may be uncertain, and no more.
        if let Err(error) = self.marks.insert(entry.cookie, mark, 0) {
            tracing::debug!(%error, "an adopted connection has no mark");
        }
        if !self.journal.add(&entry, books) {
            books.lose(Loss::SocketStorage);
        }
    }

    /// Replaces the journal by a larger one where there is not room enough.
    fn make_room<B: Books>(
        &mut self,
        with: &Adopting<'_, B>,
        wanted: usize,
    ) -> Result<(), KernelError> {
        if self.journal.room() >= wanted {
            return Ok(());
        }
        let old: Vec<Entry> = self.journal.entries().collect();
        let rows = Rows::create(with.pins, old.len() + wanted + SPARE)?;
        let entries = rows.entries;
        let mut journal = Journal::recover(rows, entries, with.books);
        old.iter().for_each(|entry| journal.copy(entry));
        publish(with.pins)?;
        self.journal = journal;
        Ok(())
    }

    /// Takes what the kernel told of ends since the last time.
    pub(crate) fn take_ends<B: Books>(&mut self, books: &B) {
        let mut ended = Vec::new();
        for (_, ends) in &mut self.ends {
            let known = |s: &LiveSocket| self.journal.get(s.cookie).is_some();
            match ends.take(|socket| ended.extend(known(&socket).then_some(socket))) {
                Ok(true) => {}
                Ok(false) => {
                    books.lose(Loss::EndsOverrun);
                    self.overrun = true;
                }
                Err(error) => {
                    tracing::debug!(%error, "ends of adopted connections cannot be read");
                    self.overrun = true;
                }
            }
        }
        for socket in ended {
            self.ended(&socket, books);
        }
        self.close_ends();
    }

    fn ended<B: Books>(&mut self, socket: &LiveSocket, books: &B) {
        let Some(mut entry) = self.journal.get(socket.cookie) else {
            return;
        };
        let Some(role) = Role::from_u8(entry.role) else {
            return;
        };
        let mark = self.marks.get(&socket.cookie, 0).unwrap_or_default();
        let last = reading::last(socket, role, &entry, mark.released_state);
        let ending = reading::ending(socket, role, &last, &mark);
        if last.erased {
            books.lose(Loss::AdoptedUnseen);
        }
        entry.flags |= last.flags;
        entry.flags &= !Entry::MISSING;
        self.journal
            .observe(socket.cookie, &last.counters, entry.flags);
        self.end(&entry, ending, last.unacked, books);
    }

    /// Lets go of the namespaces that no process is in any more.
    pub(crate) fn leave(&mut self, namespaces: &Namespaces) {
        self.ends.retain(|(inode, _)| namespaces.has(*inode));
    }

    /// Takes what a dump says of the adopted connections.
    pub(crate) fn observe(&mut self, live: &[LiveSocket]) {
        for socket in live {
            let Some(entry) = self.journal.get(socket.cookie) else {
                continue;
            };
            let Some(role) = Role::from_u8(entry.role) else {
                continue;
            };
            let flags = (entry.flags & !Entry::MISSING) | reading::flags(socket);
            let counters = reading::counters(socket, role, flags, &entry.last);
            self.journal.observe(socket.cookie, &counters, flags);
        }
    }

    /// Judges those that a dump did not have.  A connection that ended while its
    /// process holds the socket is in no dump any more: its end counts now, what
    /// it carried at last when the process lets go of it.
    pub(crate) fn judge_missing<B: Books>(&mut self, live: &[LiveSocket], books: &B) {
        let overrun = std::mem::take(&mut self.overrun);
        if self.journal.is_empty() {
            return;
        }
        if overrun {
            self.forget_missing(live, books);
            return;
        }
        let present: HashSet<u64> = live.iter().map(|s| s.cookie).collect();
        let missing = |e: &Entry| !present.contains(&e.cookie) && !e.has(Entry::GONE);
        let missing: Vec<Entry> = self.journal.entries().filter(missing).collect();
        for entry in missing {
            if entry.has(Entry::MISSING) {
                let mark = self.marks.get(&entry.cookie, 0).unwrap_or_default();
                if mark.released_state != 0 && self.awaits(entry.cookie) {
                    continue;
                }
                let ending = reading::reset(&mark).unwrap_or(Ending::Other);
                let ended = outcome(&entry, ending);
                self.journal.end(entry.cookie, ended, 0, true, books);
            } else {
                let flags = entry.flags | Entry::MISSING;
                self.journal.observe(entry.cookie, &entry.last, flags);
            }
        }
    }

    /// Whether the kernel may yet tell how a connection ended that its process has let
    /// go of: it does so a moment after the socket has left its tables.
    fn awaits(&mut self, cookie: u64) -> bool {
        let since = self.awaited.entry(cookie).or_insert_with(Instant::now);
        since.elapsed() < LAST_WORD
    }

    /// What the adopted connections carried and no counter has yet.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.journal.entries()
    }

    pub(crate) fn get(&self, cookie: u64) -> Option<Entry> {
        self.journal.get(cookie)
    }

    fn close_ends(&mut self) {
        if self.journal.is_empty() {
            self.ends.clear();
        }
    }
}

fn outcome(entry: &Entry, ending: Ending) -> Ended {
    if entry.has(Entry::GONE) {
        Ended::Counted
    } else if entry.has(Entry::ESTABLISHED) {
        Ended::Closed(ending)
    } else {
        Ended::Failed
    }
}

fn new_journal(pins: &Pins, entries: usize) -> Result<Rows, KernelError> {
    let rows = Rows::create(pins, entries)?;
    publish(pins)?;
    Ok(rows)
}

/// The new journal takes the place of the old one, in one step.
fn publish(pins: &Pins) -> Result<(), KernelError> {
    let path = pins.path(maps::JOURNAL);
    std::fs::rename(pins.path(maps::NEW_JOURNAL), &path).map_err(|source| KernelError::File {
        operation: "renaming the pin to",
        path,
        source,
    })
}

fn endpoint_key(socket: &LiveSocket, role: Role) -> EndpointKey {
    let address: SocketAddr = match role {
        Role::Downstream => socket.local,
        Role::Upstream => socket.remote,
    };
    EndpointKey {
        address: match address.ip() {
            IpAddr::V4(ip) => EndpointKey::v4_mapped(ip.octets()),
            IpAddr::V6(ip) => ip.octets(),
        },
        port: address.port(),
        role: role as u8,
        flags: 0,
    }
}
