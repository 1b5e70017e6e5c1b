//! How far readers of the stored reports came, each by its name.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    from_sql,
    reports::{self, StoredReport},
    to_sql,
};

/// The `stored_ns` of the last report that is done; 0 where there is none.
pub(crate) fn progress(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection
        .query_row(
            "SELECT stored_ns FROM progress WHERE name = ?",
            [name],
            |row| row.get(0),
        )
        .optional()
        .map(|stored_ns| stored_ns.map_or(0, from_sql))
}

pub(super) fn save_progress(
    connection: &Connection,
    name: &str,
    stored_ns: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO progress (name, stored_ns) VALUES (?, ?)")?
        .execute(params![name, to_sql(stored_ns)])
        .map(drop)
}

/// The next reports in the order they were stored, one after another for as long as
/// `each` wants another one.
pub(crate) fn stored_after(
    connection: &Connection,
    stored_ns: u64,
    limit: u32,
    mut each: impl FnMut(u64, StoredReport) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, stored_ns FROM reports WHERE stored_ns > ? ORDER BY stored_ns LIMIT ?",
        reports::COLUMNS
    ))?;
    let stored_at = statement.column_count() - 1;
    let mut rows = statement.query(params![to_sql(stored_ns), limit])?;
    while let Some(row) = rows.next()? {
        if !each(from_sql(row.get(stored_at)?), reports::from_row(row)?) {
            break;
        }
    }
    Ok(())
}
