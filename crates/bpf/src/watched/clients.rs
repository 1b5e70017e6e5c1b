//! What the clients' ended connections came to, as the programs add it up.
//!
//! An entry belongs to the generation in which its connections ended.  Each reading
//! begins another one, so that what is of a generation before the last reading's changes
//! no more; such entries are removed once a report has them for good.  An agent that
//! is killed in between leaves them, and the next one knows from its baseline what was
//! reported.

use std::{
    collections::HashMap,
    mem::offset_of,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use kernel_sample::{ClientPrefixes, EndedConnections, Settled, TargetClients, client};
use monitor_common::{
    client::{ClientControl, ClientCounters, ClientKey},
    meta::Meta,
};

use crate::{
    error::{KernelError, failed},
    maps::{Access, Mapped},
    object::maps,
    pins::Pins,
};

// The words of what the programs are told.
const MASKS: usize = 0;
const GENERATION: usize = 4;
const IS_ON: usize = 5;
const _: () = assert!(offset_of!(ClientControl, is_on) == IS_ON * size_of::<u64>());

/// The clients of one target.
pub(crate) struct Clients {
    entries: BpfHashMap<MapData, ClientKey, ClientCounters>,
    control: Mapped<ClientControl>,
    /// Whether generations are this one's to begin and to remove.
    is_owner: bool,
    /// Which generations were reported, as far as this one was told.
    reported: Arc<AtomicU64>,
    removed_before: u64,
    warned: bool,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// Counts clients by these prefixes, or none at all.
    pub(crate) fn open(pins: &Pins, prefixes: Option<ClientPrefixes>) -> Result<Self, KernelError> {
        let mut clients = Self::over(pins, Access::Write)?;
        clients.follow(prefixes);
        Ok(clients)
    }

    /// Reads what another agent counts.
    pub(crate) fn peek(pins: &Pins) -> Result<Self, KernelError> {
        Self::over(pins, Access::Read)
    }

    fn over(pins: &Pins, access: Access) -> Result<Self, KernelError> {
        let map = Map::from_map_data(pins.map(maps::CLIENTS)?);
        let entries = map.and_then(BpfHashMap::try_from);
        let control = pins.map(maps::CLIENT_CONTROL)?;
        Ok(Self {
            entries: entries.map_err(failed("opening", maps::CLIENTS))?,
            control: Mapped::with(access, &control, maps::CLIENT_CONTROL, 1)?,
            is_owner: access == Access::Write,
            reported: Arc::default(),
            removed_before: 0,
            warned: false,
        })
    }

    /// Entries by other prefixes are of nobody: their connections are among the others.
    fn follow(&mut self, prefixes: Option<ClientPrefixes>) {
        let is_on = self.control.word(0, IS_ON) != 0;
        if is_on && self.prefixes() == prefixes {
            return;
        }
        self.control.set_word(0, IS_ON, 0);
        let generation = self.control.word(0, GENERATION);
        self.remove_before(u64::MAX);
        let Some(prefixes) = prefixes else { return };
        for (word, mask) in (MASKS..).zip(prefixes.masks().concat()) {
            self.control.set_word(0, word, mask);
        }
        self.control.set_word(0, GENERATION, generation + 1);
        self.control.set_word(0, IS_ON, 1);
    }

    /// How many bits of an address count; `None` where clients are not counted.
    fn prefixes(&self) -> Option<ClientPrefixes> {
        if self.control.word(0, IS_ON) == 0 {
            return None;
        }
        let mask = |i| self.control.word(0, MASKS + i);
        // An address's first bits are its last bytes: of an IPv4 address the upper half
        // of the second word.
        let v4 = (mask(1) >> 32).count_ones();
        let v6 = mask(2).count_ones() + mask(3).count_ones();
        let prefixes = ClientPrefixes::try_new(v4.try_into().ok()?, v6.try_into().ok()?);
        prefixes.ok()
    }

    /// What there is now, before the live sockets are looked at: what ends in between is
    /// missing from both for a moment, and never counted twice.
    pub(crate) fn read(&mut self, label: &Arc<str>, meta: &Meta) -> Option<TargetClients> {
        let prefixes = self.prefixes()?;
        let generation = self.control.word(0, GENERATION);
        if self.is_owner {
            let reported = self.reported.load(Ordering::Acquire);
            if reported > self.removed_before {
                self.remove_before(reported);
                self.removed_before = reported;
            }
            self.control.set_word(0, GENERATION, generation + 1);
        }
        // Once each, though a map that others change may be walked over twice.
        let mut ended = HashMap::new();
        for entry in &self.entries {
            match entry {
                Ok((key, counters)) => {
                    ended.insert((key.address, key.generation), (client(&key), counters));
                }
                Err(error) => {
                    self.warn(&error);
                    break;
                }
            }
        }
        let ended = ended.into_iter();
        let ended = ended.map(|((_, generation), (client, counters))| EndedConnections {
            client,
            generation,
            counters,
        });
        Some(TargetClients {
            target: Arc::clone(label),
            since_unix_ns: meta.since_unix_ns,
            prefixes,
            ended: ended.collect(),
            sees_live: false,
            // Programs run for microseconds, and the reading before this one is as long
            // ago as a window.
            settled: Settled::new(generation, &self.reported),
        })
    }

    fn remove_before(&mut self, generation: u64) {
        let keys: Vec<ClientKey> = self.entries.keys().flatten().collect();
        for key in keys.iter().filter(|key| key.generation < generation) {
            // It may be gone where the map was walked over twice.
            self.entries.remove(key).ok();
        }
    }

    fn warn(&mut self, error: &dyn std::error::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            let error = daemon::error_chain(error);
            tracing::warn!(error, "what clients' connections came to cannot be read");
        }
    }
}
