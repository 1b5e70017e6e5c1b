//! What is kept of each host beside its reports.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{from_sql, to_sql};

/// One row of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) key: i64,
    pub(crate) id: String,
    pub(crate) first_seen_ns: u64,
    pub(crate) last_seen_ns: u64,
    /// How many reports are kept.
    pub(crate) reports: u64,
    pub(crate) conflicts: u64,
    /// The newest epoch, and what is kept of it.
    pub(crate) epoch: u64,
    pub(crate) sequence_first: u64,
    pub(crate) sequence_last: u64,
    pub(crate) epoch_reports: u64,
}

impl HostRow {
    /// A host of which nothing is kept yet.
    pub(super) fn new(key: i64, id: String, now_ns: u64) -> Self {
        Self {
            key,
            id,
            first_seen_ns: now_ns,
            last_seen_ns: now_ns,
            reports: 0,
            conflicts: 0,
            epoch: 0,
            sequence_first: 0,
            sequence_last: 0,
            epoch_reports: 0,
        }
    }

    /// Counts a report that was stored; whether it is the newest.
    pub(super) fn count(&mut self, epoch: u64, sequence: u64) -> bool {
        self.reports += 1;
        let newest =
            self.epoch_reports == 0 || (epoch, sequence) > (self.epoch, self.sequence_last);
        if self.epoch_reports == 0 || epoch > self.epoch {
            self.epoch = epoch;
            self.sequence_first = sequence;
            self.sequence_last = sequence;
            self.epoch_reports = 1;
        } else if epoch == self.epoch {
            self.sequence_first = self.sequence_first.min(sequence);
            self.sequence_last = self.sequence_last.max(sequence);
            self.epoch_reports += 1;
        }
        newest
    }

    /// Reports missing between the first and the last kept one of the newest
    /// epoch.
    pub(crate) fn missing(&self) -> u64 {
        if self.epoch_reports == 0 {
            return 0;
        }
        (self.sequence_last - self.sequence_first + 1).saturating_sub(self.epoch_reports)
    }
}

const COLUMNS: &str = "key, id, first_seen_ns, last_seen_ns, reports, conflicts, epoch, \
                       sequence_first, sequence_last, epoch_reports";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<HostRow> {
    let number = |i| row.get::<_, i64>(i).map(from_sql);
    Ok(HostRow {
        key: row.get(0)?,
        id: row.get(1)?,
        first_seen_ns: number(2)?,
        last_seen_ns: number(3)?,
        reports: number(4)?,
        conflicts: number(5)?,
        epoch: number(6)?,
        sequence_first: number(7)?,
        sequence_last: number(8)?,
        epoch_reports: number(9)?,
    })
}

/// All hosts by id.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<HashMap<String, HostRow>> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM hosts"))?;
    let rows = statement.query_map([], from_row)?;
    rows.map(|row| row.map(|row| (row.id.clone(), row)))
        .collect()
}

/// Writes a row, new or changed.
pub(super) fn save(connection: &Connection, row: &HostRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO hosts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (key) DO UPDATE SET last_seen_ns = ?4, reports = ?5, conflicts = ?6,
               epoch = ?7, sequence_first = ?8, sequence_last = ?9, epoch_reports = ?10"
        ))?
        .execute(params![
            row.key,
            row.id,
            to_sql(row.first_seen_ns),
            to_sql(row.last_seen_ns),
            to_sql(row.reports),
            to_sql(row.conflicts),
            to_sql(row.epoch),
            to_sql(row.sequence_first),
            to_sql(row.sequence_last),
            to_sql(row.epoch_reports),
        ])
        .map(drop)
}

/// The body of a host's newest report.
pub(super) fn newest_body(
    connection: &Connection,
    row: &HostRow,
) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT body FROM reports WHERE host = ? AND epoch = ? AND sequence = ?")?
        .query_row(
            params![row.key, to_sql(row.epoch), to_sql(row.sequence_last)],
            |row| row.get(0),
        )
        .optional()
}

/// Forgets a host of which no report is left.
pub(super) fn remove(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM hosts WHERE key = ?")?
        .execute([key])
        .map(drop)
}

/// The first kept sequence of the row's epoch.
pub(super) fn first_sequence(connection: &Connection, row: &HostRow) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT min(sequence) FROM reports WHERE host = ? AND epoch = ?")?
        .query_row(params![row.key, to_sql(row.epoch)], |row| {
            row.get::<_, Option<i64>>(0)
        })
        .map(|sequence| sequence.map_or(row.sequence_last, from_sql))
}

/// Finds the newest epoch that is left and counts what is kept of it.
pub(super) fn recount(connection: &Connection, row: &mut HostRow) -> rusqlite::Result<()> {
    let counted = connection.query_row(
        "SELECT epoch, min(sequence), max(sequence), count(*) FROM reports
         WHERE host = ?1 AND epoch = (SELECT max(epoch) FROM reports WHERE host = ?1)
         GROUP BY epoch",
        [row.key],
        |found| {
            let number = |i| found.get::<_, i64>(i).map(from_sql);
            Ok((number(0)?, number(1)?, number(2)?, number(3)?))
        },
    )?;
    (
        row.epoch,
        row.sequence_first,
        row.sequence_last,
        row.epoch_reports,
    ) = counted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_within_the_newest_epoch_only() {
        let mut row = HostRow::new(1, "h".into(), 0);
        assert_eq!(row.missing(), 0);
        assert!(row.count(10, 4));
        assert!(row.count(10, 7));
        assert_eq!(row.missing(), 2);
        assert!(!row.count(10, 5));
        assert!(!row.count(10, 2));
        assert_eq!(row.missing(), 2);
        assert!(row.count(11, 1));
        assert_eq!(row.missing(), 0);
        assert!(!row.count(10, 6));
        assert_eq!((row.missing(), row.reports, row.sequence_last), (0, 6, 1));
    }
}
