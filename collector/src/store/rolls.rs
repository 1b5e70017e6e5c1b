//! The roll-ups' tables.

use std::{collections::HashMap, fmt::Write as _};

use monitor_proto::v1;
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};

use super::{from_sql, to_sql};
use crate::{
    log_limit,
    rollup::{Bucket, EndpointId, EndpointRoll, GAUGES, GaugeRoll, HostRoll, Rolling, TIERS_S},
};

/// Endpoints of one host that have roll-ups; a proxy has tens.  Of a host that names
/// ever new ones, those go that were not seen for the longest time.
pub(super) const ENDPOINTS_MAX: usize = 4096;

/// The tier whose roll-ups are kept the longest.
const LONGEST_TIER_S: u64 = TIERS_S[TIERS_S.len() - 1];

/// The columns of `endpoint_rolls` after its key.
const ENDPOINT_COLUMNS: &str = "covered_ns, http_ns, incomplete, active_min, active_mean, \
     active_max, active_ns, connections_opened, connections_failed, connections_closed, \
     bytes_received, bytes_sent, retransmits, requests, exchanges, responses_1xx, responses_2xx, \
     responses_3xx, responses_4xx, responses_5xx, exchange_duration, connect_duration";

/// The tables; a histogram is a column of its encoded message.
pub(super) fn tables() -> String {
    let gauges: String = GAUGES.iter().fold(String::new(), |mut columns, gauge| {
        write!(
            columns,
            ",\n  {gauge}_min REAL NOT NULL, {gauge}_mean REAL NOT NULL, \
             {gauge}_max REAL NOT NULL, {gauge}_ns INTEGER NOT NULL"
        )
        .expect("writing to a String never fails");
        columns
    });
    format!(
        "
CREATE TABLE endpoints (
  key     INTEGER PRIMARY KEY,
  host    INTEGER NOT NULL REFERENCES hosts(key),
  role    INTEGER NOT NULL,
  target  TEXT NOT NULL,
  address TEXT NOT NULL,
  UNIQUE (host, role, target, address)
) STRICT;
CREATE TABLE endpoint_rolls (
  tier_s             INTEGER NOT NULL,
  endpoint           INTEGER NOT NULL,
  start_s            INTEGER NOT NULL,
  covered_ns         INTEGER NOT NULL,
  http_ns            INTEGER NOT NULL,
  incomplete         INTEGER NOT NULL,
  active_min         REAL NOT NULL,
  active_mean        REAL NOT NULL,
  active_max         REAL NOT NULL,
  active_ns          INTEGER NOT NULL,
  connections_opened INTEGER NOT NULL,
  connections_failed INTEGER NOT NULL,
  connections_closed INTEGER NOT NULL,
  bytes_received     INTEGER NOT NULL,
  bytes_sent         INTEGER NOT NULL,
  retransmits        INTEGER NOT NULL,
  requests           INTEGER NOT NULL,
  exchanges          INTEGER NOT NULL,
  responses_1xx      INTEGER NOT NULL,
  responses_2xx      INTEGER NOT NULL,
  responses_3xx      INTEGER NOT NULL,
  responses_4xx      INTEGER NOT NULL,
  responses_5xx      INTEGER NOT NULL,
  exchange_duration  BLOB NOT NULL,
  connect_duration   BLOB NOT NULL,
  PRIMARY KEY (tier_s, endpoint, start_s)
) STRICT, WITHOUT ROWID;
CREATE TABLE host_rolls (
  tier_s     INTEGER NOT NULL,
  host       INTEGER NOT NULL,
  start_s    INTEGER NOT NULL,
  covered_ns INTEGER NOT NULL,
  incomplete INTEGER NOT NULL{gauges},
  PRIMARY KEY (tier_s, host, start_s)
) STRICT, WITHOUT ROWID;
CREATE TABLE progress (
  name      TEXT PRIMARY KEY,
  stored_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"
    )
}

/// An endpoint and its key.
#[derive(Clone, Debug)]
pub(super) struct EndpointRow {
    pub(super) key: i64,
    pub(super) id: EndpointId,
}

/// The endpoints of a host.
pub(super) fn endpoints(connection: &Connection, host: i64) -> rusqlite::Result<Vec<EndpointRow>> {
    connection
        .prepare_cached("SELECT key, role, target, address FROM endpoints WHERE host = ?")?
        .query_map([host], endpoint_row)?
        .collect()
}

fn endpoint_row(row: &Row<'_>) -> rusqlite::Result<EndpointRow> {
    Ok(EndpointRow {
        key: row.get(0)?,
        id: EndpointId {
            role: row.get(1)?,
            target: row.get(2)?,
            address: row.get(3)?,
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
pub(super) struct Range {
    pub(super) tier_s: u64,
    pub(super) start_s: u64,
    pub(super) end_s: u64,
}

/// Which of an endpoint's columns are read, and where each is in a row: most of
/// a row's time is taken by what is read of it.
#[derive(Debug)]
pub(super) struct Columns {
    names: String,
    places: Vec<Option<usize>>,
}

impl Columns {
    fn all() -> Self {
        Self::which(|_, _| true)
    }

    /// Those that a metric is made of.
    pub(super) fn of(metric: &str) -> Self {
        // Time covered, time with HTTP, reports that were not complete.
        const ALWAYS: usize = 3;
        // Of these each is needed to tell whether the others can be seen.
        let of_http1 = |name: &str| name == "requests" || name.starts_with("responses_");
        Self::which(|i, column| {
            i < ALWAYS
                || metric.starts_with(column)
                || (of_http1(metric) && (of_http1(column) || column == "exchanges"))
                || (metric == "connections_active" && column.starts_with("active_"))
        })
    }

    fn which(read: impl Fn(usize, &str) -> bool) -> Self {
        let mut names = Vec::new();
        let all = ENDPOINT_COLUMNS.split(", ").enumerate();
        let places = all.map(|(i, column)| {
            read(i, column).then(|| {
                names.push(column);
                names.len() - 1
            })
        });
        let places = places.collect();
        Self {
            names: names.join(", "),
            places,
        }
    }
}

/// An endpoint's roll-ups by the start of their bucket, one after another.
pub(super) fn endpoint_rolls(
    connection: &Connection,
    columns: &Columns,
    endpoint: i64,
    range: Range,
    mut each: impl FnMut(u64, EndpointRoll),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, start_s FROM endpoint_rolls
         WHERE tier_s = ? AND endpoint = ? AND start_s >= ? AND start_s < ?",
        columns.names
    ))?;
    let start_s = statement.column_count() - 1;
    let mut rows = statement.query(params![
        to_sql(range.tier_s),
        endpoint,
        to_sql(range.start_s),
        to_sql(range.end_s)
    ])?;
    while let Some(row) = rows.next()? {
        each(from_sql(row.get(start_s)?), endpoint_roll(row, columns)?);
    }
    Ok(())
}

/// What is not among the columns is 0.
fn endpoint_roll(row: &Row<'_>, columns: &Columns) -> rusqlite::Result<EndpointRoll> {
    let number = |i: usize| match columns.places[i] {
        Some(place) => row.get::<_, i64>(place).map(from_sql),
        None => Ok(0),
    };
    let histogram = |i: usize| match columns.places[i] {
        Some(place) => Ok::<_, rusqlite::Error>(histogram_of(row.get_ref(place)?.as_blob()?)),
        None => Ok(v1::Histogram::default()),
    };
    let active = match columns.places[3] {
        Some(place) => gauge(row, place)?,
        None => GaugeRoll::default(),
    };
    Ok(EndpointRoll {
        covered_ns: number(0)?,
        http_ns: number(1)?,
        incomplete: number(2)?,
        active,
        connections_opened: number(7)?,
        connections_failed: number(8)?,
        connections_closed: number(9)?,
        bytes_received: number(10)?,
        bytes_sent: number(11)?,
        retransmits: number(12)?,
        requests: number(13)?,
        exchanges: number(14)?,
        responses: [
            number(15)?,
            number(16)?,
            number(17)?,
            number(18)?,
            number(19)?,
        ],
        exchange_duration: histogram(20)?,
        connect_duration: histogram(21)?,
    })
}

/// Written by this program: what does not decode was damaged since.
fn histogram_of(column: &[u8]) -> v1::Histogram {
    v1::Histogram::decode(column).unwrap_or_else(|error| {
        if let Some(left_out) = log_limit::line("damaged roll-up", "") {
            tracing::error!(
                %error,
                left_out,
                "a histogram in the roll-ups is damaged and left out: check the disk"
            );
        }
        v1::Histogram::default()
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

fn gauge_values(gauge: &GaugeRoll) -> [Value; 4] {
    [
        Value::Real(gauge.min),
        Value::Real(gauge.mean),
        Value::Real(gauge.max),
        Value::Integer(to_sql(gauge.measured_ns)),
    ]
}

/// Adds to what is kept of an endpoint's bucket.
pub(super) fn add_endpoint_roll(
    connection: &Connection,
    endpoint: i64,
    bucket: Bucket,
    roll: &EndpointRoll,
) -> rusqlite::Result<()> {
    let key = params![to_sql(bucket.tier_s), endpoint, to_sql(bucket.start_s)];
    let kept = connection
        .prepare_cached(&format!(
            "SELECT {ENDPOINT_COLUMNS} FROM endpoint_rolls
             WHERE tier_s = ? AND endpoint = ? AND start_s = ?"
        ))?
        .query_row(key, |row| endpoint_roll(row, &Columns::all()))
        .optional()?;
    let mut sum = kept.unwrap_or_default();
    sum.merge(roll);
    let mut values = vec![
        Value::Integer(to_sql(bucket.tier_s)),
        Value::Integer(endpoint),
        Value::Integer(to_sql(bucket.start_s)),
    ];
    let numbers = |values: &mut Vec<Value>, numbers: &[u64]| {
        values.extend(numbers.iter().map(|&n| Value::Integer(to_sql(n))));
    };
    numbers(&mut values, &[sum.covered_ns, sum.http_ns, sum.incomplete]);
    values.extend(gauge_values(&sum.active));
    numbers(
        &mut values,
        &[
            sum.connections_opened,
            sum.connections_failed,
            sum.connections_closed,
            sum.bytes_received,
            sum.bytes_sent,
            sum.retransmits,
            sum.requests,
            sum.exchanges,
        ],
    );
    numbers(&mut values, &sum.responses);
    values.push(Value::Blob(sum.exchange_duration.encode_to_vec()));
    values.push(Value::Blob(sum.connect_duration.encode_to_vec()));
    let marks = vec!["?"; values.len()].join(",");
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO endpoint_rolls (tier_s, endpoint, start_s, {ENDPOINT_COLUMNS})
             VALUES ({marks})"
        ))?
        .execute(params_from_iter(values))
        .map(drop)
}

/// The columns of `host_rolls` after its key.
fn host_columns() -> String {
    GAUGES
        .iter()
        .fold("covered_ns, incomplete".to_owned(), |mut columns, gauge| {
            write!(
                columns,
                ", {gauge}_min, {gauge}_mean, {gauge}_max, {gauge}_ns"
            )
            .expect("writing to a String never fails");
            columns
        })
}

fn host_roll(row: &Row<'_>, first: usize) -> rusqlite::Result<HostRoll> {
    let mut roll = HostRoll {
        covered_ns: from_sql(row.get(first)?),
        incomplete: from_sql(row.get(first + 1)?),
        ..HostRoll::default()
    };
    for (i, kept) in roll.gauges.iter_mut().enumerate() {
        *kept = gauge(row, first + 2 + 4 * i)?;
    }
    Ok(roll)
}

/// A host's roll-ups by the start of their bucket, one after another; of the
/// gauges, that of the metric alone.
pub(super) fn host_rolls(
    connection: &Connection,
    metric: &str,
    host: i64,
    range: Range,
    mut each: impl FnMut(u64, HostRoll),
) -> rusqlite::Result<()> {
    let place = GAUGES.iter().position(|gauge| *gauge == metric);
    let place = place.unwrap_or(0);
    let mut statement = connection.prepare_cached(HOST_ROLLS_OF_GAUGE[place])?;
    let mut rows = statement.query(params![
        to_sql(range.tier_s),
        host,
        to_sql(range.start_s),
        to_sql(range.end_s)
    ])?;
    while let Some(row) = rows.next()? {
        let mut roll = HostRoll {
            covered_ns: from_sql(row.get(1)?),
            incomplete: from_sql(row.get(2)?),
            ..HostRoll::default()
        };
        roll.gauges[place] = gauge(row, 3)?;
        each(from_sql(row.get(0)?), roll);
    }
    Ok(())
}

macro_rules! host_rolls_of {
    ($($gauge:literal),*) => {
        [$(concat!(
            "SELECT start_s, covered_ns, incomplete, ",
            $gauge, "_min, ", $gauge, "_mean, ", $gauge, "_max, ", $gauge, "_ns ",
            "FROM host_rolls WHERE tier_s = ? AND host = ? AND start_s >= ? AND start_s < ?"
        )),*]
    };
}

/// In the order of `GAUGES`.
const HOST_ROLLS_OF_GAUGE: [&str; GAUGES.len()] = host_rolls_of!(
    "cpu_usage",
    "memory_usage",
    "disk_usage",
    "load_avg_1",
    "load_avg_5",
    "load_avg_15",
    "network_in",
    "network_out"
);

/// Adds to what is kept of a host's bucket.
pub(super) fn add_host_roll(
    connection: &Connection,
    host: i64,
    bucket: Bucket,
    roll: &HostRoll,
) -> rusqlite::Result<()> {
    let columns = host_columns();
    let kept = connection
        .prepare_cached(&format!(
            "SELECT {columns} FROM host_rolls WHERE tier_s = ? AND host = ? AND start_s = ?"
        ))?
        .query_row(
            params![to_sql(bucket.tier_s), host, to_sql(bucket.start_s)],
            |row| host_roll(row, 0),
        )
        .optional()?;
    let mut sum = kept.unwrap_or_default();
    sum.merge(roll);
    let mut values = vec![
        Value::Integer(to_sql(bucket.tier_s)),
        Value::Integer(host),
        Value::Integer(to_sql(bucket.start_s)),
        Value::Integer(to_sql(sum.covered_ns)),
        Value::Integer(to_sql(sum.incomplete)),
    ];
    values.extend(sum.gauges.iter().flat_map(gauge_values));
    let marks = vec!["?"; values.len()].join(",");
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO host_rolls (tier_s, host, start_s, {columns})
             VALUES ({marks})"
        ))?
        .execute(params_from_iter(values))
        .map(drop)
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
    use super::*;
    use crate::store::schema;

    /// A host with endpoints that were last seen in these hours.
    fn seen_in(hours: &[u64]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        schema::create(&connection).unwrap();
        let host = "INSERT INTO hosts VALUES (1, 'h', 0, 0, 0, 0, 0, 0, 0, 0)";
        connection.execute(host, []).unwrap();
        for (n, hour) in hours.iter().enumerate() {
            let key = add_endpoint(&connection, 1, &id(n)).unwrap();
            for bucket in [(60, hour * 3600), (3600, hour * 3600)] {
                let (tier_s, start_s) = bucket;
                let bucket = Bucket { tier_s, start_s };
                add_endpoint_roll(&connection, key, bucket, &EndpointRoll::default()).unwrap();
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

    #[test]
    fn a_metric_reads_its_own_columns_and_no_other() {
        let of_bytes = Columns::of("bytes_sent");
        assert_eq!(
            of_bytes.names,
            "covered_ns, http_ns, incomplete, bytes_sent"
        );
        assert_eq!(of_bytes.places[11], Some(3));
        assert_eq!(of_bytes.places[12], None);
        for metric in ["requests", "responses_5xx"] {
            assert_eq!(
                Columns::of(metric).names,
                "covered_ns, http_ns, incomplete, requests, exchanges, responses_1xx, \
                 responses_2xx, responses_3xx, responses_4xx, responses_5xx"
            );
        }
        let of_active = Columns::of("connections_active").names;
        assert!(of_active.ends_with("active_min, active_mean, active_max, active_ns"));
        let of_p99 = Columns::of("exchange_duration_p99").names;
        assert!(of_p99.ends_with("incomplete, exchange_duration"));
        assert_eq!(Columns::all().names, ENDPOINT_COLUMNS);
        for (gauge, sql) in GAUGES.iter().zip(HOST_ROLLS_OF_GAUGE) {
            assert!(
                sql.contains(&format!(" {gauge}_min, {gauge}_mean,")),
                "{sql}"
            );
        }
    }
}
