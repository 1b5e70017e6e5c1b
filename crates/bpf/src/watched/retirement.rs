//! Endpoints that are idle for long give their place to others.
//!
//! A place is given back in two steps.  First the endpoint is taken out of the
//! programs' map; a program that had found it before may still count there, and
//! what it counts is the endpoint's.  All such programs are waited for.  When nothing
//! was counted for a while longer, the totals are set aside and the place goes back to
//! the pool.  An endpoint that
//! comes again goes on from its totals.
//!
//! The totals are set aside together with the place that they were in; until that
//! is cleared it does not count.  An agent that is killed in between leaves it so,
//! and the next one clears it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use monitor_common::{
    counters::{EndpointCounters, WORDS},
    endpoint::{EndpointKey, OTHER_SLOTS},
};

use crate::{
    error::{KernelError, failed},
    maps::Slots,
    object::maps,
    pins::Pins,
    syscall,
    watched::counts::{Connections, Counts},
};

/// How many endpoints' totals are set aside; when there are more, endpoints keep
/// their places.
const RETIRED_MAX: u32 = 8_192;

/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;

/// The second step comes after this part of the time to the first.
const SECOND_STEP: u32 = 60;

/// Totals as they are pinned, and in front of them the slot that they were in and
/// that is not cleared yet, plus one.
type Row = [u64; 1 + WORDS];

type Table = BpfHashMap<MapData, EndpointKey, Row>;

/// Totals that were set aside.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) counters: Box<EndpointCounters>,
    /// The slot that does not count, as its counts are in these already.
    uncleared: Option<u32>,
}

impl Totals {
    fn of(row: &Row) -> Self {
        let mut counters = Box::new(EndpointCounters::ZERO);
        counters.words_mut().copy_from_slice(&row[1..]);
        Self {
            counters,
            uncleared: row[0].checked_sub(1).and_then(|slot| slot.try_into().ok()),
        }
    }

    fn row(&self) -> Row {
        let mut row = [0; 1 + WORDS];
        row[0] = self.uncleared.map_or(0, |slot| u64::from(slot) + 1);
        row[1..].copy_from_slice(self.counters.words());
        row
    }
}

/// What was set aside, by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    totals: HashMap<EndpointKey, Totals>,
    /// The slots that do not count; hardly ever there are any.
    uncleared: Vec<u32>,
}

impl Retired {
    /// What agents before set aside.
    pub(crate) fn read(pins: &Pins) -> Result<Self, KernelError> {
        if !pins.path(maps::RETIRED).exists() {
            return Ok(Self::default());
        }
        Self::of(&table(pins)?)
    }

    fn of(table: &Table) -> Result<Self, KernelError> {
        let mut retired = Self::default();
        for row in table {
            let (key, row) = row.map_err(failed("reading", maps::RETIRED))?;
            retired.insert(key, Totals::of(&row));
        }
        Ok(retired)
    }

    fn insert(&mut self, key: EndpointKey, totals: Totals) {
        let before = self.totals.get(&key).and_then(|totals| totals.uncleared);
        self.uncleared.retain(|slot| Some(*slot) != before);
        self.uncleared.extend(totals.uncleared);
        self.totals.insert(key, totals);
    }

    pub(crate) fn get(&self, key: &EndpointKey) -> Option<&EndpointCounters> {
        self.totals.get(key).map(|totals| &*totals.counters)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EndpointKey, &EndpointCounters)> {
        self.totals
            .iter()
            .map(|(key, totals)| (key, &*totals.counters))
    }

    /// Whether a slot's counts are in the totals of its endpoint already.
    pub(crate) fn holds(&self, slot: u32) -> bool {
        self.uncleared.contains(&slot)
    }
}

fn table(pins: &Pins) -> Result<Table, KernelError> {
    let map = Map::from_map_data(pins.map(maps::RETIRED)?);
    let table = map.and_then(Table::try_from);
    table.map_err(failed("opening", maps::RETIRED))
}

/// How long a slot has been as it is.
struct Idle {
    sum: u64,
    since: Instant,
    /// Whether the programs do not find it any more.
    unlinked: bool,
}

/// What a look at one slot did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    /// Programs that begin now do not find it any more.
    Unlinked,
}

/// Retires the endpoints of one target.
pub(crate) struct Retirement {
    after: Duration,
    table: Table,
    slots: Slots,
    idle: HashMap<u32, Idle>,
    pub(crate) retired: Retired,
    warned: bool,
}

impl std::fmt::Debug for Retirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retirement")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Retirement {
    /// Goes on with what agents before set aside, and clears what they did not.
    pub(crate) fn open(pins: &Pins, counts: &Counts, after: Duration) -> Result<Self, KernelError> {
        if !pins.path(maps::RETIRED).exists() {
            let made = Table::create(RETIRED_MAX, NO_PREALLOC);
            let path = pins.path(maps::RETIRED);
            let pinned = made.map_err(failed("making", maps::RETIRED))?.pin(&path);
            pinned.map_err(|source| KernelError::Pin {
                path,
                source: Box::new(source),
            })?;
        }
        let table = table(pins)?;
        let retired = Retired::of(&table)?;
        let mut retirement = Self {
            after,
            table,
            slots: Slots::open(pins)?,
            idle: HashMap::new(),
            retired,
            warned: false,
        };
        let uncleared = |(key, totals): (&EndpointKey, &Totals)| Some((*key, totals.uncleared?));
        let uncleared: Vec<_> = retirement
            .retired
            .totals
            .iter()
            .filter_map(uncleared)
            .collect();
        for (key, slot) in uncleared {
            retirement.clear(&key, slot, counts)?;
        }
        Ok(retirement)
    }

    /// Looks at every slot once, given the counters that were just read of it.
    pub(crate) fn look<'a>(
        &mut self,
        counts: &Counts,
        slots: impl Iterator<Item = (u32, &'a EndpointCounters)>,
    ) {
        let now = Instant::now();
        let mut unlinked = false;
        for (slot, counters) in slots {
            match self.judge(slot, counters, counts, now) {
                Ok(done) => unlinked |= done == Done::Unlinked,
                Err(error) => {
                    let error = daemon::error_chain(&error);
                    self.warn(&error, "idle endpoints keep their places");
                    break;
                }
            }
        }
        if unlinked {
            self.wait_for_programs();
        }
    }

    /// The second step comes in another look, so that none of the programs that had
    /// found one of these places before runs by then.
    fn wait_for_programs(&mut self) {
        if let Err(error) = syscall::wait_for_programs() {
            // Programs run for microseconds, and the second step is as many seconds
            // away as the first one was minutes.
            let advice = "places of idle endpoints are given away after a time alone";
            self.warn(&error.to_string(), advice);
        }
    }

    fn warn(&mut self, error: &str, what: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(error, "{what}");
        }
    }

    fn judge(
        &mut self,
        slot: u32,
        counters: &EndpointCounters,
        counts: &Counts,
        now: Instant,
    ) -> Result<Done, KernelError> {
        let Some(key) = counts.endpoint_key(slot).filter(|_| slot >= OTHER_SLOTS) else {
            return Ok(Done::Nothing);
        };
        let words = counters.words().iter();
        let sum = words.fold(0u64, |sum, n| sum.rotate_left(1).wrapping_add(*n));
        let room = self.has_room(&key);
        let idle = self.idle.entry(slot).or_insert(Idle {
            sum,
            since: now,
            unlinked: false,
        });
        let connections = Connections::of(counters);
        if idle.sum != sum || connections.begun != connections.ended {
            (idle.sum, idle.since) = (sum, now);
            return Ok(Done::Nothing);
        }
        let waited = now.duration_since(idle.since);
        if !idle.unlinked && waited >= self.after && room {
            (idle.unlinked, idle.since) = (true, now);
            self.slots.unlink(&key, slot)?;
            return Ok(Done::Unlinked);
        }
        if idle.unlinked && waited >= self.after / SECOND_STEP {
            self.idle.remove(&slot);
            self.set_aside(&key, slot, counts)?;
        }
        Ok(Done::Nothing)
    }

    fn has_room(&self, key: &EndpointKey) -> bool {
        let totals = &self.retired.totals;
        totals.len() < RETIRED_MAX as usize || totals.contains_key(key)
    }

    fn set_aside(
        &mut self,
        key: &EndpointKey,
        slot: u32,
        counts: &Counts,
    ) -> Result<(), KernelError> {
        let mut counters = counts.sum(slot);
        if let Some(before) = self.retired.get(key) {
            counters.add(before);
        }
        let totals = Totals {
            counters,
            uncleared: Some(slot),
        };
        self.write(key, totals)?;
        self.clear(key, slot, counts)
    }

    fn clear(&mut self, key: &EndpointKey, slot: u32, counts: &Counts) -> Result<(), KernelError> {
        self.slots.unlink(key, slot)?;
        counts.clear(slot);
        if let Some(totals) = self.retired.totals.get(key) {
            let totals = Totals {
                uncleared: None,
                ..totals.clone()
            };
            self.write(key, totals)?;
        }
        self.slots.release([slot])
    }

    fn write(&mut self, key: &EndpointKey, totals: Totals) -> Result<(), KernelError> {
        let written = self.table.insert(key, totals.row(), 0);
        written.map_err(failed("writing", maps::RETIRED))?;
        self.retired.insert(*key, totals);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_the_slot_that_is_not_cleared_are_read_back() {
        let mut counters = Box::new(EndpointCounters::ZERO);
        for (n, word) in (5..).zip(counters.words_mut()) {
            *word = n;
        }
        for uncleared in [None, Some(0), Some(77)] {
            let totals = Totals {
                counters: counters.clone(),
                uncleared,
            };
            let again = Totals::of(&totals.row());
            assert_eq!(*again.counters, *counters);
            assert_eq!(again.uncleared, uncleared);
            let key = EndpointKey::default();
            let mut retired = Retired::default();
            retired.insert(key, again);
            assert_eq!(retired.holds(77), uncleared == Some(77));
            retired.insert(
                key,
                Totals {
                    counters: counters.clone(),
                    uncleared: None,
                },
            );
            assert!(!retired.holds(77));
        }
    }
}
