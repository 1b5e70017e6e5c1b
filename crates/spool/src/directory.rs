//! The spool's directory: its lock, and the file `state`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    SpoolError,
    record::{self, STATE_BYTES, State},
    segment::is_at,
};

/// The directory of one agent's spool.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    // Holds the lock for as long as the spool lives.
    lock: File,
    state: File,
}

/// What the file `state` held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// Nothing yet.
    New,
    /// Something that is not what an agent wrote.
    Damaged,
    /// This.
    Read(State),
}

impl Directory {
    /// Makes and locks it; with what the file `state` holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Found), SpoolError> {
        let lock = locked(path)?;
        let (state, found) = open_state(path).map_err(SpoolError::open(path))?;
        let path = path.to_owned();
        Ok((Self { path, lock, state }, found))
    }

    /// Whether its files are the ones that are open here.
    pub(super) fn is_in_place(&self) -> bool {
        is_at(&self.lock, &self.path.join("lock")) && is_at(&self.state, &self.path.join("state"))
    }

    /// Makes what somebody removed or replaced anew; the state has to be written
    /// then.
    pub(super) fn make_anew(&mut self) -> Result<(), SpoolError> {
        if !is_at(&self.lock, &self.path.join("lock")) {
            self.lock = locked(&self.path)?;
        }
        let opened = open_state(&self.path).map_err(SpoolError::open(&self.path));
        (self.state, _) = opened?;
        Ok(())
    }

    pub(super) fn write_state(&self, state: State) -> io::Result<()> {
        self.state.write_all_at(&record::encode_state(state), 0)
    }

    /// Makes the state durable, in a directory that has it.
    pub(super) fn write_durable_state(&self, state: State) -> io::Result<()> {
        self.write_state(state)?;
        self.state.sync_data()
    }

    /// Makes the state durable, and that the directory has it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.state.sync_all()?;
        File::open(&self.path)?.sync_all()
    }
}

fn locked(dir: &Path) -> Result<File, SpoolError> {
    let lock = lock(dir).map_err(SpoolError::open(dir))?;
    lock.ok_or_else(|| SpoolError::Locked(dir.to_owned()))
}

/// Makes and locks the directory; `None` where another process has the lock.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir)?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_state(dir: &Path) -> io::Result<(File, Found)> {
    let path = dir.join("state");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    let mut bytes = Vec::new();
    let whole = STATE_BYTES as u64 + 1;
    io::Read::read_to_end(&mut io::Read::take(&file, whole), &mut bytes).map_err(at(&path))?;
    let found = match record::decode_state(&bytes) {
        Some(state) => Found::Read(state),
        None if bytes.is_empty() => Found::New,
        None => Found::Damaged,
    };
    Ok((file, found))
}

/// The same error with the path that it is about.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
