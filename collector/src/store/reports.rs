//! Reading reports page by page, in the order of their window's end.

use std::{fmt, fmt::Write as _, str::FromStr};

use monitor_proto::v1;
use prost::Message as _;
use rusqlite::{Connection, Row, params_from_iter, types::Value};

use super::{
    checksum::Checksum,
    from_sql,
    kept::{self, Damage},
    reader::ReadError,
    to_sql,
};
use crate::{
    budget::Held,
    codec::{self, CodecError},
};

/// Which hosts' reports.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    All,
    /// The keys of `hosts`; names may be shared.
    Hosts(Vec<i64>),
}

/// Which reports.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) filter: Filter,
    /// Windows that end then or later.
    pub(crate) since_ns: u64,
    /// Windows that end before.
    pub(crate) until_ns: u64,
    pub(crate) after: Option<Cursor>,
    pub(crate) limit: usize,
    /// A page ends before the report with which it would be larger than this,
    /// encoded; it has one report at least.
    pub(crate) bytes_max: u64,
}

/// The place of a report in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) window_end_ns: u64,
    pub(crate) host: i64,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// The text is not a cursor of ours.
#[derive(Debug, thiserror::Error)]
#[error("invalid cursor: use next_cursor of the previous response unchanged")]
pub(crate) struct BadCursor;

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
pub(crate) struct StoredReport {
    pub(crate) at: Cursor,
    /// Orders it as it came.
    pub(crate) stored_ns: u64,
    /// From when it ages.
    pub(crate) received_ns: u64,
    /// Whether the row is as it was written, its body aside.
    pub(super) intact: bool,
    pub(crate) body: Vec<u8>,
}

/// Some reports as they are kept, and where the next ones begin.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) bodies: Vec<Vec<u8>>,
    pub(crate) next: Option<Cursor>,
    /// Their room.
    pub(crate) held: Held,
    /// Reports between them that cannot be read.
    pub(super) damaged: Vec<Damage>,
}

impl Page {
    /// Why the page is not everything.
    pub(crate) fn partial(&self) -> Vec<String> {
        kept::told(&self.damaged)
    }

    /// All of them at once, and the room that they take.
    pub(crate) fn decoded(self) -> Result<(Vec<v1::Report>, Option<Cursor>, Held), CodecError> {
        let mut held = self.held;
        let bodies = self.bodies.iter();
        let reports = bodies.map(|body| codec::decode_in(body, &mut held));
        let reports = reports.collect::<Result<_, _>>()?;
        Ok((reports, self.next, held))
    }
}

/// The columns that `from_row` takes.
pub(super) const COLUMNS: &str =
    "window_end_ns, host, epoch, sequence, stored_ns, received_ns, checksum, body";

/// Of a row but its body.
pub(super) fn checksum(at: &Cursor, stored_ns: u64, received_ns: u64) -> u32 {
    Checksum::default()
        .number(at.host)
        .number(to_sql(at.epoch))
        .number(to_sql(at.sequence))
        .number(to_sql(at.window_end_ns))
        .number(to_sql(stored_ns))
        .number(to_sql(received_ns))
        .finish()
}

/// One page of reports, in room that it takes as it is read; damaged ones count for
/// its length.
pub(super) fn page(
    connection: &Connection,
    selection: &Selection,
    room: Held,
) -> Result<Page, ReadError> {
    let (sql, parameters) = query(selection);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut page = Page {
        bodies: Vec::new(),
        next: None,
        held: room,
        damaged: Vec::new(),
    };
    let mut last = None;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        // The query asks for one more than the limit, to know of a next page.
        if page.bodies.len() + page.damaged.len() == selection.limit {
            page.next = last;
            break;
        }
        let stored = from_row(row)?;
        let held = page.held.bytes();
        match kept::read_in(&stored, &mut page.held)? {
            Ok(report) => {
                // What is kept may be a thousandth of what it decodes to.
                bytes += report.encoded_len() as u64;
                if bytes > selection.bytes_max && !page.bodies.is_empty() {
                    page.held.shrink(held);
                    page.next = last;
                    break;
                }
                page.held.resize(held + stored.body.len() as u64)?;
                page.bodies.push(stored.body);
            }
            Err(error) => {
                page.held.shrink(held);
                let damage = Damage::new(connection, stored.at, &error);
                page.damaged.push(damage);
            }
        }
        last = Some(stored.at);
    }
    Ok(page)
}

/// From `COLUMNS`.
pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredReport> {
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

fn query(selection: &Selection) -> (String, Vec<Value>) {
    let mut sql =
        format!("SELECT {COLUMNS} FROM reports WHERE window_end_ns >= ? AND window_end_ns < ?");
    // SQLite looks up the range of the first column, and tests a row value on
    // each row of it: without its own start a page would read all before it.
    let begin_ns = selection.after.map_or(0, |after| after.window_end_ns);
    let mut parameters = vec![
        Value::Integer(to_sql(selection.since_ns.max(begin_ns))),
        Value::Integer(to_sql(selection.until_ns)),
    ];
    if let Filter::Hosts(keys) = &selection.filter {
        let marks = vec!["?"; keys.len()].join(",");
        // A String takes any text.
        write!(sql, " AND host IN ({marks})").expect("writing to a String never fails");
        parameters.extend(keys.iter().map(|&key| Value::Integer(key)));
    }
    if let Some(after) = selection.after {
        sql.push_str(" AND (window_end_ns, host, epoch, sequence) > (?, ?, ?, ?)");
        parameters.extend([
            Value::Integer(to_sql(after.window_end_ns)),
            Value::Integer(after.host),
            Value::Integer(to_sql(after.epoch)),
            Value::Integer(to_sql(after.sequence)),
        ]);
    }
    sql.push_str(" ORDER BY window_end_ns, host, epoch, sequence LIMIT ?");
    let one_more = i64::try_from(selection.limit).map_or(i64::MAX, |n| n.saturating_add(1));
    parameters.push(Value::Integer(one_more));
    (sql, parameters)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::{super::schema, *};

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

    #[test]
    fn a_late_page_costs_what_the_first_one_does() {
        let connection = Connection::open_in_memory().unwrap();
        schema::create(&connection).unwrap();
        let host = "INSERT INTO hosts VALUES (1, 'h', 0, 0, 0, 0, 1, 1, 1, 1, 0)";
        connection.execute(host, []).unwrap();
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                    INSERT INTO reports SELECT 1, 1, i, i, i, x'00', NULL, NULL FROM n";
        connection.execute(rows, []).unwrap();
        let steps = |after| {
            let selection = Selection {
                filter: Filter::All,
                since_ns: 0,
                until_ns: u64::MAX,
                after,
                limit: 10,
                bytes_max: 0,
            };
            let (sql, parameters) = query(&selection);
            let mut statement = connection.prepare(&sql).unwrap();
            let mut rows = statement.query(params_from_iter(parameters)).unwrap();
            let mut count = 0;
            while rows.next().unwrap().is_some() {
                count += 1;
            }
            drop(rows);
            assert_eq!(count, 11);
            statement.get_status(StatementStatus::VmStep)
        };
        let late = Cursor {
            window_end_ns: 4900,
            host: 1,
            epoch: 1,
            sequence: 4900,
        };
        let (first, late) = (steps(None), steps(Some(late)));
        assert!(late < 3 * first, "{late} steps after {first}");
    }
}
