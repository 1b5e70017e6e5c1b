//! The files that a configuration is made of, read with bounds.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use crate::{
    glob::{self, Pattern},
    root::Root,
};

/// The files of an ingress controller with some thousand hosts take a tenth.
const BYTES_MAX: u64 = 40 << 20;

/// How many files a configuration is made of; one that is included again and again
/// is one.
const FILES_MAX: usize = 10_000;

/// How many entries of directories are looked at.
const ENTRIES_MAX: usize = 200_000;

/// Change and modification time in nanoseconds, size and inode; `None` where there
/// is no file.
type Stamp = Option<[i64; 6]>;

/// How files and directories were before they were read.
#[derive(Debug, Default)]
pub struct Stamps {
    root: Root,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Stamps {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether one is not as it was.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        let mut seen = self.seen.iter();
        seen.any(|(path, was)| stamp(&self.root, path) != *was)
    }
}

/// Reads files, and remembers what a change of which would change the names.
#[derive(Debug)]
pub struct Sources {
    root: Root,
    bytes_left: u64,
    files_left: usize,
    entries_left: usize,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Sources {
    /// Those below a root.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self {
            root,
            bytes_left: BYTES_MAX,
            files_left: FILES_MAX,
            entries_left: ENTRIES_MAX,
            seen: BTreeMap::new(),
        }
    }

    /// How each file that was read, and each directory that was searched, was before.
    #[must_use]
    pub fn into_stamps(self) -> Stamps {
        Stamps {
            root: self.root,
            seen: self.seen,
        }
    }

    /// The text of a file; bytes that are no UTF-8 belong to comments.
    ///
    /// # Errors
    /// Where it cannot be read, or bounds are reached.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<String> {
        self.see(path);
        let file = self.root.file(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let left = self.files_left.checked_sub(1);
        let too_many = || format!("more than {FILES_MAX} files: the rest is not read");
        self.files_left = left.ok_or_else(|| io::Error::other(too_many()))?;
        let mut bytes = Vec::new();
        file.take(self.bytes_left + 1).read_to_end(&mut bytes)?;
        let left = self.bytes_left.checked_sub(bytes.len() as u64);
        let too_large = || {
            let mebibytes = BYTES_MAX >> 20;
            io::Error::other(format!(
                "all files together are larger than {mebibytes} MiB"
            ))
        };
        self.bytes_left = left.ok_or_else(too_large)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The files that fit a pattern, in order; none where none does.
    pub(crate) fn matching(&mut self, pattern: &Path) -> Vec<PathBuf> {
        let mut paths = vec![PathBuf::new()];
        for part in pattern.components() {
            let fitting = match part {
                Component::Normal(name) => name
                    .to_str()
                    .filter(|name| glob::is_pattern(name))
                    .map(Pattern::new),
                _ => None,
            };
            paths = match fitting {
                None => paths.into_iter().map(|path| path.join(part)).collect(),
                Some(pattern) => paths
                    .iter()
                    .flat_map(|dir| self.entries(dir, &pattern))
                    .collect(),
            };
        }
        paths.retain(|path| self.root.is_file(path));
        paths.sort();
        paths
    }

    fn entries(&mut self, dir: &Path, pattern: &Pattern) -> Vec<PathBuf> {
        self.see(dir);
        let mut found = Vec::new();
        for name in self.root.entries(dir).into_iter().flatten() {
            if self.entries_left == 0 {
                break;
            }
            self.entries_left -= 1;
            if name.to_str().is_some_and(|name| pattern.fits(name)) {
                found.push(dir.join(name));
            }
        }
        found
    }

    /// Notes how a file is before it is read: what changes while it is read is read
    /// again.
    fn see(&mut self, path: &Path) {
        if !self.seen.contains_key(path) {
            self.seen.insert(path.to_owned(), stamp(&self.root, path));
        }
    }
}

/// How a file is now.
fn stamp(root: &Root, path: &Path) -> Stamp {
    let stat = root.stat(path).ok()?;
    Some([
        stat.st_ctime,
        stat.st_ctime_nsec as i64,
        stat.st_mtime,
        stat.st_mtime_nsec as i64,
        stat.st_size,
        stat.st_ino as i64,
    ])
}
