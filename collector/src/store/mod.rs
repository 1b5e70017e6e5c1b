//! The reports on disk: one `SQLite` file, one writer, a few readers.
//!
//! Architecture invariant: only the writer thread changes the file, and it
//! answers a report only after the commit that holds it (`synchronous=FULL`).
//! Readers have connections of their own and see the last commit (WAL).

mod backup;
mod checksum;
mod clock;
mod commit;
#[cfg(test)]
mod flips;
mod hosts;
mod kept;
mod migrate;
mod open;
mod progress;
mod reader;
mod repair;
mod reports;
mod retention;
mod roller;
mod rolls;
mod schema;
mod series;
mod writer;

pub use backup::Backup;
pub(crate) use backup::backup;
pub(crate) use hosts::HostRow;
pub(crate) use kept::{Damage, Damaged, TABLES, read as read_kept};
pub(crate) use open::open_reader;
pub(crate) use progress::{last_stored, progress, stored_after, stored_before};
pub(crate) use reader::{ReadError, Readers};
#[cfg(feature = "fuzzing")]
pub(crate) use reports::Cursor;
pub(crate) use reports::{Filter, Selection};
pub(crate) use retention::Retention;
pub(crate) use roller::Roller;
pub(crate) use series::EndpointFilter;
pub(crate) use writer::{DRAIN_MAX, Incoming, Outcome, Published, WriteError, Writer};

/// The store's file below the data directory.
pub(crate) const FILE_NAME: &str = "collector.db";

/// `SQLite` has signed integers only; `validate` keeps larger ones out.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What is not UTF-8 any more has another checksum, too.
fn text(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(i)?.as_bytes()?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// No column holds a negative number.
fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
