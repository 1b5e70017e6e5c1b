//! The tables.

use rusqlite::Connection;

use super::{progress::save_progress, roller, rolls};

/// "SpMi": tells our files from others'.
pub(super) const APPLICATION_ID: i32 = 0x5370_4d69;
/// Which tables a file has.
pub(super) const VERSION: i32 = 2;

/// A report's primary key orders it by host and age, so one host's range is
/// one run of pages; `WITHOUT ROWID` keeps the body in that very tree.  Each
/// `stored_ns` is larger than all before it: it orders reports as they came.
/// `received_ns` is the clock's time then, which may be set back: from it a report
/// ages.  It and the checksum are NULL in rows of version 1.
const TABLES: &str = "
CREATE TABLE hosts (
  key            INTEGER PRIMARY KEY,
  id             TEXT NOT NULL UNIQUE,
  first_seen_ns  INTEGER NOT NULL,
  last_seen_ns   INTEGER NOT NULL,
  reports        INTEGER NOT NULL,
  conflicts      INTEGER NOT NULL,
  epoch          INTEGER NOT NULL,
  sequence_first INTEGER NOT NULL,
  sequence_last  INTEGER NOT NULL,
  epoch_reports  INTEGER NOT NULL,
  checksum       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE reports (
  host          INTEGER NOT NULL REFERENCES hosts(key),
  epoch         INTEGER NOT NULL,
  sequence      INTEGER NOT NULL,
  window_end_ns INTEGER NOT NULL,
  stored_ns     INTEGER NOT NULL,
  body          BLOB NOT NULL,
  received_ns   INTEGER,
  checksum      INTEGER,
  PRIMARY KEY (host, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX reports_by_storing ON reports (stored_ns);
CREATE INDEX reports_by_end ON reports (window_end_ns);
CREATE INDEX reports_by_host_and_end ON reports (host, window_end_ns);
CREATE TABLE progress (
  name      TEXT PRIMARY KEY,
  stored_ns INTEGER NOT NULL,
  checksum  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
";

/// From when a report ages.
pub(super) const AGES_FROM: &str = "coalesce(received_ns, stored_ns)";

/// Finds those that are too old.
pub(super) fn index_by_age() -> String {
    format!("CREATE INDEX reports_by_age ON reports ({AGES_FROM});")
}

/// Makes the tables in an empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         {TABLES}
         {}
         {}
         {}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};
         COMMIT;",
        index_by_age(),
        rolls::ENDPOINTS_TABLE,
        rolls::ROLL_TABLES,
    ))?;
    // From now on a missing one was lost.
    save_progress(connection, roller::NAME, 0)
}
