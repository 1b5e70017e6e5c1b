//! What a spool asks of the disk, so that a simulated one can take its place.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// Which file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// One that is there, to be read alone: it may be another user's.
    Read,
    /// One that is there.
    Existing,
    /// One that is there, else a new one.
    Any,
    /// A new one.
    New,
}

/// What has a name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a file.
    pub is_file: bool,
}

/// Directories.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory, and those above it, where it is missing.
    ///
    /// # Errors
    /// As those of the system.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// What is in a directory and has a name in UTF-8.
    ///
    /// # Errors
    /// As those of the system.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Opens a file to be read and, but for [`Open::Read`], written.
    ///
    /// # Errors
    /// As those of the system.
    fn open(&self, path: &Path, which: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Puts a file in the place of another.
    ///
    /// # Errors
    /// As those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Whether nothing has this name.
    fn is_missing(&self, path: &Path) -> bool;

    /// Makes durable which files a directory has.
    ///
    /// # Errors
    /// As those of the system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is open.
pub trait DiskFile: Debug + Send + Sync {
    /// How many bytes it has.
    ///
    /// # Errors
    /// As those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Fills the buffer from this offset on.
    ///
    /// # Errors
    /// As those of the system; `UnexpectedEof` where the file has fewer bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of this at the offset.
    ///
    /// # Errors
    /// As those of the system.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// As those of the system.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes its bytes durable, and its length.
    ///
    /// # Errors
    /// As those of the system.
    fn sync(&self) -> io::Result<()>;

    /// Takes its lock, until it is closed; false where somebody else has it.
    ///
    /// # Errors
    /// As those of the system.
    fn lock(&self) -> io::Result<bool>;

    /// Whether it is the file of this name.
    fn is_at(&self, path: &Path) -> bool;
}

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir)?;
        // An agent may have made it just before it was killed.
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty())
            && let Err(error) = self.sync_dir(above)
        {
            // Not everybody who may use it may read what is above it.
            tracing::debug!(%error, dir = %above.display(), "the directory cannot be synced");
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let is_file = entry.file_type()?.is_file();
                entries.push(Entry { name, is_file });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, which: Open) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(which != Open::Read)
            .create(which == Open::Any)
            .create_new(which == Open::New)
            .truncate(false)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn is_missing(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn lock(&self) -> io::Result<bool> {
        match flock(self, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let same = |a: fs::Metadata, b: fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
        let both = self.metadata().ok().zip(fs::symlink_metadata(path).ok());
        both.is_some_and(|(open, there)| same(open, there))
    }
}
