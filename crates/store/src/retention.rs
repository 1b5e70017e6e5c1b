//! What is kept for how long, and how the file gets smaller.
//!
//! Age counts from when a report was received, by the collector's clock: a host
//! whose clock is wrong loses nothing early and keeps nothing for ever.  Where the
//! bytes do not suffice for that age, everything is kept for a shorter one,
//! roll-ups for as many times of it as ever: which of them takes the room differs
//! from fleet to fleet.  Deleting is done in small steps between commits, so that
//! no agent waits for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rollup::TIERS_S;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    clock,
    commit::State,
    from_sql,
    hosts::{self, HostRow},
    rolls,
    schema::AGES_FROM,
    to_sql,
};

/// Reports deleted in one transaction.
const STEP_REPORTS: u32 = 16;
/// Pages given back to the file system in one transaction.
const STEP_PAGES: u32 = 128;
/// How long the writer is kept from its queue at once, but for the last transaction.
const STEP_TIME: Duration = Duration::from_millis(5);

/// How often each host's roll-ups are looked at.
const ROLLS_INTERVAL: Duration = Duration::from_secs(600);

/// By how much the age gets shorter at once where the bytes do not suffice.
const SHORTER: f64 = 0.95;

/// Nothing is kept for less.
const AGE_MIN: Duration = Duration::from_secs(1);

/// Where less than this can be kept, somebody should know.
const SHORTEST: Duration = Duration::from_secs(60);

/// Whose roll-ups are to be looked at, and when it is done again.
#[derive(Debug)]
pub(super) struct RollsDue {
    hosts: Vec<String>,
    next: Instant,
    /// The age that the bytes suffice for, while they do not for that of the bounds.
    pressed: Option<Duration>,
    warned: bool,
}

impl RollsDue {
    pub(super) fn new() -> Self {
        Self {
            hosts: Vec::new(),
            next: Instant::now(),
            pressed: None,
            warned: false,
        }
    }
}

/// The bounds of the store.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub age: Duration,
    pub bytes: u64,
    /// Whether the clock at the start is right, however far ahead of the reports.
    pub accept_clock: bool,
}

/// The pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    size: u64,
    all: u64,
    free: u64,
}

impl Pages {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let pragma = |name: &str| {
            connection
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
                .map(from_sql)
        };
        Ok(Self {
            size: pragma("page_size")?,
            all: pragma("page_count")?,
            free: pragma("freelist_count")?,
        })
    }

    fn used_bytes(self) -> u64 {
        self.size * self.all.saturating_sub(self.free)
    }
}

/// How far the store is from its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tidied {
    /// So many reports were deleted, and there is more to do.
    More(u64),
    Done,
}

impl Retention {
    /// Whose roll-ups are to be looked at from now on: those of forgotten hosts at
    /// once, the others' in turn.
    pub(super) fn begin(state: &State, due: &mut RollsDue) {
        let now = Instant::now();
        if due.hosts.is_empty() && due.next <= now {
            due.hosts = state.hosts.keys().cloned().collect();
            due.next = now + ROLLS_INTERVAL;
        }
        let forgotten = state.hosts.values().filter(|row| row.reports == 0);
        due.hosts.extend(forgotten.map(|row| row.id.clone()));
    }

    /// Deletes and shrinks for a moment: who waits for a commit goes before the rest.
    pub(super) fn step(self, state: &mut State, due: &mut RollsDue) -> rusqlite::Result<Tidied> {
        let started = Instant::now();
        let mut deleted = 0;
        while started.elapsed() < STEP_TIME {
            match self.piece(state, due)? {
                Tidied::More(n) => deleted += n,
                Tidied::Done if deleted == 0 => return Ok(Tidied::Done),
                Tidied::Done => break,
            }
        }
        Ok(Tidied::More(deleted))
    }

    /// The next small piece of work.
    fn piece(self, state: &mut State, due: &mut RollsDue) -> rusqlite::Result<Tidied> {
        let pages = Pages::read(&state.connection)?;
        // Where much was deleted, its room is given back before all is: the disk may
        // be full.
        if pages.free > pages.all / 4 && shrink(&state.connection)? {
            return Ok(Tidied::More(0));
        }
        let excess = pages.used_bytes().saturating_sub(self.bytes);
        if excess > 0 {
            return self.press(state, due, excess);
        }
        due.pressed = None;
        let deleted = delete(state, before(state, self.age), u64::MAX)?;
        if deleted > 0 {
            return Ok(Tidied::More(deleted));
        }
        if self.rolls(state, due)? || shrink(&state.connection)? {
            return Ok(Tidied::More(0));
        }
        // The file itself gets smaller only by a checkpoint.
        state
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(Tidied::Done)
    }

    /// Goes on with the roll-ups that are due; whether there were any.
    fn rolls(self, state: &mut State, due: &mut RollsDue) -> rusqlite::Result<bool> {
        let age = due.pressed.unwrap_or(self.age);
        let Some(host) = due.hosts.pop() else {
            return Ok(false);
        };
        if delete_rolls(state, age, &host)? {
            due.hosts.push(host);
        }
        Ok(true)
    }

    /// Deletes what is older than the age that was come to; once there is nothing of
    /// it left, that of a shorter one.
    fn press(self, state: &mut State, due: &mut RollsDue, excess: u64) -> rusqlite::Result<Tidied> {
        let age = due.pressed.unwrap_or(self.age);
        let oldest = oldest_report(state)?;
        if oldest.is_some_and(|oldest| oldest.is_zero()) {
            // All are of a time when the clock was ahead: none has an age.
            return delete(state, u64::MAX, excess).map(Tidied::More);
        }
        if oldest.is_some_and(|oldest| oldest > age) {
            let deleted = delete(state, before(state, age), excess)?;
            return Ok(Tidied::More(deleted));
        }
        if self.rolls(state, due)? {
            return Ok(Tidied::More(0));
        }
        let shorter = oldest.unwrap_or(age).mul_f64(SHORTER);
        if shorter < AGE_MIN {
            // What is left is not reports: it is looked at again later.
            return Ok(Tidied::Done);
        }
        if shorter < SHORTEST && !std::mem::replace(&mut due.warned, true) {
            tracing::warn!(
                bytes = self.bytes,
                "--retention-bytes holds less than a minute of reports: increase it"
            );
        }
        due.pressed = Some(shorter);
        due.hosts = state.hosts.keys().cloned().collect();
        Ok(Tidied::More(0))
    }
}

/// So long ago.
fn before(state: &State, age: Duration) -> u64 {
    let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    state.clock.now_ns().saturating_sub(age_ns)
}

/// How long ago the oldest report was received.
fn oldest_report(state: &State) -> rusqlite::Result<Option<Duration>> {
    let sql = format!("SELECT min({AGES_FROM}) FROM reports");
    let received_ns: Option<i64> = state.connection.query_row(&sql, [], |row| row.get(0))?;
    let now_ns = state.clock.now_ns();
    Ok(received_ns.map(|ns| Duration::from_nanos(now_ns.saturating_sub(from_sql(ns)))))
}

/// Roll-ups are smaller and are kept longer: by these factors of the age.
const TIER_AGES: [u64; TIERS_S.len()] = [3, 24];

/// Deletes roll-ups of one host that are too old, or all of a host without
/// reports, which is forgotten when nothing is left; whether there may be more.
fn delete_rolls(state: &mut State, age: Duration, host_id: &str) -> rusqlite::Result<bool> {
    let Some(row) = state.hosts.get(host_id) else {
        return Ok(false);
    };
    let forgotten = row.reports == 0;
    let now_s = state.clock.now_ns() / 1_000_000_000;
    let transaction = state
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (tier_s, factor) in TIERS_S.into_iter().zip(TIER_AGES) {
        let age_s = age.as_secs().saturating_mul(factor).max(tier_s);
        let before_s = if forgotten {
            u64::MAX
        } else {
            now_s.saturating_sub(age_s)
        };
        if rolls::delete_of_host(&transaction, row.key, tier_s, before_s)? {
            transaction.commit()?;
            return Ok(true);
        }
    }
    rolls::remove_endpoints(&transaction, row.key)?;
    if forgotten {
        hosts::remove(&transaction, row.key)?;
    }
    transaction.commit()?;
    if forgotten {
        state.hosts.remove(host_id);
    }
    Ok(false)
}

/// Gives free pages back; whether there were any.
fn shrink(connection: &Connection) -> rusqlite::Result<bool> {
    let before = Pages::read(connection)?;
    if before.free == 0 {
        return Ok(false);
    }
    // The pragma gives one row a page: it works only as far as it is read.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(Pages::read(connection)? != before)
}

/// What was deleted of one host.
#[derive(Default)]
struct Deleted {
    reports: u64,
    keys: Vec<(u64, u64)>,
}

/// Deletes the oldest reports that were received before `cutoff_ns`, and no more
/// than hold `bytes_wanted`; how many.
fn delete(state: &mut State, cutoff_ns: u64, bytes_wanted: u64) -> rusqlite::Result<u64> {
    let transaction = state
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now_ns = state.clock.now_ns();
    let by_host = delete_oldest(&transaction, cutoff_ns, now_ns, bytes_wanted)?;
    let mut rows = Vec::new();
    for row in state.hosts.values() {
        let Some(deleted) = by_host.get(&row.key) else {
            continue;
        };
        let mut row = row.clone();
        forget(&transaction, &mut row, deleted)?;
        hosts::save(&transaction, &row)?;
        rows.push(row);
    }
    transaction.commit()?;
    for row in rows {
        if row.reports == 0 {
            state.published.fleet.remove(&row.id);
        } else {
            state.published.fleet.publish(row.clone(), None);
        }
        state.hosts.insert(row.id.clone(), row);
    }
    Ok(by_host.values().map(|deleted| deleted.reports).sum())
}

fn delete_oldest(
    connection: &Connection,
    cutoff_ns: u64,
    now_ns: u64,
    bytes_wanted: u64,
) -> rusqlite::Result<BTreeMap<i64, Deleted>> {
    let mut oldest = connection.prepare_cached(&format!(
        "SELECT host, epoch, sequence, length(body), stored_ns FROM reports
         WHERE {AGES_FROM} < ? ORDER BY {AGES_FROM} LIMIT {STEP_REPORTS}"
    ))?;
    // What came while the clock was ahead is no younger than what came after it.
    let mut ahead = connection.prepare_cached(&format!(
        "SELECT host, epoch, sequence FROM reports
         WHERE {AGES_FROM} > ? AND stored_ns < ? LIMIT {STEP_REPORTS}"
    ))?;
    let mut delete = connection
        .prepare_cached("DELETE FROM reports WHERE host = ? AND epoch = ? AND sequence = ?")?;
    let mut rows = oldest.query(params![to_sql(cutoff_ns)])?;
    let mut chosen: Vec<(i64, i64, i64)> = Vec::new();
    let mut bytes = 0;
    let mut stored_ns = 0;
    while bytes < bytes_wanted
        && let Some(row) = rows.next()?
    {
        chosen.push((row.get(0)?, row.get(1)?, row.get(2)?));
        bytes += from_sql(row.get(3)?);
        stored_ns = row.get::<_, i64>(4)?.max(stored_ns);
    }
    let ahead_ns = to_sql(now_ns.saturating_add(clock::JUMP_NS));
    let ahead = ahead.query_map([ahead_ns, stored_ns], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    for key in ahead {
        chosen.push(key?);
    }
    let mut by_host: BTreeMap<i64, Deleted> = BTreeMap::new();
    for (host, epoch, sequence) in chosen {
        delete.execute(params![host, epoch, sequence])?;
        let deleted = by_host.entry(host).or_default();
        deleted.reports += 1;
        deleted.keys.push((from_sql(epoch), from_sql(sequence)));
    }
    Ok(by_host)
}

/// Counts a host's deleted reports off its row.
fn forget(connection: &Connection, row: &mut HostRow, deleted: &Deleted) -> rusqlite::Result<()> {
    row.reports = row.reports.saturating_sub(deleted.reports);
    let of_epoch = deleted.keys.iter().filter(|(epoch, _)| *epoch == row.epoch);
    row.epoch_reports = row.epoch_reports.saturating_sub(of_epoch.count() as u64);
    if row.reports == 0 {
        return Ok(());
    }
    let newest_gone = deleted.keys.contains(&(row.epoch, row.sequence_last));
    if newest_gone {
        // Only where reports came out of order: the newest is not the last
        // that was stored.
        hosts::recount(connection, row)
    } else {
        row.sequence_first = hosts::first_sequence(connection, row)?;
        Ok(())
    }
}
