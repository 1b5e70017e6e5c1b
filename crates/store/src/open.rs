//! Opening the store's file, or setting it aside where it is not one.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{migrate::migrate, schema};

/// How long a connection waits for a lock: only a checkpoint or a backup ever
/// holds one against the writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A full check of a larger file would hold up the start; damage in it shows
/// when it is used, and the store is set aside then.
const CHECKED_BYTES_MAX: u64 = 256 << 20;
/// The log is cut back to this size after a checkpoint.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store {path}")]
    Open {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error(
        "the store {path} has the tables of version {found}, this collector knows up to {known}: \
         use the newer collector that wrote it"
    )]
    Newer {
        path: PathBuf,
        found: i32,
        known: i32,
    },
    #[error("cannot set {path} aside")]
    SetAside { path: PathBuf, source: io::Error },
}

/// Opens the store for its one writer; a file that is damaged or not ours is
/// renamed, said so in the log, and a new one made.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    let wrap = |source| OpenError::Open {
        path: path.to_owned(),
        source,
    };
    match open_existing(path) {
        Ok(Found::Ours(connection)) => Ok(connection),
        Ok(Found::Empty) => create(path).map_err(wrap),
        Ok(Found::Newer(found)) => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: schema::VERSION,
        }),
        Ok(Found::Unusable(why)) => {
            let aside = set_aside(path).map_err(|source| OpenError::SetAside {
                path: path.to_owned(),
                source,
            })?;
            tracing::error!(
                store = %path.display(),
                aside = %aside.display(),
                why,
                "the store is unusable: it was moved aside and a new one is created"
            );
            create(path).map_err(wrap)
        }
        Err(source) => Err(wrap(source)),
    }
}

enum Found {
    Ours(Connection),
    Empty,
    Newer(i32),
    Unusable(String),
}

fn open_existing(path: &Path) -> rusqlite::Result<Found> {
    let bytes = fs::metadata(path).map_or(0, |m| m.len());
    if bytes == 0 {
        // SQLite would throw the log away: it belongs to no database.
        let log_bytes = fs::metadata(suffixed(path, "-wal")).map_or(0, |m| m.len());
        return Ok(match log_bytes {
            0 => Found::Empty,
            _ => Found::Unusable(format!(
                "it is empty or missing, but its write-ahead log has {log_bytes} bytes: another \
                 program emptied it, and acknowledged reports may be lost; the log is preserved \
                 next to it: restore a backup, or repair it with .recover of sqlite3"
            )),
        });
    }
    if marker(path).exists() {
        let why = "damage was detected while it was in use";
        return Ok(Found::Unusable(why.to_owned()));
    }
    match inspect(path, bytes) {
        Err(error) if is_damage(&error) => Ok(Found::Unusable(error.to_string())),
        other => other,
    }
}

fn inspect(path: &Path, bytes: u64) -> rusqlite::Result<Found> {
    let connection = Connection::open(path)?;
    let application_id: i32 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if application_id != schema::APPLICATION_ID {
        return Ok(Found::Unusable("it is not a collector's store".to_owned()));
    }
    if version > schema::VERSION {
        return Ok(Found::Newer(version));
    }
    prepare(&connection)?;
    if bytes <= CHECKED_BYTES_MAX {
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(Found::Unusable(verdict));
        }
    }
    migrate(&connection, version)?;
    Ok(Found::Ours(connection))
}

/// Whether the file is to blame.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

fn create(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // Only an empty file takes this; without it a file never shrinks.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
    prepare(&connection)?;
    schema::create(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA journal_size_limit = {WAL_BYTES_MAX};
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;"
    ))
}

/// A connection that cannot change this file.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF;")?;
    Ok(connection)
}

/// Where it is written that a store is damaged.
fn marker(path: &Path) -> PathBuf {
    suffixed(path, ".damaged")
}

/// Sees to it that the store is set aside when it is opened the next time.
pub(super) fn mark_damaged(path: &Path) -> io::Result<()> {
    fs::write(marker(path), "")
}

/// Renames the file and its companions; the first free number is taken, so
/// that nothing set aside before is lost.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = (1u32..)
        .map(|n| suffixed(path, &format!(".set-aside-{n}")))
        .find(|candidate| !candidate.exists() && !suffixed(candidate, "-wal").exists())
        .expect("a directory has fewer entries than there are numbers");
    for companion in ["", "-wal", "-shm"] {
        match fs::rename(suffixed(path, companion), suffixed(&aside, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    match fs::remove_file(marker(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(aside),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_count(connection: &Connection) -> i64 {
        connection
            .query_row("SELECT count(*) FROM reports", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_new_store_is_durable_and_can_shrink() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        let pragma = |c: &Connection, name: &str| -> String {
            c.query_row(&format!("PRAGMA {name}"), [], |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
            .map(|v| format!("{v:?}"))
            .unwrap()
        };
        for round in 0..2 {
            let c = open(&path).unwrap();
            assert_eq!(pragma(&c, "journal_mode"), "Text(\"wal\")", "{round}");
            assert_eq!(pragma(&c, "synchronous"), "Integer(2)", "{round}");
            assert_eq!(pragma(&c, "auto_vacuum"), "Integer(2)", "{round}");
            assert_eq!(report_count(&c), 0);
        }
    }

    #[test]
    fn garbage_and_foreign_files_are_set_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        fs::write(
            &path,
            b"not a database at all, but long enough to have a header",
        )
        .unwrap();
        assert_eq!(report_count(&open(&path).unwrap()), 0);
        fs::remove_file(&path).unwrap();
        let foreign = Connection::open(&path).unwrap();
        foreign.execute_batch("CREATE TABLE other (x);").unwrap();
        drop(foreign);
        assert_eq!(report_count(&open(&path).unwrap()), 0);
        assert!(dir.path().join("collector.db.set-aside-1").exists());
        assert!(dir.path().join("collector.db.set-aside-2").exists());
    }

    #[test]
    fn an_empty_or_missing_file_beside_a_log_is_set_aside_and_the_log_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        let log = suffixed(&path, "-wal");
        let aside = |n| dir.path().join(format!("collector.db.set-aside-{n}-wal"));
        let damages: [fn(&Path); 2] = [
            |path| drop(fs::File::create(path).unwrap()),
            |path| fs::remove_file(path).unwrap(),
        ];
        for (n, damage) in (1..).zip(damages) {
            let store = open(&path).unwrap();
            let host = "INSERT INTO hosts VALUES (1, 'h', 0, 0, 0, 0, 1, 1, 1, 1, 0)";
            store.execute(host, []).unwrap();
            // As a killed collector leaves it.
            let kept = fs::read(&log).unwrap();
            assert!(!kept.is_empty());
            drop(store);
            fs::write(&log, &kept).unwrap();
            damage(&path);
            assert_eq!(report_count(&open(&path).unwrap()), 0);
            assert_eq!(fs::read(aside(n)).unwrap(), kept);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_damaged_page_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        drop(open(&path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let from = bytes.len() - 3000;
        bytes[from..].fill(0xa5);
        bytes[4096..4200].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        open(&path).unwrap();
        assert!(dir.path().join("collector.db.set-aside-1").exists());
    }

    #[test]
    fn a_store_that_was_marked_as_damaged_is_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        for round in 1..=2 {
            drop(open(&path).unwrap());
            mark_damaged(&path).unwrap();
            drop(open(&path).unwrap());
            drop(open(&path).unwrap());
            let aside = |n| dir.path().join(format!("collector.db.set-aside-{n}"));
            assert!(aside(round).exists() && !aside(round + 1).exists());
        }
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.db");
        let c = open(&path).unwrap();
        c.execute_batch("PRAGMA user_version = 99;").unwrap();
        drop(c);
        assert!(matches!(
            open(&path),
            Err(OpenError::Newer { found: 99, .. })
        ));
        assert!(path.exists());
    }
}
