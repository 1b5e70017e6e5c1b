//! Every bit of every kept row, flipped: figures are the true ones, or are left out
//! and told.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails where something cannot be unwrapped"
)]

use monitor_proto::v1;
use rollup::Rolls;
use rusqlite::{Connection, params, types::Value};

use crate::{
    codec,
    hosts::{self, HostRow, Made},
    progress::save_progress,
    reports::{self, Cursor},
    rolls, schema, to_sql,
};

const S: u64 = 1_000_000_000;
pub const HOST: i64 = 5;

fn report() -> v1::Report {
    let histogram = v1::Histogram {
        count: 3,
        sum_ns: 9_000_000,
        scale: 2,
        offset: -40,
        buckets: vec![1, 0, 2],
    };
    let gauge = v1::Gauge {
        last: 7.0,
        min: 5.0,
        mean: 6.5,
        max: 9.0,
    };
    v1::Report {
        sequence: 9,
        window_start_unix_ns: 7_200 * S,
        window_end_unix_ns: 7_205 * S,
        complete: true,
        host: Some(v1::Host {
            id: "web".into(),
            ..Default::default()
        }),
        agent: Some(v1::Agent {
            epoch: 70_000,
            ..Default::default()
        }),
        host_metrics: Some(v1::HostMetrics {
            cpu_usage: Some(gauge),
            ..Default::default()
        }),
        endpoints: vec![v1::Endpoint {
            role: v1::Role::Upstream.into(),
            target: "/t".into(),
            address: "10.0.0.1:80".into(),
            connections_active: 4,
            window: Some(v1::Counters {
                bytes_sent: 1_234_567,
                connect_duration: Some(histogram.clone()),
                http: Some(v1::HttpCounters {
                    requests: 77,
                    exchange_duration: Some(histogram),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A store without a row.
pub fn empty() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    schema::create(&connection).unwrap();
    connection
}

/// A store with a row in each table.
pub fn filled() -> Connection {
    let connection = empty();
    let report = report();
    let mut row = HostRow::new(HOST, "web".into(), 7_205 * S);
    row.count(70_000, 9, Made::new(7_205 * S, 7_205 * S, 5 * S));
    hosts::save(&connection, &row).unwrap();
    let at = Cursor {
        window_end_ns: 7_205 * S,
        host: HOST,
        epoch: 70_000,
        sequence: 9,
    };
    let (stored_ns, received_ns) = (7_206 * S, 7_205 * S);
    connection
        .execute(
            "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                at.host,
                to_sql(at.epoch),
                to_sql(at.sequence),
                to_sql(at.window_end_ns),
                to_sql(stored_ns),
                codec::encode(&report).unwrap(),
                to_sql(received_ns),
                reports::checksum(&at, stored_ns, received_ns),
            ],
        )
        .unwrap();
    let mut rolled = Rolls::default();
    rolled.add(HOST, &report);
    for ((host, bucket), roll) in &rolled.hosts {
        let owner = rolls::owner_of_host(*host, "web");
        rolls::add_host_roll(&connection, owner, *bucket, roll).unwrap();
    }
    for ((host, id, bucket), roll) in &rolled.endpoints {
        let keys = rolls::endpoint_keys(&connection, *host).unwrap();
        let key = keys.get(id).copied();
        let key = key.unwrap_or_else(|| rolls::add_endpoint(&connection, *host, id).unwrap());
        let owner = rolls::owner_of_endpoint(*host, key, id);
        rolls::add_endpoint_roll(&connection, owner, *bucket, roll).unwrap();
    }
    save_progress(&connection, "otlp", 7_206 * S).unwrap();
    connection
}

/// The value with one bit flipped, for each of its bits.
fn flipped(value: &Value) -> Vec<Value> {
    let bits = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let bit = |bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        (0..8 * bytes.len()).map(bit).collect()
    };
    match value {
        Value::Integer(n) => (0..64).map(|bit| Value::Integer(n ^ (1 << bit))).collect(),
        Value::Blob(bytes) => bits(bytes).into_iter().map(Value::Blob).collect(),
        Value::Text(text) => bits(text.as_bytes()).into_iter().map(Value::Blob).collect(),
        Value::Null | Value::Real(_) => Vec::new(),
    }
}

/// Calls `check` with every flipped bit of the rows of a table that are there.
pub fn each_flip(table: &str, check: impl Fn(&Connection, &str)) -> usize {
    let connection = filled();
    let read = format!("SELECT * FROM {table}");
    let mut statement = connection.prepare(&read).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows: Vec<Vec<Value>> = statement
        .query_map([], |row| (0..names.len()).map(|i| row.get(i)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    drop(statement);
    assert!(!rows.is_empty(), "{table}");
    let is_text = |i: usize| matches!(rows[0][i], Value::Text(_));
    let mark = |i| if is_text(i) { "CAST(? AS TEXT)" } else { "?" };
    let marks: Vec<&str> = (0..names.len()).map(mark).collect();
    let marks = marks.join(",");
    let insert = format!("INSERT INTO {table} VALUES ({marks})");
    let mut flips = 0;
    for (r, row) in rows.iter().enumerate() {
        for (i, name) in names.iter().enumerate() {
            for (bit, value) in flipped(&row[i]).into_iter().enumerate() {
                connection
                    .execute_batch(&format!("PRAGMA foreign_keys = OFF; DELETE FROM {table};"))
                    .unwrap();
                for (other, kept) in rows.iter().enumerate() {
                    let mut kept = kept.clone();
                    if other == r {
                        kept[i] = value.clone();
                    }
                    connection
                        .execute(&insert, rusqlite::params_from_iter(kept))
                        .unwrap();
                }
                check(&connection, &format!("{table}.{name}, bit {bit}"));
                flips += 1;
            }
        }
    }
    flips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kept::{self, Damaged},
        progress::progress,
        repair,
    };

    #[test]
    fn a_damaged_host_is_made_anew_from_its_reports() {
        let truth = &repair::load(&filled(), &Damaged::default()).unwrap()["web"];
        let flips = each_flip("hosts", |connection, place| {
            let damaged = Damaged::default();
            for _ in 0..2 {
                let hosts = repair::load(connection, &damaged).unwrap();
                assert_eq!(hosts.len(), 1, "{place}");
                let host = &hosts["web"];
                assert_eq!(host, truth, "{place}");
            }
            // The sign of a zero says nothing.
            let told = damaged.counts() == [0, 0, 1, 0];
            assert!(told || place == "hosts.conflicts, bit 63", "{place}");
        });
        assert!(flips > 500);
    }

    #[test]
    fn a_damaged_cursor_is_none() {
        each_flip("progress", |connection, place| {
            let damaged = Damaged::default();
            for (name, truth) in [("otlp", 7_206 * S), ("rolls", 0)] {
                let kept = progress(connection, name, &damaged).unwrap();
                assert!(kept.is_none_or(|kept| kept == truth), "{place}: {kept:?}");
            }
            let told = damaged.counts() == [0, 0, 0, 1];
            assert!(told || place.starts_with("progress.name"), "{place}");
        });
    }

    #[test]
    fn a_damaged_row_of_a_report_is_told() {
        each_flip("reports", |connection, place| {
            let sql = format!("SELECT {} FROM reports", reports::COLUMNS);
            let row = connection.query_row(&sql, [], reports::from_row).unwrap();
            // Of the contract's mark and of the frame's unused bit nothing depends.
            if let Ok(read) = kept::read(&row) {
                assert!(read == report() && place.contains(".body"), "{place}");
            }
        });
    }
}
