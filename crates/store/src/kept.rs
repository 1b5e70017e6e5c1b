//! A kept report, read and checked; and rows that cannot be read any more.
//!
//! One damaged row spoils nothing but itself: who reads a range leaves it
//! out, says so in the answer, and counts it here.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use budget::{Exhausted, Held};
use daemon::log_limit;
use monitor_proto::{json, v1};
use rollup::{Bucket, EndpointId};
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    reports::{Cursor, StoredReport},
    text,
};
use crate::codec::{self, CodecError};

/// Damaged rows that are known one by one, so that each is counted once.
const KNOWN_MAX: usize = 10_000;

/// Why a kept report is left out.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error(transparent)]
    Body(#[from] CodecError),
    #[error("the body belongs to another report than its row")]
    Key,
    #[error("the checksum of the row does not match")]
    Row,
}

/// The report in a row.
pub fn read(stored: &StoredReport) -> Result<v1::Report, KeptError> {
    checked(stored, codec::decode(&stored.body)?)
}

/// The same, where it finds room.
pub fn read_in(
    stored: &StoredReport,
    room: &mut Held,
) -> Result<Result<v1::Report, KeptError>, Exhausted> {
    match codec::decode_in(&stored.body, room) {
        Ok(report) => Ok(checked(stored, report)),
        Err(CodecError::Exhausted(exhausted)) => Err(exhausted),
        Err(error) => Ok(Err(error.into())),
    }
}

fn checked(stored: &StoredReport, report: v1::Report) -> Result<v1::Report, KeptError> {
    if !stored.intact {
        return Err(KeptError::Row);
    }
    let epoch = report.agent.as_ref().map_or(0, |agent| agent.epoch);
    let at = &stored.at;
    let same = (epoch, report.sequence, report.window_end_unix_ns)
        == (at.epoch, at.sequence, at.window_end_ns);
    same.then_some(report).ok_or(KeptError::Key)
}

/// What is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Report(Cursor),
    /// A bucket of a host, or of one of its endpoints.
    Roll(Option<EndpointId>, Bucket),
    Host,
    Progress(String),
}

impl Row {
    /// The label of what it is, in the order of `TABLES`.
    fn table(&self) -> usize {
        match self {
            Self::Report(_) => 0,
            Self::Roll(..) => 1,
            Self::Host => 2,
            Self::Progress(_) => 3,
        }
    }
}

/// The tables of damaged rows: the label of each, and its name in answers.
pub const TABLES: [(&str, &str); 4] = [
    ("reports", "kept reports"),
    ("rollups", "roll-ups"),
    ("hosts", "rows of hosts"),
    ("progress", "cursors"),
];

/// A row that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    host_id: String,
    row: Row,
    why: String,
}

impl Damage {
    /// Of a report.
    pub fn new(connection: &Connection, at: Cursor, error: &KeptError) -> Self {
        Self {
            host_id: host_id(connection, at.host).unwrap_or_default(),
            row: Row::Report(at),
            why: daemon::error_chain(error),
        }
    }

    pub fn of_roll(host_id: &str, endpoint: Option<&EndpointId>, bucket: Bucket) -> Self {
        Self::of_row(host_id, Row::Roll(endpoint.cloned(), bucket))
    }

    pub(super) fn of_host(host_id: &str) -> Self {
        Self::of_row(host_id, Row::Host)
    }

    pub(super) fn of_progress(name: &str) -> Self {
        Self::of_row("", Row::Progress(name.to_owned()))
    }

    fn of_row(host_id: &str, row: Row) -> Self {
        Self {
            host_id: host_id.to_owned(),
            row,
            why: KeptError::Row.to_string(),
        }
    }
}

/// The id of the host with this key.
pub fn host_id(connection: &Connection, host: i64) -> rusqlite::Result<String> {
    connection
        .prepare_cached("SELECT id FROM hosts WHERE key = ?")?
        .query_row([host], |row| text(row, 0))
        .optional()
        .map(Option::unwrap_or_default)
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host_id;
        match &self.row {
            Row::Report(at) => {
                let (epoch, sequence) = (at.epoch, at.sequence);
                write!(f, "host {host}, epoch {epoch}, sequence {sequence}")
            }
            Row::Roll(endpoint, bucket) => {
                write!(f, "host {host}, ")?;
                if let Some(endpoint) = endpoint {
                    write!(f, "endpoint {}, ", endpoint.address)?;
                }
                let start = json::rfc3339(bucket.start_s.saturating_mul(1_000_000_000));
                write!(f, "{} s from {start}", bucket.tier_s)
            }
            Row::Host => write!(f, "host {host}"),
            Row::Progress(name) => write!(f, "{name}"),
        }
    }
}

/// One sentence for each table that an answer lacks rows of.
pub fn summary(damages: &[Damage]) -> Vec<String> {
    let tables = TABLES.iter().enumerate();
    let summary = tables.filter_map(|(table, (_, name))| {
        let mut of_table = damages.iter().filter(|one| one.row.table() == table);
        let first = of_table.next()?;
        let n = 1 + of_table.count();
        Some(format!(
            "{n} {name} are damaged and were skipped, first: {first}"
        ))
    });
    summary.collect()
}

#[derive(Debug, Default)]
struct Known {
    rows: BTreeSet<(usize, String)>,
    counts: [u64; TABLES.len()],
}

/// The damaged rows that were found since the start.
#[derive(Debug, Default)]
pub struct Damaged(Mutex<Known>);

impl Damaged {
    /// Counts a row once, and says so in the log once a minute.
    pub fn record(&self, damage: &Damage) {
        let table = damage.row.table();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = known.rows.len() < KNOWN_MAX;
        if room && known.rows.insert((table, damage.to_string())) {
            known.counts[table] += 1;
        }
        drop(known);
        let (table, _) = TABLES[table];
        if let Some(left_out) = log_limit::line("damaged row", &damage.host_id) {
            tracing::error!(
                table,
                row = %damage,
                why = damage.why,
                left_out,
                "a stored row is damaged and skipped: check the disk, and restore the store from a \
                 backup if its data is needed"
            );
        }
    }

    pub fn record_all(&self, damages: &[Damage]) {
        damages.iter().for_each(|damage| self.record(damage));
    }

    /// How many there are of each of `TABLES`, up to the bound.
    pub fn counts(&self) -> [u64; TABLES.len()] {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.counts
    }
}
