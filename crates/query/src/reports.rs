//! Reading reports page by page, in the order of their window's end.

use std::fmt::Write as _;

use budget::Held;
use monitor_proto::v1;
use prost::Message as _;
use rusqlite::{Connection, params_from_iter, types::Value};
use store::{
    codec::{self, CodecError},
    kept::{self, Damage},
    reports::{COLUMNS, Cursor, from_row},
    to_sql,
};

use crate::read_error::ReadError;

/// Which hosts' reports.
#[derive(Clone, Debug)]
pub enum Filter {
    All,
    /// The keys of `hosts`; names may be shared.
    Hosts(Vec<i64>),
}

/// Which reports.
#[derive(Clone, Debug)]
pub struct Selection {
    pub filter: Filter,
    /// Windows that end then or later.
    pub since_ns: u64,
    /// Windows that end before.
    pub until_ns: u64,
    pub after: Option<Cursor>,
    pub limit: usize,
    /// A page ends before the report with which it would be larger than this,
    /// encoded; it has one report at least.
    pub bytes_max: u64,
}

/// Some reports as they are kept, and where the next ones begin.
#[derive(Debug)]
pub struct Page {
    pub bodies: Vec<Vec<u8>>,
    pub next: Option<Cursor>,
    /// Their room.
    pub held: Held,
    /// Reports between them that cannot be read.
    pub(super) damaged: Vec<Damage>,
}

impl Page {
    /// Why the page is not everything.
    pub fn partial(&self) -> Vec<String> {
        kept::summary(&self.damaged)
    }

    /// All of them at once, and the room that they take.
    pub fn decoded(self) -> Result<(Vec<v1::Report>, Option<Cursor>, Held), CodecError> {
        let mut held = self.held;
        let bodies = self.bodies.iter();
        let reports = bodies.map(|body| codec::decode_in(body, &mut held));
        let reports = reports.collect::<Result<_, _>>()?;
        Ok((reports, self.next, held))
    }
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

    use super::*;

    #[test]
    fn a_late_page_costs_what_the_first_one_does() {
        let connection = store::flips::empty();
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
