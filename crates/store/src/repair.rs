//! Hosts as they are at the start: what is damaged of them is made anew.

use std::collections::{HashMap, HashSet};

use daemon::clock::steady_ns;
use rusqlite::Connection;

use super::{
    from_sql,
    hosts::{DAMAGED_MAX, HostRow, Made, recount, remove, rows, save},
    kept::{self, Damage, Damaged},
    reports,
    schema::AGES_FROM,
};

/// All hosts by id.  What is damaged of them is made anew from their reports.
pub(super) fn load(
    connection: &Connection,
    damaged: &Damaged,
) -> rusqlite::Result<HashMap<String, HostRow>> {
    let (intact, bad): (Vec<_>, Vec<_>) =
        rows(connection)?.into_iter().partition(|kept| kept.intact);
    let mut hosts: Vec<HostRow> = intact.into_iter().map(|kept| kept.row).collect();
    if bad.is_empty() {
        return Ok(by_id(hosts));
    }
    bad.iter()
        .for_each(|kept| damaged.record(&Damage::of_host(&kept.row.id)));
    // Reports refer to rows that are gone for a moment.
    connection.execute_batch("PRAGMA foreign_keys = OFF;")?;
    let transaction = connection.unchecked_transaction()?;
    for kept in &bad {
        remove(&transaction, kept.row.key)?;
    }
    let known: HashSet<i64> = hosts.iter().map(|row| row.key).collect();
    for key in keys_of_reports(&transaction)? {
        if known.contains(&key) {
            continue;
        }
        let old = bad.iter().find(|kept| kept.row.key == key);
        let old_id = old.map(|kept| kept.row.id.clone());
        // An id has one row, whatever a damaged report says.
        let is_free = |id: &String| hosts.iter().all(|row| row.id != *id);
        let id = reported_id(&transaction, key)?.filter(is_free);
        if let Some(id) = id.or(old_id.filter(is_free)) {
            let row = remake(&transaction, key, id)?;
            save(&transaction, &row)?;
            hosts.push(row);
        }
    }
    transaction.commit()?;
    connection.execute_batch("PRAGMA foreign_keys = ON;")?;
    Ok(by_id(hosts))
}

fn by_id(hosts: Vec<HostRow>) -> HashMap<String, HostRow> {
    hosts.into_iter().map(|row| (row.id.clone(), row)).collect()
}

/// The keys of all hosts that have reports.
fn keys_of_reports(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut next = connection.prepare("SELECT min(host) FROM reports WHERE host > ?")?;
    let mut keys = Vec::new();
    let mut last = i64::MIN;
    while let Some(key) = next.query_row([last], |row| row.get::<_, Option<i64>>(0))? {
        keys.push(key);
        last = key;
    }
    Ok(keys)
}

/// A row from what is kept of its host; how many conflicts there were is not known any
/// more.
fn remake(connection: &Connection, key: i64, id: String) -> rusqlite::Result<HostRow> {
    let sql =
        format!("SELECT count(*), min({AGES_FROM}), max({AGES_FROM}) FROM reports WHERE host = ?");
    let (reports, first_ns, last_ns) = connection.query_row(&sql, [key], |row| {
        let number = |i| row.get::<_, i64>(i).map(from_sql);
        Ok((number(0)?, number(1)?, number(2)?))
    })?;
    let mut row = HostRow::new(key, id, first_ns);
    row.seen(last_ns, last_ns.min(steady_ns()));
    row.reports = reports;
    recount(connection, &mut row)?;
    // Its newest report says it.
    row.made = Made::default();
    Ok(row)
}

/// The id in the newest of a host's reports that can be read.
fn reported_id(connection: &Connection, key: i64) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(&format!(
        "SELECT {} FROM reports WHERE host = ? ORDER BY window_end_ns DESC LIMIT {DAMAGED_MAX}",
        reports::COLUMNS
    ))?;
    let mut rows = statement.query([key])?;
    while let Some(row) = rows.next()? {
        if let Ok(report) = kept::read(&reports::from_row(row)?) {
            return Ok(report.host.map(|host| host.id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use monitor_proto::v1;
    use rusqlite::params;

    use super::*;
    use crate::{codec, schema};

    #[test]
    fn a_host_whose_reports_name_another_one_keeps_its_id() {
        let connection = Connection::open_in_memory().unwrap();
        schema::create(&connection).unwrap();
        for (key, id) in [(1, "web"), (2, "db")] {
            save(&connection, &HostRow::of_test(key, id)).unwrap();
        }
        let mut report = v1::Report {
            sequence: 1,
            ..v1::Report::default()
        };
        report.host.get_or_insert_default().id = "web".to_owned();
        report.agent.get_or_insert_default().epoch = 1;
        // Of version 1: nothing but its row says whose it is.
        connection
            .execute(
                "INSERT INTO reports VALUES (2, 1, 1, 0, 7, ?, NULL, NULL)",
                params![codec::encode(&report).unwrap()],
            )
            .unwrap();
        connection
            .execute("UPDATE hosts SET reports = 9 WHERE key = 2", [])
            .unwrap();
        let hosts = load(&connection, &Damaged::default()).unwrap();
        assert_eq!((hosts["web"].key, hosts["db"].key), (1, 2));
        assert_eq!(hosts["db"].reports, 1);
    }
}
