//! The spool's directory: its lock, and the file `state`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    SpoolError,
    disk::{Disk, DiskFile, Open},
    record::{self, STATE_BYTES, State},
};

/// The directory of one agent's spool.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    // Holds the lock for as long as the spool lives.
    lock: Box<dyn DiskFile>,
    state: Box<dyn DiskFile>,
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
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Found), SpoolError> {
        let lock = locked(&*disk, path)?;
        let (state, found) = open_state(&*disk, path).map_err(SpoolError::open(path))?;
        let directory = Self {
            disk,
            path: path.to_owned(),
            lock,
            state,
        };
        Ok((directory, found))
    }

    /// Whether its files are the ones that are open here.
    pub(super) fn is_in_place(&self) -> bool {
        self.lock.is_at(&self.path.join("lock")) && self.state.is_at(&self.path.join("state"))
    }

    /// Makes what somebody removed or replaced anew; the state has to be written
    /// then.
    pub(super) fn make_anew(&mut self) -> Result<(), SpoolError> {
        if !self.lock.is_at(&self.path.join("lock")) {
            self.lock = locked(&*self.disk, &self.path)?;
        }
        let opened = open_state(&*self.disk, &self.path).map_err(SpoolError::open(&self.path));
        (self.state, _) = opened?;
        Ok(())
    }

    pub(super) fn write_state(&self, state: State) -> io::Result<()> {
        self.state.write_all_at(&record::encode_state(state), 0)
    }

    /// Makes the state durable, in a directory that has it.
    pub(super) fn write_durable_state(&self, state: State) -> io::Result<()> {
        self.write_state(state)?;
        self.state.sync()
    }

    /// Makes the state durable, and that the directory has it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.state.sync()?;
        self.disk.sync_dir(&self.path)
    }
}

fn locked(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskFile>, SpoolError> {
    let lock = lock(disk, dir).map_err(SpoolError::open(dir))?;
    lock.ok_or_else(|| SpoolError::Locked(dir.to_owned()))
}

/// Makes and locks the directory; `None` where another process has the lock.
fn lock(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
    disk.make_dir(dir)?;
    let path = dir.join("lock");
    let file = disk.open(&path, Open::Any).map_err(at(&path))?;
    Ok(file.lock()?.then_some(file))
}

fn open_state(disk: &dyn Disk, dir: &Path) -> io::Result<(Box<dyn DiskFile>, Found)> {
    let path = dir.join("state");
    let file = disk.open(&path, Open::Any).map_err(at(&path))?;
    let length = file.length().map_err(at(&path))?;
    let mut bytes = vec![0; length.min(STATE_BYTES as u64) as usize];
    file.read_exact_at(&mut bytes, 0).map_err(at(&path))?;
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
