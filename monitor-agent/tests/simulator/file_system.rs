//! A file system of this machine as the disk of a host: what is full is really full.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use fastrand::Rng;
use spool::disk::{Disk, DiskFile, Entry, Open, SystemDisk};
use tempfile::TempDir;

use crate::{disk::HostDisk, tmpfs};

/// Takes what room there shall not be.
const BALLAST: &str = "ballast";

#[derive(Clone, Debug)]
pub(crate) struct FileSystem(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: TempDir,
    /// Where files have a bound, mounted over the spool's.
    small: Option<tmpfs::Disk>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    kill_in: Option<u32>,
    is_killed: bool,
}

impl FileSystem {
    /// With the room of this machine's directory of temporary files.
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(seed, None)
    }

    /// With room for a few segments.
    pub(crate) fn small(seed: u64) -> Self {
        Self::on(seed, Some(tmpfs::Disk::mount("96k").unwrap()))
    }

    fn on(seed: u64, small: Option<tmpfs::Disk>) -> Self {
        Self(Arc::new(Inner {
            dir: tempfile::tempdir().unwrap(),
            small,
            state: Mutex::new(State {
                rng: Rng::with_seed(seed),
                kill_in: None,
                is_killed: false,
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Where a file is that the host has there.
    fn at(&self, path: &Path) -> PathBuf {
        let root = match &self.0.small {
            Some(small) if !path.starts_with(crate::disk::RUN) => small.path(),
            _ => self.0.dir.path(),
        };
        root.join(path.strip_prefix("/").unwrap())
    }

    /// Another operation; an error where the process is killed before it.
    fn begin(&self) -> io::Result<()> {
        let mut state = self.state();
        state.is_killed |= state.kill_in == Some(0);
        state.kill_in = state.kill_in.map(|n| n.saturating_sub(1));
        if state.is_killed {
            return Err(io::Error::other("the process was killed"));
        }
        Ok(())
    }
}

impl HostDisk for FileSystem {
    fn files(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn kill_in(&self, operations: u32) {
        self.state().kill_in = Some(operations);
    }

    fn is_killed(&self) -> bool {
        self.state().is_killed
    }

    fn revive(&self) {
        let mut state = self.state();
        (state.kill_in, state.is_killed) = (None, false);
    }

    fn leave_room(&self, bytes: Option<usize>) {
        let Some(small) = &self.0.small else { return };
        let path = small.path().join(BALLAST);
        let Some(bytes) = bytes else {
            fs::remove_file(path).ok();
            return;
        };
        let mut file = fs::File::create(path).unwrap();
        while io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.saturating_sub(bytes as u64)).unwrap();
    }

    /// What a kernel has written it keeps, as far as anybody can arrange here.
    fn fail_power(&self) {
        self.restore(crate::disk::RUN.as_ref(), &BTreeMap::new());
    }

    fn fork(&self) -> Self {
        let copy = Self::new(0);
        for dir in ["/spool", crate::disk::RUN].map(Path::new) {
            copy.restore(dir, &self.copy(dir));
        }
        copy
    }

    fn copy(&self, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.at(dir)).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let bytes = fs::read(entry.path()).unwrap();
            (dir.join(entry.file_name()), bytes)
        };
        entries.map(file).collect()
    }

    fn restore(&self, dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
        fs::remove_dir_all(self.at(dir)).ok();
        fs::create_dir_all(self.at(dir)).ok();
        for (path, bytes) in files {
            // A full disk takes part of it.
            fs::write(self.at(path), bytes).ok();
        }
    }

    fn flip(&self, dir: &Path) {
        let files = self.copy(dir);
        let files = files.iter().filter(|(_, bytes)| !bytes.is_empty());
        let mut state = self.state();
        let Some((path, bytes)) = state.rng.choice(files.collect::<Vec<_>>()) else {
            return;
        };
        let (at, bit) = (state.rng.usize(..bytes.len()), state.rng.u8(..8));
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.at(path))
            .unwrap();
        let byte = [bytes[at] ^ (1 << bit)];
        std::os::unix::fs::FileExt::write_all_at(&file, &byte, at as u64).unwrap();
    }
}

impl Disk for FileSystem {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin()?;
        SystemDisk.make_dir(&self.at(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        SystemDisk.list(&self.at(dir))
    }

    fn open(&self, path: &Path, which: Open) -> io::Result<Box<dyn DiskFile>> {
        if matches!(which, Open::Any | Open::New) {
            self.begin()?;
            fs::create_dir_all(self.at(crate::disk::RUN.as_ref()))?;
        }
        let file = SystemDisk.open(&self.at(path), which)?;
        let disk = self.clone();
        Ok(Box::new(RealFile { disk, file }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin()?;
        SystemDisk.remove(&self.at(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        SystemDisk.rename(&self.at(from), &self.at(to))
    }

    fn is_missing(&self, path: &Path) -> bool {
        SystemDisk.is_missing(&self.at(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin()?;
        SystemDisk.sync_dir(&self.at(dir))
    }
}

#[derive(Debug)]
struct RealFile {
    disk: FileSystem,
    file: Box<dyn DiskFile>,
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let was_killed = self.disk.is_killed();
        if let Err(killed) = self.disk.begin() {
            if !was_killed {
                let written = self.disk.state().rng.usize(..=bytes.len());
                self.file.write_all_at(&bytes[..written], offset).ok();
            }
            return Err(killed);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.begin()?;
        self.file.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.begin()?;
        self.file.sync()
    }

    /// A child that another test forks to mount something would hold it for a moment.
    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn is_at(&self, path: &Path) -> bool {
        self.file.is_at(&self.disk.at(path))
    }
}
