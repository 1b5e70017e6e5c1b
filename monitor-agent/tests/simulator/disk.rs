//! A disk in memory: what is not synced may be lost or torn when the power fails, and a
//! process may be killed at any operation.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use fastrand::Rng;
use spool::disk::{Disk, DiskFile, Entry, Open};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Files here are gone with the boot, and have no bound.
pub(crate) const RUN: &str = "/run";

/// The disk of a host, and what may happen to it.
pub(crate) trait HostDisk {
    /// What the agent's files are on.
    fn files(&self) -> Arc<dyn Disk>;

    /// The process is killed at the n-th operation from now.
    fn kill_in(&self, operations: u32);

    fn is_killed(&self) -> bool;

    /// Another process begins.
    fn revive(&self);

    /// Files may take so many bytes more than they do.
    fn leave_room(&self, bytes: Option<usize>);

    /// What is not durable is lost, there, or there in part.
    fn fail_power(&self);

    /// The same disk, for whoever wants to look and change nothing.
    fn fork(&self) -> Self;

    /// The files of a directory.
    fn copy(&self, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>>;

    /// Only these files are in the directory from now on, durable.
    fn restore(&self, dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>);

    /// Flips a bit of a file of the directory.
    fn flip(&self, dir: &Path);
}

#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Clone, Debug)]
struct Inner {
    rng: Rng,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    // Changes of names that no sync made durable, oldest first.
    unsynced: Vec<(PathBuf, Option<u64>)>,
    durable_names: BTreeMap<PathBuf, u64>,
    next_file: u64,
    room: Option<usize>,
    kill_in: Option<u32>,
    is_killed: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => to.resize(*length, 0),
        }
    }

    /// As much of it as was done when something stopped it.
    fn torn(&self, rng: &mut Rng) -> Option<Self> {
        match self {
            Self::Bytes { offset, bytes } if offset % SECTOR_BYTES + bytes.len() > SECTOR_BYTES => {
                let bytes = bytes[..rng.usize(..bytes.len())].to_vec();
                let offset = *offset;
                Some(Self::Bytes { offset, bytes })
            }
            _ => rng.bool().then(|| self.clone()),
        }
    }
}

impl Inner {
    /// Another operation; an error where the process is killed before or amid it.
    fn begin(&mut self) -> io::Result<()> {
        if self.kill_in == Some(0) {
            self.is_killed = true;
        }
        self.kill_in = self.kill_in.map(|n| n.saturating_sub(1));
        if self.is_killed {
            return Err(io::Error::other("the process was killed"));
        }
        Ok(())
    }

    fn change(&mut self, file: u64, change: &Change) -> io::Result<()> {
        let was_killed = self.is_killed;
        if let Err(killed) = self.begin() {
            if !was_killed && let Some(torn) = change.torn(&mut self.rng) {
                self.apply(file, torn);
            }
            return Err(killed);
        }
        self.apply(file, change.clone());
        Ok(())
    }

    fn apply(&mut self, file: u64, change: Change) {
        let content = self.files.entry(file).or_default();
        change.apply(&mut content.bytes);
        content.unsynced.push(change);
    }

    fn rename_to(&mut self, path: &Path, file: Option<u64>) {
        match file {
            Some(file) => self.names.insert(path.to_owned(), file),
            None => self.names.remove(path),
        };
        self.unsynced.push((path.to_owned(), file));
    }

    fn used(&self) -> usize {
        let bounded = self.names.iter().filter(|(path, _)| !path.starts_with(RUN));
        let bytes = bounded.filter_map(|(_, file)| self.files.get(file));
        bytes.map(|content| content.bytes.len()).sum()
    }

    fn file_at(&self, path: &Path) -> io::Result<u64> {
        let file = self.names.get(path).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rng: Rng::with_seed(seed),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            unsynced: Vec::new(),
            durable_names: BTreeMap::new(),
            next_file: 1,
            room: None,
            kill_in: None,
            is_killed: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl HostDisk for SimulatedDisk {
    fn files(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn kill_in(&self, operations: u32) {
        self.lock().kill_in = Some(operations);
    }

    fn is_killed(&self) -> bool {
        self.lock().is_killed
    }

    fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    fn revive(&self) {
        let mut inner = self.lock();
        (inner.kill_in, inner.is_killed) = (None, false);
    }

    fn leave_room(&self, bytes: Option<usize>) {
        let mut inner = self.lock();
        let used = inner.used();
        inner.room = bytes.map(|bytes| used + bytes);
    }

    fn fail_power(&self) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let kept = inner.rng.usize(..=inner.unsynced.len());
        let mut names = std::mem::take(&mut inner.durable_names);
        for (path, file) in inner.unsynced.drain(..).take(kept) {
            match file {
                Some(file) => names.insert(path, file),
                None => names.remove(&path),
            };
        }
        names.retain(|path, _| !path.starts_with(RUN));
        for content in inner.files.values_mut() {
            let mut bytes = std::mem::take(&mut content.durable);
            for change in content.unsynced.drain(..) {
                match inner.rng.u8(..4) {
                    0 => {}
                    1 => {
                        if let Some(torn) = change.torn(&mut inner.rng) {
                            torn.apply(&mut bytes);
                        }
                    }
                    _ => change.apply(&mut bytes),
                }
            }
            content.bytes.clone_from(&bytes);
            content.durable = bytes;
        }
        inner.durable_names.clone_from(&names);
        inner.names = names;
    }

    fn copy(&self, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.lock();
        let names = inner.names.iter().filter(|(path, _)| path.starts_with(dir));
        names
            .map(|(path, file)| (path.clone(), inner.files[file].bytes.clone()))
            .collect()
    }

    fn restore(&self, dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
        let mut inner = self.lock();
        inner.names.retain(|path, _| !path.starts_with(dir));
        for (path, bytes) in files {
            let file = inner.next_file;
            inner.next_file += 1;
            let content = Content {
                bytes: bytes.clone(),
                durable: bytes.clone(),
                unsynced: Vec::new(),
            };
            inner.files.insert(file, content);
            inner.names.insert(path.clone(), file);
        }
        inner.unsynced.clear();
        inner.durable_names = inner.names.clone();
    }

    fn flip(&self, dir: &Path) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let files: Vec<u64> = inner
            .names
            .iter()
            .filter(|(path, file)| path.starts_with(dir) && !inner.files[file].bytes.is_empty())
            .map(|(_, file)| *file)
            .collect();
        let Some(file) = inner.rng.choice(files) else {
            return;
        };
        let content = inner.files.get_mut(&file).unwrap();
        let (at, bit) = (inner.rng.usize(..content.bytes.len()), inner.rng.u8(..8));
        content.bytes[at] ^= 1 << bit;
        content.durable.clone_from(&content.bytes);
        content.unsynced.clear();
    }
}

impl Disk for SimulatedDisk {
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let inner = self.lock();
        let names = inner
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(dir).ok());
        Ok(names
            .map(|name| Entry {
                name: name.to_str().unwrap().to_owned(),
                is_file: true,
            })
            .collect())
    }

    fn open(&self, path: &Path, which: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        let file = match (inner.names.get(path).copied(), which) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, Open::Existing | Open::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                inner.begin()?;
                let file = inner.next_file;
                inner.next_file += 1;
                inner.files.insert(file, Content::default());
                inner.rename_to(path, Some(file));
                file
            }
        };
        let (disk, is_bounded) = (self.clone(), !path.starts_with(RUN));
        Ok(Box::new(SimulatedFile {
            disk,
            file,
            is_bounded,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.begin()?;
        inner.file_at(path)?;
        inner.rename_to(path, None);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.begin()?;
        let file = inner.file_at(from)?;
        inner.rename_to(from, None);
        inner.rename_to(to, Some(file));
        Ok(())
    }

    fn is_missing(&self, path: &Path) -> bool {
        !self.lock().names.contains_key(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.begin()?;
        inner.durable_names = inner.names.clone();
        inner.unsynced.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
    is_bounded: bool,
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[&self.file].bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.lock();
        let bytes = inner.files[&self.file].bytes.get(offset as usize..);
        let bytes = bytes.and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let offset = offset as usize;
        let length = inner.files[&self.file].bytes.len();
        let more = (offset + bytes.len()).saturating_sub(length);
        let room = inner.room.filter(|_| self.is_bounded);
        let left = room.map(|room| room.saturating_sub(inner.used()));
        match left {
            Some(left) if more > left => {
                let bytes = bytes[..bytes.len() - (more - left)].to_vec();
                inner.change(self.file, &Change::Bytes { offset, bytes })?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => {
                let bytes = bytes.to_vec();
                inner.change(self.file, &Change::Bytes { offset, bytes })
            }
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let change = Change::Length(length as usize);
        self.disk.lock().change(self.file, &change)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.begin()?;
        let content = inner.files.get_mut(&self.file).unwrap();
        content.durable.clone_from(&content.bytes);
        content.unsynced.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn is_at(&self, path: &Path) -> bool {
        self.disk.lock().names.get(path) == Some(&self.file)
    }
}
