//! A copy of the store, made while the collector goes on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::open::open_reader;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("there is no store at {0}: give the collector's directory by --data-dir")]
    NoStore(PathBuf),
    #[error("{0} exists already: give a new file, or remove it")]
    Exists(PathBuf),
    #[error("cannot copy the store to {path}")]
    Copy {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot finish the copy {path}")]
    Finish { path: PathBuf, source: io::Error },
}

/// Copies the store to a new file; how many bytes that has.  The copy is that
/// of one moment, and has its name only when it is whole and on disk.
pub(crate) fn backup(store: &Path, file: &Path) -> Result<u64, BackupError> {
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
    if let Err(source) = copy(store, &partial) {
        // What is left of it is of no use; the copy's own error matters.
        drop(remove(&partial));
        return Err(BackupError::Copy {
            path: file.to_owned(),
            source,
        });
    }
    publish(&partial, file).map_err(finish)
}

/// `VACUUM INTO` reads in one transaction and leaves out free pages.
fn copy(store: &Path, partial: &Path) -> rusqlite::Result<()> {
    let path = partial
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(partial.to_owned()))?;
    open_reader(store)?
        .execute("VACUUM INTO ?", [path])
        .map(drop)
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
