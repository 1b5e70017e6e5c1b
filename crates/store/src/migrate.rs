//! Bringing a store of an earlier version to the newest.
//!
//! Roll-ups may take gigabytes: they are moved some at a time, each time in a
//! transaction of its own, so that no second copy is needed and a start that is cut
//! short goes on where it came to.

use std::{fmt::Write as _, time::Instant};

use monitor_proto::v1;
use prost::Message as _;
use rollup::{Bucket, EndpointId, EndpointRoll, GAUGES, GaugeRoll, HostRoll, LaterCounters};
use rusqlite::{Connection, Row, params};

use super::{
    from_sql, hosts,
    kept::host_id,
    progress::save_progress,
    roller,
    rolls::{self, Owner},
    schema, to_sql,
};

/// Rows moved in one transaction.
const STEP_ROWS: u32 = 5000;

/// Does what `version` lacks; nothing of the newest.
pub(super) fn migrate(connection: &Connection, version: i32) -> rusqlite::Result<()> {
    if version < 2 {
        tracing::info!(
            "migrating the store from schema version {version} to {}",
            schema::VERSION
        );
        let transaction = connection.unchecked_transaction()?;
        begin(&transaction)?;
        transaction.commit()?;
    }
    if !exists(connection, "endpoint_rolls_v1")? {
        return Ok(());
    }
    let started = Instant::now();
    let mut moved = 0;
    for step in [move_endpoint_rolls, move_host_rolls] {
        loop {
            let transaction = connection.unchecked_transaction()?;
            let n = step(&transaction)?;
            transaction.commit()?;
            moved += n;
            if n == 0 {
                break;
            }
        }
    }
    // At once: where only one of them is left, nobody looks for it again.
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch("DROP TABLE endpoint_rolls_v1; DROP TABLE host_rolls_v1;")?;
    transaction.commit()?;
    tracing::info!(rows = moved, took = ?started.elapsed(), "added checksums to the roll-ups");
    Ok(())
}

fn exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?",
        [table],
        |row| row.get(0),
    )
}

/// Everything but the roll-ups.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "ALTER TABLE reports ADD COLUMN received_ns INTEGER;
         ALTER TABLE reports ADD COLUMN checksum INTEGER;
         {}
         ALTER TABLE hosts ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE progress ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE endpoint_rolls RENAME TO endpoint_rolls_v1;
         ALTER TABLE host_rolls RENAME TO host_rolls_v1;
         {}
         PRAGMA user_version = 2;",
        schema::index_by_age(),
        rolls::ROLL_TABLES,
    ))?;
    for host in hosts::rows(connection)? {
        hosts::save(connection, &host.row)?;
    }
    let cursors: Vec<(String, i64)> = connection
        .prepare("SELECT name, stored_ns FROM progress")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, stored_ns) in &cursors {
        save_progress(connection, name, from_sql(*stored_ns))?;
    }
    if !cursors.iter().any(|(name, _)| name == roller::NAME) {
        save_progress(connection, roller::NAME, 0)?;
    }
    Ok(())
}

/// What version 1 had of an endpoint.
const ENDPOINT_COLUMNS: &str = "covered_ns, http_ns, incomplete, active_min, active_mean, \
     active_max, active_ns, connections_opened, connections_failed, connections_closed, \
     bytes_received, bytes_sent, retransmits, requests, exchanges, responses_1xx, responses_2xx, \
     responses_3xx, responses_4xx, responses_5xx, exchange_duration, connect_duration";

fn move_endpoint_rolls(connection: &Connection) -> rusqlite::Result<usize> {
    let mut rows = connection.prepare_cached(&format!(
        "SELECT tier_s, endpoint, start_s, host, role, target, address, {ENDPOINT_COLUMNS}
         FROM endpoint_rolls_v1 JOIN endpoints ON key = endpoint LIMIT {STEP_ROWS}"
    ))?;
    let rows = rows.query_map([], |row| {
        let id = EndpointId {
            role: row.get(4)?,
            target: row.get(5)?,
            address: row.get(6)?,
        };
        let owner = rolls::owner_of_endpoint(row.get(3)?, row.get(1)?, &id);
        Ok((owner, bucket(row)?, endpoint_roll(row, 7)?))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    for (owner, bucket, roll) in &rows {
        rolls::add_endpoint_roll(connection, *owner, *bucket, roll)?;
        delete(
            connection,
            ("endpoint_rolls_v1", "endpoint"),
            *owner,
            *bucket,
        )?;
    }
    Ok(rows.len())
}

fn move_host_rolls(connection: &Connection) -> rusqlite::Result<usize> {
    let gauges = GAUGES.iter().fold(String::new(), |mut columns, gauge| {
        write!(
            columns,
            ", {gauge}_min, {gauge}_mean, {gauge}_max, {gauge}_ns"
        )
        .expect("writing to a String never fails");
        columns
    });
    let mut rows = connection.prepare_cached(&format!(
        "SELECT tier_s, host, start_s, covered_ns, incomplete{gauges}
         FROM host_rolls_v1 LIMIT {STEP_ROWS}"
    ))?;
    let rows = rows.query_map([], |row| {
        let key = row.get(1)?;
        let owner = rolls::owner_of_host(key, &host_id(connection, key)?);
        let mut roll = HostRoll {
            covered_ns: from_sql(row.get(3)?),
            incomplete: from_sql(row.get(4)?),
            ..HostRoll::default()
        };
        for (i, kept) in roll.gauges.iter_mut().enumerate() {
            *kept = gauge(row, 5 + 4 * i)?;
        }
        Ok((owner, bucket(row)?, roll))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    for (owner, bucket, roll) in &rows {
        rolls::add_host_roll(connection, *owner, *bucket, roll)?;
        delete(connection, ("host_rolls_v1", "host"), *owner, *bucket)?;
    }
    Ok(rows.len())
}

fn bucket(row: &Row<'_>) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        tier_s: from_sql(row.get(0)?),
        start_s: from_sql(row.get(2)?),
    })
}

fn delete(
    connection: &Connection,
    (table, of): (&str, &str),
    owner: Owner,
    bucket: Bucket,
) -> rusqlite::Result<()> {
    let key = params![to_sql(bucket.tier_s), owner.key, to_sql(bucket.start_s)];
    connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE tier_s = ? AND {of} = ? AND start_s = ?"
        ))?
        .execute(key)
        .map(drop)
}

fn endpoint_roll(row: &Row<'_>, first: usize) -> rusqlite::Result<EndpointRoll> {
    let number = |i: usize| row.get::<_, i64>(first + i).map(from_sql);
    // What does not decode was damaged before there were checksums.
    let histogram = |i: usize| -> rusqlite::Result<v1::Histogram> {
        let column = row.get_ref(first + i)?.as_blob()?;
        Ok(v1::Histogram::decode(column).unwrap_or_default())
    };
    Ok(EndpointRoll {
        covered_ns: number(0)?,
        http_ns: number(1)?,
        incomplete: number(2)?,
        active: gauge(row, first + 3)?,
        connections_opened: number(7)?,
        connections_failed: number(8)?,
        connections_closed: number(9)?,
        bytes_received: number(10)?,
        bytes_sent: number(11)?,
        retransmits: number(12)?,
        requests: number(13)?,
        exchanges: number(14)?,
        responses_1xx: number(15)?,
        responses_2xx: number(16)?,
        responses_3xx: number(17)?,
        responses_4xx: number(18)?,
        responses_5xx: number(19)?,
        exchange_duration: histogram(20)?,
        connect_duration: histogram(21)?,
        later: LaterCounters::default(),
    })
}

fn gauge(row: &Row<'_>, first: usize) -> rusqlite::Result<GaugeRoll> {
    Ok(GaugeRoll {
        min: row.get(first)?,
        mean: row.get(first + 1)?,
        max: row.get(first + 2)?,
        measured_ns: from_sql(row.get(first + 3)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that version 1 wrote.
    fn store_of_version_1(dir: &std::path::Path) -> Connection {
        let packed = include_bytes!("../../../collector/tests/stores/v1.db.zst");
        let store = zstd::bulk::decompress(packed, 16 << 20).unwrap();
        let path = dir.join("collector.db");
        std::fs::write(&path, store).unwrap();
        Connection::open(path).unwrap()
    }

    /// All that is in the tables of roll-ups, and which tables there are.
    fn content(connection: &Connection) -> Vec<String> {
        let rows = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                let cells = (0..columns).map(|i| row.get_ref(i).map(|cell| format!("{cell:?}")));
                cells.collect::<rusqlite::Result<Vec<_>>>()
            });
            rows.unwrap().map(|row| row.unwrap().join(" ")).collect()
        };
        let queries = [
            "SELECT name FROM sqlite_schema ORDER BY name",
            "SELECT * FROM endpoint_rolls ORDER BY tier_s, endpoint, start_s",
            "SELECT * FROM host_rolls ORDER BY tier_s, host, start_s",
        ];
        queries.into_iter().flat_map(rows).collect()
    }

    #[test]
    fn a_migration_that_was_cut_short_goes_on_where_it_came_to() {
        let dir = tempfile::tempdir().unwrap();
        let whole = store_of_version_1(dir.path());
        migrate(&whole, 1).unwrap();
        let truth = content(&whole);

        let steps: [fn(&Connection); 3] = [
            |_| (),
            |c| assert_ne!(move_endpoint_rolls(c).unwrap(), 0),
            |c| assert_ne!(move_host_rolls(c).unwrap(), 0),
        ];
        for done in 0..=steps.len() {
            let dir = tempfile::tempdir().unwrap();
            let connection = store_of_version_1(dir.path());
            let transaction = connection.unchecked_transaction().unwrap();
            begin(&transaction).unwrap();
            if done == 0 {
                // Nothing of it stays.
                drop(transaction);
                migrate(&connection, 1).unwrap();
            } else {
                transaction.commit().unwrap();
                steps[..done].iter().for_each(|step| step(&connection));
                migrate(&connection, 2).unwrap();
            }
            assert_eq!(content(&connection), truth, "{done}");
        }
    }
}
