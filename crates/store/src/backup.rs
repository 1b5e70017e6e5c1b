//! A copy of the store, made while the collector goes on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{kept, open::open_reader, reports, rolls, schema};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("no store at {0}: set --data-dir to the collector's data directory")]
    NoStore(PathBuf),
    #[error(
        "{0} is empty or not a collector's store: start the collector, which moves such a file aside"
    )]
    NotAStore(PathBuf),
    #[error("{0} already exists: name a new file, or remove it")]
    Exists(PathBuf),
    #[error("cannot copy the store to {path}")]
    Copy {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot finish the copy {path}")]
    Finish { path: PathBuf, source: io::Error },
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The size of its file.
    pub bytes: u64,
    /// Reports and roll-ups in it that cannot be read, as they cannot be in the store.
    pub damaged: u64,
}

/// Copies the store to a new file.  The copy is that of one moment, and has its
/// name only when it is whole and on disk.
pub fn backup(store: &Path, file: &Path) -> Result<Backup, BackupError> {
    if !store.is_file() {
        return Err(BackupError::NoStore(store.to_owned()));
    }
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let finish = |source| BackupError::Finish {
        path: file.to_owned(),
        source,
    };
    remove(&partial).map_err(finish)?;
    let damaged = match copy(store, &partial) {
        Ok(Some(damaged)) => damaged,
        Ok(None) => return Err(BackupError::NotAStore(store.to_owned())),
        Err(source) => {
            // What is left of it is of no use; the copy's own error matters.
            drop(remove(&partial));
            return Err(BackupError::Copy {
                path: file.to_owned(),
                source,
            });
        }
    };
    let bytes = publish(&partial, file).map_err(finish)?;
    Ok(Backup { bytes, damaged })
}

/// `VACUUM INTO` reads in one transaction and leaves out free pages.  How many
/// rows of the copy are damaged; `None` where the file is no store.
fn copy(store: &Path, partial: &Path) -> rusqlite::Result<Option<u64>> {
    let path = partial
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(partial.to_owned()))?;
    let from = open_reader(store)?;
    let id: i32 = from.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id != schema::APPLICATION_ID {
        return Ok(None);
    }
    from.execute("VACUUM INTO ?", [path])?;
    damaged(&open_reader(partial)?).map(Some)
}

fn damaged(copy: &Connection) -> rusqlite::Result<u64> {
    let mut statement = copy.prepare(&format!("SELECT {} FROM reports", reports::COLUMNS))?;
    let mut rows = statement.query([])?;
    let mut damaged = 0;
    while let Some(row) = rows.next()? {
        damaged += u64::from(kept::read(&reports::from_row(row)?).is_err());
    }
    Ok(damaged + rolls::damaged(copy)?)
}

/// A hard link fails where the name was taken meanwhile; a rename would not.
fn publish(partial: &Path, file: &Path) -> io::Result<u64> {
    File::open(partial)?.sync_all()?;
    fs::hard_link(partial, file)?;
    fs::remove_file(partial)?;
    Ok(fs::metadata(file)?.len())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
