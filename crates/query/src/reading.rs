//! Reading the store for one answer: its room, its bounds, and what is left out.

use budget::Held;
use monitor_proto::v1;
use rusqlite::{Connection, params};
use store::{
    kept::{self, Damage},
    reports::{self, from_row},
    to_sql,
};

use crate::read_error::ReadError;

/// Reports that one answer is made from.
const REPORTS_MAX: usize = 20_000;
/// Damaged rows that an answer counts.
const DAMAGED_MAX: usize = 10_000;

/// What one answer has taken so far.
#[derive(Debug)]
pub struct Reading {
    /// The room of what was read.
    pub held: Held,
    /// Rows in the range that cannot be read, up to a bound: a gap in the answer.
    pub(super) damaged: Vec<Damage>,
    // How many reports it was made of.
    reports: usize,
}

impl Reading {
    /// Nothing yet, in this room.
    pub(super) fn new(held: Held) -> Self {
        Self {
            held,
            damaged: Vec::new(),
            reports: 0,
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.held.join(other.held);
        self.damaged.extend(other.damaged);
        self.reports += other.reports;
    }

    /// One more row is left out.
    pub(super) fn damage(&mut self, row: impl FnOnce() -> Damage) {
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push(row());
        }
    }

    /// Why the answer is not everything.
    pub fn partial(&self) -> Vec<String> {
        kept::summary(&self.damaged)
    }

    /// Hands the reports of a host whose windows end within a range, by the second they
    /// count at, to `each`, which says how much more it holds.
    pub(super) fn reports(
        &mut self,
        connection: &Connection,
        host: i64,
        (start_s, end_s): (u64, u64),
        mut each: impl FnMut(u64, &v1::Report) -> Result<u64, ReadError>,
    ) -> Result<(), ReadError> {
        // A window that ends on a step's start belongs to the step before.
        let bound = |s: u64| to_sql(s.saturating_mul(1_000_000_000).saturating_add(1));
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {} FROM reports
             WHERE host = ? AND window_end_ns >= ? AND window_end_ns < ? ORDER BY window_end_ns",
            reports::COLUMNS
        ))?;
        let mut rows = statement.query(params![host, bound(start_s), bound(end_s)])?;
        while let Some(row) = rows.next()? {
            self.reports += 1;
            if self.reports > REPORTS_MAX {
                return Err(ReadError::TooMuch(
                    "reports: choose a host, a shorter range or a larger step",
                ));
            }
            let stored = from_row(row)?;
            let bytes = self.held.bytes();
            let report = match kept::read_in(&stored, &mut self.held)? {
                Ok(report) => report,
                Err(error) => {
                    self.held.shrink(bytes);
                    self.damage(|| Damage::new(connection, stored.at, &error));
                    continue;
                }
            };
            let at_s = report.window_end_unix_ns.saturating_sub(1) / 1_000_000_000;
            let more = each(at_s, &report)?;
            self.held.resize(bytes + more)?;
        }
        Ok(())
    }
}
