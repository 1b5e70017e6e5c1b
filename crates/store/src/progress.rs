//! How far readers of the stored reports came, each by its name.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    checksum::Checksum,
    from_sql,
    kept::{Damage, Damaged},
    reports::{self, Cursor, StoredReport},
    to_sql,
};

fn checksum(name: &str, stored_ns: i64) -> u32 {
    Checksum::default().text(name).number(stored_ns).finish()
}

/// The `stored_ns` of the last report that is done; `None` where there is none, or it
/// was damaged.
pub fn progress(
    connection: &Connection,
    name: &str,
    damaged: &Damaged,
) -> rusqlite::Result<Option<u64>> {
    let kept: Option<(i64, i64)> = connection
        .query_row(
            "SELECT stored_ns, checksum FROM progress WHERE name = ?",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((stored_ns, kept)) = kept else {
        return Ok(None);
    };
    if i64::from(checksum(name, stored_ns)) != kept {
        damaged.record(&Damage::of_progress(name));
        return Ok(None);
    }
    Ok(Some(from_sql(stored_ns)))
}

pub(super) fn save_progress(
    connection: &Connection,
    name: &str,
    stored_ns: u64,
) -> rusqlite::Result<()> {
    let stored_ns = to_sql(stored_ns);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO progress (name, stored_ns, checksum) VALUES (?, ?, ?)",
        )?
        .execute(params![name, stored_ns, checksum(name, stored_ns)])
        .map(drop)
}

/// The next reports in the order they were stored, one after another for as long as
/// `each` wants another one.
pub fn stored_after(
    connection: &Connection,
    stored_ns: u64,
    limit: u32,
    mut each: impl FnMut(StoredReport) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM reports WHERE stored_ns > ? ORDER BY stored_ns LIMIT ?",
        reports::COLUMNS
    ))?;
    let mut rows = statement.query(params![to_sql(stored_ns), limit])?;
    while let Some(row) = rows.next()? {
        if !each(reports::from_row(row)?) {
            break;
        }
    }
    Ok(())
}

/// The report of the same host before this one, in time and in the order of
/// storing.  `None` also where this one came late: what came before it knows more.
pub fn stored_before(
    connection: &Connection,
    at: &Cursor,
    stored_ns: u64,
) -> rusqlite::Result<Option<StoredReport>> {
    let of = params![at.host, to_sql(at.window_end_ns)];
    let next_ns: Option<i64> = connection
        .prepare_cached(
            "SELECT stored_ns FROM reports WHERE host = ? AND window_end_ns > ?
             ORDER BY window_end_ns LIMIT 1",
        )?
        .query_row(of, |row| row.get(0))
        .optional()?;
    if next_ns.is_some_and(|next_ns| from_sql(next_ns) < stored_ns) {
        return Ok(None);
    }
    last_stored(connection, at.host, at.window_end_ns, stored_ns)
}

/// The report of a host with the last window that ended before, of those that were
/// stored before.
pub fn last_stored(
    connection: &Connection,
    host: i64,
    window_end_ns: u64,
    stored_ns: u64,
) -> rusqlite::Result<Option<StoredReport>> {
    connection
        .prepare_cached(&format!(
            "SELECT {} FROM reports WHERE host = ? AND window_end_ns < ? AND stored_ns < ?
             ORDER BY window_end_ns DESC LIMIT 1",
            reports::COLUMNS
        ))?
        .query_row(
            params![host, to_sql(window_end_ns), to_sql(stored_ns)],
            reports::from_row,
        )
        .optional()
}
