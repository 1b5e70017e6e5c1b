//! The roll-ups' tables.

mod row;

use std::collections::HashMap;

use rollup::{Bucket, EndpointId, TIERS_S};
pub use row::{Histogram, Owner, endpoint_rolls, host_rolls, whole_endpoint_rolls};
pub(super) use row::{add_endpoint_roll, add_host_roll};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{checksum::Checksum, from_sql, text, to_sql};

/// Endpoints of one host that have roll-ups; a proxy has tens.  Of a host that names
/// ever new ones, those go that were not seen for the longest time.
pub(super) const ENDPOINTS_MAX: usize = 4096;

/// The tier whose roll-ups are kept the longest.
const LONGEST_TIER_S: u64 = TIERS_S[TIERS_S.len() - 1];

/// The tables of roll-ups; `row` says what is in their columns.
pub(super) const ROLL_TABLES: &str = "
CREATE TABLE endpoint_rolls (
  tier_s            INTEGER NOT NULL,
  endpoint          INTEGER NOT NULL,
  start_s           INTEGER NOT NULL,
  sums              BLOB NOT NULL,
  exchange_duration BLOB NOT NULL,
  connect_duration  BLOB NOT NULL,
  PRIMARY KEY (tier_s, endpoint, start_s)
) STRICT, WITHOUT ROWID;
CREATE TABLE host_rolls (
  tier_s  INTEGER NOT NULL,
  host    INTEGER NOT NULL,
  start_s INTEGER NOT NULL,
  sums    BLOB NOT NULL,
  PRIMARY KEY (tier_s, host, start_s)
) STRICT, WITHOUT ROWID;
";

/// Whose roll-ups those of endpoints are.  A row has no checksum of its own: those
/// of its roll-ups cover it.
pub(super) const ENDPOINTS_TABLE: &str = "
CREATE TABLE endpoints (
  key     INTEGER PRIMARY KEY,
  host    INTEGER NOT NULL REFERENCES hosts(key),
  role    INTEGER NOT NULL,
  target  TEXT NOT NULL,
  address TEXT NOT NULL,
  UNIQUE (host, role, target, address)
) STRICT;
";

/// An endpoint and its key.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    pub key: i64,
    pub id: EndpointId,
}

/// Whose roll-ups those of an endpoint with this key are.
pub fn owner_of_endpoint(host: i64, key: i64, id: &EndpointId) -> Owner {
    let identity = Checksum::default()
        .number(host)
        .number(i64::from(id.role))
        .text(&id.target)
        .text(&id.address);
    Owner {
        key,
        identity: identity.finish(),
    }
}

/// Whose roll-ups those of a host are.
pub fn owner_of_host(key: i64, id: &str) -> Owner {
    Owner {
        key,
        identity: Checksum::default().text(id).finish(),
    }
}

/// The start of the first bucket that a host has in a range.
pub fn first_of_host(
    connection: &Connection,
    host: i64,
    range: Range,
) -> rusqlite::Result<Option<u64>> {
    let first: Option<i64> = connection
        .prepare_cached(
            "SELECT min(start_s) FROM host_rolls
             WHERE tier_s = ? AND host = ? AND start_s >= ? AND start_s < ?",
        )?
        .query_row(
            params![
                to_sql(range.tier_s),
                host,
                to_sql(range.start_s),
                to_sql(range.end_s)
            ],
            |row| row.get(0),
        )?;
    Ok(first.map(from_sql))
}

/// The endpoints of a host.
pub fn endpoints(connection: &Connection, host: i64) -> rusqlite::Result<Vec<EndpointRow>> {
    connection
        .prepare_cached("SELECT key, role, target, address FROM endpoints WHERE host = ?")?
        .query_map([host], endpoint_row)?
        .collect()
}

fn endpoint_row(row: &Row<'_>) -> rusqlite::Result<EndpointRow> {
    Ok(EndpointRow {
        key: row.get(0)?,
        id: EndpointId {
            role: i32::try_from(row.get::<_, i64>(1)?).unwrap_or(-1),
            target: text(row, 2)?,
            address: text(row, 3)?,
        },
    })
}

/// The keys of the endpoints of a host.
pub(super) fn endpoint_keys(
    connection: &Connection,
    host: i64,
) -> rusqlite::Result<HashMap<EndpointId, i64>> {
    let rows = endpoints(connection, host)?;
    Ok(rows.into_iter().map(|row| (row.id, row.key)).collect())
}

pub(super) fn add_endpoint(
    connection: &Connection,
    host: i64,
    id: &EndpointId,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT INTO endpoints (host, role, target, address) VALUES (?, ?, ?, ?)")?
        .execute(params![host, id.role, id.target, id.address])?;
    Ok(connection.last_insert_rowid())
}

/// Buckets of a tier from `start_s` up to `end_s`.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub tier_s: u64,
    pub start_s: u64,
    pub end_s: u64,
}

impl Range {
    /// The bucket of its tier with this start.
    pub fn bucket(self, start_s: u64) -> Bucket {
        Bucket {
            tier_s: self.tier_s,
            start_s,
        }
    }
}

/// How many roll-ups are damaged.
pub(super) fn damaged(connection: &Connection) -> rusqlite::Result<u64> {
    let hosts: Vec<(i64, String)> = connection
        .prepare("SELECT key, id FROM hosts")?
        .query_map([], |row| Ok((row.get(0)?, text(row, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut damaged = 0;
    for tier_s in TIERS_S {
        let range = Range {
            tier_s,
            start_s: 0,
            end_s: u64::MAX,
        };
        for (host, id) in &hosts {
            host_rolls(connection, owner_of_host(*host, id), range, |_, roll| {
                damaged += u64::from(roll.is_none());
            })?;
            for EndpointRow { key, id } in endpoints(connection, *host)? {
                let owner = owner_of_endpoint(*host, key, &id);
                whole_endpoint_rolls(connection, owner, range, |_, roll| {
                    damaged += u64::from(roll.is_none());
                    true
                })?;
            }
        }
    }
    Ok(damaged)
}

/// Rows deleted at once.
const STEP_ROWS: u32 = 200;

/// Deletes roll-ups of one series that start before `before_s`, some at once;
/// whether there may be more.
fn delete_before(
    connection: &Connection,
    (table, of): (&str, &str),
    key: i64,
    tier_s: u64,
    before_s: u64,
) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE tier_s = ?1 AND {of} = ?2 AND start_s IN (
               SELECT start_s FROM {table}
               WHERE tier_s = ?1 AND {of} = ?2 AND start_s < ?3
               ORDER BY start_s LIMIT {STEP_ROWS})"
        ))?
        .execute(params![to_sql(tier_s), key, to_sql(before_s)])?;
    Ok(deleted == STEP_ROWS as usize)
}

/// Deletes a host's roll-ups of one tier that start before `before_s`, some at
/// once; whether there may be more.
pub(super) fn delete_of_host(
    connection: &Connection,
    host: i64,
    tier_s: u64,
    before_s: u64,
) -> rusqlite::Result<bool> {
    if delete_before(connection, ("host_rolls", "host"), host, tier_s, before_s)? {
        return Ok(true);
    }
    for endpoint in endpoint_keys(connection, host)?.into_values() {
        let table = ("endpoint_rolls", "endpoint");
        if delete_before(connection, table, endpoint, tier_s, before_s)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Forgets the endpoints of a host whose roll-ups are all deleted.
pub(super) fn remove_endpoints(connection: &Connection, host: i64) -> rusqlite::Result<()> {
    let [minute_s, hour_s] = TIERS_S.map(to_sql);
    connection
        .prepare_cached(
            "DELETE FROM endpoints WHERE host = ?1
             AND NOT EXISTS (SELECT 1 FROM endpoint_rolls WHERE tier_s = ?2 AND endpoint = key)
             AND NOT EXISTS (SELECT 1 FROM endpoint_rolls WHERE tier_s = ?3 AND endpoint = key)",
        )?
        .execute([host, minute_s, hour_s])
        .map(drop)
}

/// Forgets the endpoint of a host that was not seen for the longest time, and its
/// roll-ups; which one, or `None` where all were seen since `before_s`.
pub(super) fn forget_least_recent(
    connection: &Connection,
    host: i64,
    before_s: u64,
) -> rusqlite::Result<Option<EndpointId>> {
    let found = connection
        .prepare_cached(
            "SELECT key, role, target, address, coalesce(
               (SELECT max(start_s) FROM endpoint_rolls WHERE tier_s = ?2 AND endpoint = key), 0
             ) AS seen_s
             FROM endpoints WHERE host = ?1 AND seen_s < ?3
             ORDER BY seen_s LIMIT 1",
        )?
        .query_row(
            params![host, to_sql(LONGEST_TIER_S), to_sql(before_s)],
            endpoint_row,
        )
        .optional()?;
    let Some(endpoint) = found else {
        return Ok(None);
    };
    for tier_s in TIERS_S {
        connection
            .prepare_cached("DELETE FROM endpoint_rolls WHERE tier_s = ? AND endpoint = ?")?
            .execute(params![to_sql(tier_s), endpoint.key])?;
    }
    connection
        .prepare_cached("DELETE FROM endpoints WHERE key = ?")?
        .execute([endpoint.key])?;
    Ok(Some(endpoint.id))
}

#[cfg(test)]
mod tests {
    use rollup::EndpointRoll;

    use super::*;
    use crate::schema;

    /// A host with endpoints that were last seen in these hours.
    fn seen_in(hours: &[u64]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        schema::create(&connection).unwrap();
        let host = "INSERT INTO hosts VALUES (1, 'h', 0, 0, 0, 0, 0, 0, 0, 0, 0)";
        connection.execute(host, []).unwrap();
        for (n, hour) in hours.iter().enumerate() {
            let key = add_endpoint(&connection, 1, &id(n)).unwrap();
            for bucket in [(60, hour * 3600), (3600, hour * 3600)] {
                let (tier_s, start_s) = bucket;
                let bucket = Bucket { tier_s, start_s };
                let owner = owner_of_endpoint(1, key, &id(n));
                add_endpoint_roll(&connection, owner, bucket, &EndpointRoll::default()).unwrap();
            }
        }
        connection
    }

    fn id(n: usize) -> EndpointId {
        EndpointId {
            role: 1,
            target: "/t".to_owned(),
            address: format!("10.0.0.{n}:80"),
        }
    }

    fn rows(connection: &Connection, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_endpoint_that_is_gone_the_longest_makes_room() {
        let connection = seen_in(&[7, 3, 9]);
        let forget = |before_h: u64| {
            let gone = forget_least_recent(&connection, 1, before_h * 3600).unwrap();
            (gone, rows(&connection, "endpoint_rolls"))
        };
        assert_eq!(forget(3), (None, 6));
        assert_eq!(forget(8), (Some(id(1)), 4));
        assert_eq!(forget(8), (Some(id(0)), 2));
        assert_eq!(forget(8), (None, 2));
    }

    #[test]
    fn an_endpoint_goes_with_its_last_roll_up() {
        let connection = seen_in(&[1, 5]);
        let delete = |tier_s, before_h: u64| {
            assert!(!delete_of_host(&connection, 1, tier_s, before_h * 3600).unwrap());
            remove_endpoints(&connection, 1).unwrap();
            rows(&connection, "endpoints")
        };
        assert_eq!(delete(60, 9), 2);
        assert_eq!(delete(3600, 2), 1);
        assert_eq!(delete(3600, 9), 0);
    }
}
