//! One transaction of reports, and what is known of the hosts.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use monitor_proto::v1;
use rollup::EndpointId;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    clock::{self, Clock},
    from_sql,
    hosts::{self, HostRow, Made, Place},
    kept::Damage,
    progress::{progress, save_progress},
    repair,
    reports::{self, Cursor},
    roller::{self, Rolled},
    rolls, to_sql,
    writer::{Answer, Incoming, Outcome, Published, WriteError},
};
use crate::{
    codec,
    fleet::{Facts, Newest},
    live::LiveReport,
};

/// An endpoint that was in no report for so long is gone.
const GONE_S: u64 = 2 * 3600;

/// How many endpoints make room for others in one transaction: each takes some
/// milliseconds.
const FORGOTTEN_MAX: usize = 64;

/// Where a host's newest report cannot be read, the last one before it is shown.
fn publish_all(
    connection: &Connection,
    hosts: &mut HashMap<String, HostRow>,
    published: &Published,
) -> Result<(), rusqlite::Error> {
    for row in hosts.values_mut() {
        let mut damaged = Vec::new();
        let newest = hosts::newest(connection, row, &mut damaged)?;
        damaged
            .iter()
            .for_each(|one| published.stats.damaged.record(one));
        if newest.is_none() && damaged.is_empty() {
            continue;
        }
        let (report, body, received_ns) = newest.unwrap_or_else(|| nothing_of(row));
        let facts = Facts::from(&report);
        row.made = Made::new(report.window_end_unix_ns, received_ns, facts.window_ns).kept();
        published.fleet.publish(
            row.clone(),
            Some(Newest {
                facts,
                host: report.host.unwrap_or_default(),
                agent: report.agent.unwrap_or_default(),
                window_end_ns: report.window_end_unix_ns,
                body: body.into(),
            }),
        );
    }
    Ok(())
}

/// Of a host whose reports are all damaged its id is known still.
fn nothing_of(row: &HostRow) -> (v1::Report, Vec<u8>, u64) {
    let report = v1::Report {
        host: Some(v1::Host {
            id: row.id.clone(),
            name: row.id.clone(),
            ..v1::Host::default()
        }),
        ..v1::Report::default()
    };
    (report, Vec::new(), row.last_seen_ns)
}

/// What the writer thread holds.
pub(super) struct State {
    pub(super) connection: Connection,
    pub(super) hosts: HashMap<String, HostRow>,
    pub(super) published: Published,
    pub(super) clock: Clock,
    next_key: i64,
    hosts_max: usize,
    /// The `stored_ns` of the last report.
    stored_ns: u64,
    /// Hosts of which it was said that two agents report as them.
    said_twice: HashSet<i64>,
}

/// The rows that a transaction changes: they count only once it is committed.
#[derive(Default)]
struct Changes {
    rows: HashMap<String, HostRow>,
    newest: HashMap<String, Newest>,
    stored: Vec<usize>,
    beside: Vec<usize>,
    added: usize,
}

impl State {
    /// Loads the hosts and shows them.
    pub(super) fn load(
        connection: Connection,
        published: Published,
        hosts_max: usize,
        accept_clock: bool,
    ) -> rusqlite::Result<Self> {
        let damaged = Arc::clone(&published.stats.damaged);
        let mut hosts = repair::load(&connection, &damaged)?;
        publish_all(&connection, &mut hosts, &published)?;
        let next_key = hosts.values().map(|row| row.key).max().unwrap_or(0) + 1;
        let stored_ns: Option<i64> =
            connection.query_row("SELECT max(stored_ns) FROM reports", [], |row| row.get(0))?;
        let stored_ns = stored_ns.map(from_sql);
        let kept_ns = progress(&connection, clock::NAME, &damaged)?.or(stored_ns);
        Ok(Self {
            connection,
            hosts,
            published,
            clock: Clock::new(kept_ns, accept_clock),
            next_key,
            hosts_max,
            stored_ns: stored_ns.unwrap_or(0),
            said_twice: HashSet::new(),
        })
    }

    /// One transaction; on an error nothing of it was kept.
    pub(super) fn commit(&mut self, batch: &[Incoming]) -> rusqlite::Result<Vec<Answer>> {
        let mut changes = Changes::default();
        let first_new_key = self.next_key;
        let result = self.write(batch, &mut changes);
        match result {
            Ok(outcomes) => {
                self.tell(batch, changes);
                Ok(outcomes)
            }
            Err(error) => {
                self.next_key = first_new_key;
                Err(error)
            }
        }
    }

    fn write(
        &mut self,
        batch: &[Incoming],
        changes: &mut Changes,
    ) -> rusqlite::Result<Vec<Answer>> {
        let now_ns = self.clock.now_ns();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (i, incoming) in batch.iter().enumerate() {
            let known = changes
                .rows
                .get(&incoming.host.id)
                .or_else(|| self.hosts.get(&incoming.host.id));
            let mut row = match known {
                Some(row) => row.clone(),
                None if self.hosts.len() + changes.added >= self.hosts_max => {
                    outcomes.push(Err(WriteError::TooManyHosts(self.hosts_max)));
                    continue;
                }
                None => {
                    let key = self.next_key;
                    self.next_key += 1;
                    changes.added += 1;
                    let row = HostRow::new(key, incoming.host.id.clone(), incoming.received_ns);
                    hosts::save(&transaction, &row)?;
                    row
                }
            };
            let stored_ns = incoming.received_ns.max(self.stored_ns + 1);
            // A clock that was set back a moment ago makes nothing old at once.
            let at = At {
                host: row.key,
                stored_ns,
                received_ns: incoming.received_ns.max(now_ns),
            };
            let outcome = insert(&transaction, at, incoming)?;
            row.seen(incoming.received_ns, incoming.steady_ns);
            match outcome {
                Outcome::Stored => {
                    self.stored_ns = stored_ns;
                    changes.stored.push(i);
                    let place = row.count(
                        incoming.agent.epoch,
                        incoming.sequence,
                        Made::from(incoming),
                    );
                    if place == Place::NewestOfOther {
                        hosts::recount_epoch(&transaction, &mut row)?;
                    }
                    match place {
                        Place::Newest | Place::NewestOfOther => {
                            changes
                                .newest
                                .insert(row.id.clone(), Newest::from(incoming));
                        }
                        Place::Beside => changes.beside.push(i),
                        Place::Late => {}
                    }
                }
                Outcome::Duplicate => {}
                Outcome::Conflict => row.conflicts += 1,
            }
            changes.rows.insert(row.id.clone(), row);
            outcomes.push(Ok(outcome));
        }
        for row in changes.rows.values() {
            hosts::save(&transaction, row)?;
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    /// Does what may be done again after a power failure, with one transaction or many:
    /// the disk is not waited for.  What is acknowledged later is behind it in the log,
    /// and waits for both.
    pub(super) fn lightly<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection
            .execute_batch("PRAGMA synchronous = NORMAL;")?;
        let done = work(self);
        self.connection
            .execute_batch("PRAGMA synchronous = FULL;")?;
        done
    }

    /// Adds roll-ups to those that are kept.  Beyond the bound of its host a new
    /// endpoint takes the place of one that is long gone; where there is none, it is
    /// left out and counted.
    pub(super) fn roll(&mut self, rolled: &Rolled) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut keys: HashMap<i64, HashMap<EndpointId, i64>> = HashMap::new();
        let mut left_out = 0;
        let mut forgotten = 0;
        let rows = self.hosts.values();
        let known: HashMap<i64, &str> = rows.map(|row| (row.key, row.id.as_str())).collect();
        let damaged = &self.published.stats.damaged;
        for ((host, bucket), roll) in &rolled.rolls.hosts {
            let Some(id) = known.get(host) else {
                continue;
            };
            let owner = rolls::owner_of_host(*host, id);
            if !rolls::add_host_roll(&transaction, owner, *bucket, roll)? {
                damaged.record(&Damage::of_roll(id, None, *bucket));
            }
        }
        for ((host, id, bucket), roll) in &rolled.rolls.endpoints {
            let Some(host_id) = known.get(host) else {
                continue;
            };
            let keys = match keys.entry(*host) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(rolls::endpoint_keys(&transaction, *host)?),
            };
            let key = match keys.get(id) {
                Some(key) => *key,
                None => {
                    if keys.len() >= rolls::ENDPOINTS_MAX {
                        let gone = if forgotten < FORGOTTEN_MAX {
                            let gone_s = bucket.start_s.saturating_sub(GONE_S);
                            rolls::forget_least_recent(&transaction, *host, gone_s)?
                        } else {
                            None
                        };
                        let Some(gone) = gone else {
                            left_out += 1;
                            continue;
                        };
                        forgotten += 1;
                        keys.remove(&gone);
                    }
                    let key = rolls::add_endpoint(&transaction, *host, id)?;
                    keys.insert(id.clone(), key);
                    key
                }
            };
            let owner = rolls::owner_of_endpoint(*host, key, id);
            if !rolls::add_endpoint_roll(&transaction, owner, *bucket, roll)? {
                damaged.record(&Damage::of_roll(host_id, Some(id), *bucket));
            }
        }
        save_progress(&transaction, roller::NAME, rolled.stored_ns)?;
        transaction.commit()?;
        self.published
            .stats
            .rolls_left_out
            .fetch_add(left_out, Relaxed);
        Ok(())
    }

    fn tell(&mut self, batch: &[Incoming], mut changes: Changes) {
        for incoming in changes.beside.iter().map(|&i| &batch[i]) {
            let Some(row) = changes.rows.get(&incoming.host.id) else {
                continue;
            };
            if self.said_twice.insert(row.key) {
                tracing::warn!(
                    host = row.id,
                    name = incoming.host.name,
                    epoch = incoming.agent.epoch,
                    shown_epoch = row.epoch,
                    "two agents report as the same host: all reports are stored, but the newest \
                     figures are those of the one whose spool was made later. Run one agent a host, \
                     with all its targets, and give machines that were copied their own \
                     /etc/machine-id"
                );
            }
        }
        for (id, row) in changes.rows {
            self.published
                .fleet
                .publish(row.clone(), changes.newest.remove(&id));
            self.hosts.insert(id, row);
        }
        // Who is told of a report finds it in the fleet.
        for &i in &changes.stored {
            self.published.live.send(LiveReport::from(&batch[i]));
        }
    }
}

/// Where and when a report is stored.
#[derive(Clone, Copy)]
struct At {
    host: i64,
    stored_ns: u64,
    received_ns: u64,
}

fn insert(connection: &Connection, at: At, incoming: &Incoming) -> rusqlite::Result<Outcome> {
    let host = at.host;
    let (epoch, sequence) = (to_sql(incoming.agent.epoch), to_sql(incoming.sequence));
    let checksum = |stored_ns| {
        let cursor = Cursor {
            window_end_ns: incoming.window_end_ns,
            host,
            epoch: incoming.agent.epoch,
            sequence: incoming.sequence,
        };
        reports::checksum(&cursor, stored_ns, at.received_ns)
    };
    let inserted = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO reports (host, epoch, sequence, window_end_ns, stored_ns, body,
               received_ns, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            host,
            epoch,
            sequence,
            to_sql(incoming.window_end_ns),
            to_sql(at.stored_ns),
            &*incoming.body,
            to_sql(at.received_ns),
            checksum(at.stored_ns),
        ])?;
    if inserted == 1 {
        return Ok(Outcome::Stored);
    }
    let kept = connection
        .prepare_cached(&format!(
            "SELECT {} FROM reports WHERE host = ? AND epoch = ? AND sequence = ?",
            reports::COLUMNS
        ))?
        .query_row(params![host, epoch, sequence], reports::from_row)?;
    let same = if kept.intact {
        codec::same_report(&kept.body, &incoming.body).ok()
    } else {
        None
    };
    match same {
        Some(true) => Ok(Outcome::Duplicate),
        Some(false) => Ok(Outcome::Conflict),
        // The kept one is damaged, and here it comes again.
        None => {
            connection
                .prepare_cached(
                    "UPDATE reports SET window_end_ns = ?, body = ?, received_ns = ?, checksum = ?
                     WHERE host = ? AND epoch = ? AND sequence = ?",
                )?
                .execute(params![
                    to_sql(incoming.window_end_ns),
                    &*incoming.body,
                    to_sql(at.received_ns),
                    checksum(kept.stored_ns),
                    host,
                    epoch,
                    sequence
                ])?;
            Ok(Outcome::Duplicate)
        }
    }
}

impl From<&Incoming> for Made {
    fn from(incoming: &Incoming) -> Self {
        Self {
            steady_ns: incoming.steady_ns,
            ..Self::new(
                incoming.window_end_ns,
                incoming.received_ns,
                incoming.facts.window_ns,
            )
        }
    }
}

impl From<&Incoming> for Newest {
    fn from(incoming: &Incoming) -> Self {
        Self {
            host: incoming.host.clone(),
            agent: incoming.agent.clone(),
            window_end_ns: incoming.window_end_ns,
            body: Arc::clone(&incoming.body),
            facts: incoming.facts.clone(),
        }
    }
}

impl From<&Incoming> for LiveReport {
    fn from(incoming: &Incoming) -> Self {
        Self {
            host_id: incoming.host.id.as_str().into(),
            host_name: incoming.host.name.as_str().into(),
            body: Arc::clone(&incoming.body),
            held: None,
        }
    }
}
