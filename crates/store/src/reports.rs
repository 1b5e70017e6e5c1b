//! The rows of reports.

use std::{fmt, str::FromStr};

use rusqlite::{Connection, Row};

use crate::{checksum::Checksum, from_sql, to_sql};

/// The place of a report in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub window_end_ns: u64,
    pub host: i64,
    pub epoch: u64,
    pub sequence: u64,
}

/// The text is not a cursor of ours.
#[derive(Debug, thiserror::Error)]
#[error("invalid cursor: use next_cursor of the previous response unchanged")]
pub struct BadCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            window_end_ns,
            host,
            epoch,
            sequence,
        } = self;
        write!(f, "{window_end_ns:x}-{host:x}-{epoch:x}-{sequence:x}")
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut parts = text.split('-').map(|part| {
            i64::from_str_radix(part, 16)
                .ok()
                .filter(|n| *n >= 0)
                .ok_or(BadCursor)
        });
        let mut next = || parts.next().unwrap_or(Err(BadCursor));
        let cursor = Self {
            window_end_ns: from_sql(next()?),
            host: next()?,
            epoch: from_sql(next()?),
            sequence: from_sql(next()?),
        };
        match parts.next() {
            None => Ok(cursor),
            Some(_) => Err(BadCursor),
        }
    }
}

/// A report as it is kept.
#[derive(Debug)]
pub struct StoredReport {
    pub at: Cursor,
    /// Orders it as it came.
    pub stored_ns: u64,
    /// From when it ages.
    pub received_ns: u64,
    /// Whether the row is as it was written, its body aside.
    pub(crate) intact: bool,
    pub body: Vec<u8>,
}

/// The columns that `from_row` takes.
pub const COLUMNS: &str =
    "window_end_ns, host, epoch, sequence, stored_ns, received_ns, checksum, body";

/// Of a row but its body.
pub(crate) fn checksum(at: &Cursor, stored_ns: u64, received_ns: u64) -> u32 {
    Checksum::default()
        .number(at.host)
        .number(to_sql(at.epoch))
        .number(to_sql(at.sequence))
        .number(to_sql(at.window_end_ns))
        .number(to_sql(stored_ns))
        .number(to_sql(received_ns))
        .finish()
}

/// When the first window ends of which a host's report is kept.
pub fn first_end_ns(connection: &Connection, host: i64) -> rusqlite::Result<Option<u64>> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(window_end_ns) FROM reports WHERE host = ?")?
        .query_row([host], |row| row.get(0))?;
    Ok(first.map(from_sql))
}

/// From `COLUMNS`.
pub fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredReport> {
    let at = Cursor {
        window_end_ns: from_sql(row.get(0)?),
        host: row.get(1)?,
        epoch: from_sql(row.get(2)?),
        sequence: from_sql(row.get(3)?),
    };
    let stored_ns = from_sql(row.get(4)?);
    let received_ns = row.get::<_, Option<i64>>(5)?.map(from_sql);
    let kept: Option<i64> = row.get(6)?;
    let intact = match (received_ns, kept) {
        (Some(received_ns), Some(kept)) => kept == i64::from(checksum(&at, stored_ns, received_ns)),
        // Of version 1.
        (None, None) => true,
        _ => false,
    };
    Ok(StoredReport {
        at,
        stored_ns,
        received_ns: received_ns.unwrap_or(stored_ns),
        intact,
        body: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_does() {
        let cursor = Cursor {
            window_end_ns: 1_763_860_000_123_000_000,
            host: 3,
            epoch: 1_763_860_000_123,
            sequence: 7,
        };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for text in [
            "",
            "1-2-3",
            "1-2-3-4-5",
            "x-1-1-1",
            "-1-1-1-1",
            "1-2-3-'; DROP",
            "ffffffffffffffff-1-1-1",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}
