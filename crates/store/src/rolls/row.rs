//! One roll-up as it is kept: encoded messages, each behind its checksum.
//!
//! Counters and gauges are one column and each histogram is another, so that a
//! series reads no histogram that it is not made of.

use monitor_proto::v1;
use prost::Message;
use rollup::{Bucket, EndpointRoll, GaugeRoll, HostRoll, Rolling};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Range;
use crate::{
    checksum::{Checksum, seal, unseal},
    from_sql, to_sql,
};

/// Whose roll-ups: the key in their table, and a checksum of what has that key,
/// so that a key which comes to mean something else gives nobody others' figures.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub key: i64,
    pub identity: u32,
}

impl Owner {
    fn place(self, bucket: Bucket, column: &str) -> Checksum {
        Checksum::default()
            .number(i64::from(self.identity))
            .number(self.key)
            .number(to_sql(bucket.tier_s))
            .number(to_sql(bucket.start_s))
            .text(column)
    }
}

/// The column of counters and gauges.
const SUMS: &str = "sums";

/// Which histogram of an endpoint is read beside its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histogram {
    None,
    Exchange,
    Connect,
}

impl Histogram {
    /// The one that a metric is made of.
    pub fn of(metric: &str) -> Self {
        if metric.starts_with(Self::Exchange.column()) {
            Self::Exchange
        } else if metric.starts_with(Self::Connect.column()) {
            Self::Connect
        } else {
            Self::None
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::None => SUMS,
            Self::Exchange => "exchange_duration",
            Self::Connect => "connect_duration",
        }
    }
}

/// The message in a column; `None` where it was damaged since it was written.
fn read<M: Message + Default>(place: &Checksum, column: &[u8]) -> Option<M> {
    M::decode(unseal(place, column)?).ok()
}

/// An endpoint's roll-ups by the start of their bucket, one after another; `None`
/// in the place of a damaged one.
pub fn endpoint_rolls(
    connection: &Connection,
    histogram: Histogram,
    endpoint: Owner,
    range: Range,
    mut each: impl FnMut(u64, Option<EndpointRoll>),
) -> rusqlite::Result<()> {
    let column = histogram.column();
    let mut statement = connection.prepare_cached(&format!(
        "SELECT start_s, {SUMS}, {column} FROM endpoint_rolls
         WHERE tier_s = ? AND endpoint = ? AND start_s >= ? AND start_s < ?"
    ))?;
    let mut rows = statement.query(params![
        to_sql(range.tier_s),
        endpoint.key,
        to_sql(range.start_s),
        to_sql(range.end_s)
    ])?;
    while let Some(row) = rows.next()? {
        let bucket = range.bucket(from_sql(row.get(0)?));
        let sums = row.get_ref(1)?.as_blob()?;
        let mut roll: Option<EndpointRoll> = read(&endpoint.place(bucket, SUMS), sums);
        if histogram != Histogram::None {
            let of_column = read(&endpoint.place(bucket, column), row.get_ref(2)?.as_blob()?);
            roll = roll.zip(of_column).map(|(mut roll, of_column)| {
                match histogram {
                    Histogram::Connect => roll.connect_duration = of_column,
                    Histogram::Exchange | Histogram::None => roll.exchange_duration = of_column,
                }
                roll
            });
        }
        each(bucket.start_s, roll);
    }
    Ok(())
}

/// A whole row of three columns; `None` where one of them is damaged.
fn whole(row: &Row<'_>, endpoint: Owner, bucket: Bucket) -> rusqlite::Result<Option<EndpointRoll>> {
    let sums: Option<EndpointRoll> =
        read(&endpoint.place(bucket, SUMS), row.get_ref(0)?.as_blob()?);
    let histogram = |i, column: Histogram| -> rusqlite::Result<Option<v1::Histogram>> {
        let place = endpoint.place(bucket, column.column());
        Ok(read(&place, row.get_ref(i)?.as_blob()?))
    };
    let exchange = histogram(1, Histogram::Exchange)?;
    let connect = histogram(2, Histogram::Connect)?;
    let whole = sums.zip(exchange.zip(connect));
    Ok(whole.map(|(mut roll, (exchange, connect))| {
        roll.exchange_duration = exchange;
        roll.connect_duration = connect;
        roll
    }))
}

/// What is kept of a bucket: `Some(None)` where it is damaged.
fn kept_endpoint_roll(
    connection: &Connection,
    endpoint: Owner,
    bucket: Bucket,
) -> rusqlite::Result<Option<Option<EndpointRoll>>> {
    connection
        .prepare_cached(
            "SELECT sums, exchange_duration, connect_duration FROM endpoint_rolls
             WHERE tier_s = ? AND endpoint = ? AND start_s = ?",
        )?
        .query_row(key(endpoint, bucket), |row| whole(row, endpoint, bucket))
        .optional()
}

/// An endpoint's roll-ups with all of their histograms, by the start of their bucket;
/// `None` in the place of one of which a column is damaged.  It ends where `each` says
/// false.
pub fn whole_endpoint_rolls(
    connection: &Connection,
    endpoint: Owner,
    range: Range,
    mut each: impl FnMut(u64, Option<EndpointRoll>) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT sums, exchange_duration, connect_duration, start_s FROM endpoint_rolls
         WHERE tier_s = ? AND endpoint = ? AND start_s >= ? AND start_s < ?",
    )?;
    let mut rows = statement.query(params![
        to_sql(range.tier_s),
        endpoint.key,
        to_sql(range.start_s),
        to_sql(range.end_s)
    ])?;
    while let Some(row) = rows.next()? {
        let bucket = range.bucket(from_sql(row.get(3)?));
        if !each(bucket.start_s, whole(row, endpoint, bucket)?) {
            break;
        }
    }
    Ok(())
}

fn key(owner: Owner, bucket: Bucket) -> [i64; 3] {
    [to_sql(bucket.tier_s), owner.key, to_sql(bucket.start_s)]
}

/// Adds to what is kept of an endpoint's bucket; false where that was damaged, and
/// this took its place.
pub(crate) fn add_endpoint_roll(
    connection: &Connection,
    endpoint: Owner,
    bucket: Bucket,
    roll: &EndpointRoll,
) -> rusqlite::Result<bool> {
    let kept = kept_endpoint_roll(connection, endpoint, bucket)?;
    let intact = kept != Some(None);
    let mut sum = kept.flatten().unwrap_or_default();
    sum.add(roll);
    let exchange: v1::Histogram = std::mem::take(&mut sum.exchange_duration);
    let connect: v1::Histogram = std::mem::take(&mut sum.connect_duration);
    let sealed = |column, content: Vec<u8>| seal(&endpoint.place(bucket, column), &content);
    let [tier_s, key, start_s] = key(endpoint, bucket);
    connection
        .prepare_cached("INSERT OR REPLACE INTO endpoint_rolls VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![
            tier_s,
            key,
            start_s,
            sealed(SUMS, sum.encode_to_vec()),
            sealed(Histogram::Exchange.column(), exchange.encode_to_vec()),
            sealed(Histogram::Connect.column(), connect.encode_to_vec()),
        ])?;
    Ok(intact)
}

/// A host's roll-up on disk.
#[derive(Clone, PartialEq, Message)]
struct HostMessage {
    #[prost(uint64, tag = "1")]
    covered_ns: u64,
    #[prost(uint64, tag = "2")]
    incomplete: u64,
    /// In the order of `GAUGES`.
    #[prost(message, repeated, tag = "3")]
    gauges: Vec<GaugeRoll>,
}

impl From<&HostRoll> for HostMessage {
    fn from(roll: &HostRoll) -> Self {
        Self {
            covered_ns: roll.covered_ns,
            incomplete: roll.incomplete,
            gauges: roll.gauges.to_vec(),
        }
    }
}

impl From<HostMessage> for HostRoll {
    fn from(message: HostMessage) -> Self {
        let mut roll = Self {
            covered_ns: message.covered_ns,
            incomplete: message.incomplete,
            ..Self::default()
        };
        for (gauge, kept) in roll.gauges.iter_mut().zip(message.gauges) {
            *gauge = kept;
        }
        roll
    }
}

/// A host's roll-ups by the start of their bucket, one after another; `None` in the
/// place of a damaged one.
pub fn host_rolls(
    connection: &Connection,
    host: Owner,
    range: Range,
    mut each: impl FnMut(u64, Option<HostRoll>),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT start_s, sums FROM host_rolls
         WHERE tier_s = ? AND host = ? AND start_s >= ? AND start_s < ?",
    )?;
    let mut rows = statement.query(params![
        to_sql(range.tier_s),
        host.key,
        to_sql(range.start_s),
        to_sql(range.end_s)
    ])?;
    while let Some(row) = rows.next()? {
        let bucket = range.bucket(from_sql(row.get(0)?));
        let sums = row.get_ref(1)?.as_blob()?;
        let message: Option<HostMessage> = read(&host.place(bucket, SUMS), sums);
        each(bucket.start_s, message.map(HostRoll::from));
    }
    Ok(())
}

/// Adds to what is kept of a host's bucket; false where that was damaged, and this
/// took its place.
pub(crate) fn add_host_roll(
    connection: &Connection,
    host: Owner,
    bucket: Bucket,
    roll: &HostRoll,
) -> rusqlite::Result<bool> {
    let place = host.place(bucket, SUMS);
    let kept = connection
        .prepare_cached(
            "SELECT sums FROM host_rolls WHERE tier_s = ? AND host = ? AND start_s = ?",
        )?
        .query_row(key(host, bucket), |row| {
            let message: Option<HostMessage> = read(&place, row.get_ref(0)?.as_blob()?);
            Ok(message.map(HostRoll::from))
        })
        .optional()?;
    let intact = kept != Some(None);
    let mut sum = kept.flatten().unwrap_or_default();
    sum.add(roll);
    let [tier_s, key, start_s] = key(host, bucket);
    let sums = seal(&place, &HostMessage::from(&sum).encode_to_vec());
    connection
        .prepare_cached("INSERT OR REPLACE INTO host_rolls VALUES (?, ?, ?, ?)")?
        .execute(params![tier_s, key, start_s, sums])?;
    Ok(intact)
}
