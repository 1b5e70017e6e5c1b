//! A kept report, read and checked; and those that cannot be read any more.
//!
//! One damaged report spoils nothing but itself: who reads a range leaves it
//! out, says so in the answer, and counts it here.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use monitor_proto::v1;
use rusqlite::{Connection, OptionalExtension as _};

use super::reports::{Cursor, StoredReport};
use crate::{
    budget::{Exhausted, Held},
    codec::{self, CodecError},
    log_limit,
};

/// Damaged reports that are told apart, so that each is counted once.
const KNOWN_MAX: usize = 10_000;

/// Why a kept report is left out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Body(#[from] CodecError),
    #[error("the body is of another report than its row")]
    Key,
}

/// The report in a row.
pub(crate) fn read(stored: &StoredReport) -> Result<v1::Report, KeptError> {
    checked(stored, codec::decode(&stored.body)?)
}

/// The same, where it finds room.
pub(crate) fn read_in(
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
    let epoch = report.agent.as_ref().map_or(0, |agent| agent.epoch);
    let at = &stored.at;
    let same = (epoch, report.sequence, report.window_end_unix_ns)
        == (at.epoch, at.sequence, at.window_end_ns);
    same.then_some(report).ok_or(KeptError::Key)
}

/// A report that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    host_id: String,
    at: Cursor,
    why: String,
}

impl Damage {
    pub(crate) fn new(connection: &Connection, at: Cursor, error: &KeptError) -> Self {
        let host_id = connection
            .query_row("SELECT id FROM hosts WHERE key = ?", [at.host], |row| {
                row.get(0)
            })
            .optional();
        Self {
            host_id: host_id.ok().flatten().unwrap_or_default(),
            at,
            why: crate::error_chain(error),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, at) = (&self.host_id, &self.at);
        write!(
            f,
            "host {host}, epoch {}, sequence {}",
            at.epoch, at.sequence
        )
    }
}

/// What an answer says of the reports that it lacks.
pub(super) fn told(damages: &[Damage]) -> Option<String> {
    let first = damages.first()?;
    let n = damages.len();
    Some(format!(
        "{n} kept reports are damaged and left out, the first of them: {first}"
    ))
}

#[derive(Debug, Default)]
struct Known {
    reports: BTreeSet<(i64, u64, u64)>,
    count: u64,
}

/// The damaged reports that were met since the start.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<Known>);

impl Damaged {
    /// Counts a report once, and says so in the log once a minute.
    pub(crate) fn met(&self, damage: &Damage) {
        let at = &damage.at;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = known.reports.len() < KNOWN_MAX;
        if room && known.reports.insert((at.host, at.epoch, at.sequence)) {
            known.count += 1;
        }
        drop(known);
        if let Some(left_out) = log_limit::line("damaged report", &damage.host_id) {
            tracing::error!(
                report = %damage,
                why = damage.why,
                left_out,
                "a kept report is damaged and left out: check the disk, and restore the store from \
                 a backup where its figures are needed"
            );
        }
    }

    pub(super) fn met_all(&self, damages: &[Damage]) {
        damages.iter().for_each(|damage| self.met(damage));
    }

    /// How many there are, up to the bound.
    pub(crate) fn count(&self) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.count
    }
}
