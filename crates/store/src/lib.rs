//! The reports on disk: one `SQLite` file, one writer, a few readers; and the
//! newest report of each host in memory (`fleet`).
//!
//! Architecture invariant: only the writer thread changes the file, and it
//! answers a report only after the commit that holds it (`synchronous=FULL`).
//! Readers have connections of their own and see the last commit (WAL).

mod backup;
mod checksum;
mod clock;
pub mod codec;
mod commit;
mod fleet;
#[cfg(any(test, feature = "test-support"))]
pub mod flips;
mod hosts;
pub mod kept;
mod live;
mod migrate;
mod open;
mod progress;
mod repair;
pub mod reports;
mod retention;
mod roller;
pub mod rolls;
mod schema;
mod stats;
mod writer;

pub use backup::{Backup, BackupError, backup};
pub use fleet::{Facts, Fleet, HostState, Newest};
pub use hosts::{HostRow, Made};
pub use live::{Live, LiveReport};
pub use open::{OpenError, open_reader};
pub use progress::{last_stored, progress, stored_after, stored_before};
pub use retention::Retention;
pub use roller::Roller;
pub use stats::StoreStats;
pub use writer::{DRAIN_MAX, Incoming, Outcome, Published, StartError, WriteError, Writer};

/// The store's file below the data directory.
pub const FILE_NAME: &str = "collector.db";

/// `SQLite` has signed integers only; larger ones are kept out before they come here.
#[must_use]
pub fn to_sql(value: u64) -> i64 {
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
