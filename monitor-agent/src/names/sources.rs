//! The files that a configuration is made of, read with bounds.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use super::glob;

/// A configuration of some thousand backends is smaller.
const BYTES_MAX: u64 = 4 << 20;

/// How many files a configuration is made of, each counted as often as it is
/// included.
const FILES_MAX: usize = 1_000;

/// How many entries of directories are looked at.
const ENTRIES_MAX: usize = 20_000;

/// Reads files, and remembers what a change of which would change the names.
#[derive(Debug)]
pub(super) struct Sources {
    bytes_left: u64,
    files_left: usize,
    entries_left: usize,
    /// Files that were read, and directories that were searched.
    pub(super) seen: BTreeSet<PathBuf>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            bytes_left: BYTES_MAX,
            files_left: FILES_MAX,
            entries_left: ENTRIES_MAX,
            seen: BTreeSet::new(),
        }
    }
}

impl Sources {
    /// The text of a file; bytes that are no UTF-8 belong to comments.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<String> {
        self.seen.insert(path.to_owned());
        let file = File::open(path)?;
        // A pipe would never end, or wait for someone to write.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if self.files_left == 0 {
            let what = format!("it is made of more than {FILES_MAX} files");
            return Err(io::Error::other(what));
        }
        self.files_left -= 1;
        let mut bytes = Vec::new();
        file.take(self.bytes_left + 1).read_to_end(&mut bytes)?;
        let left = self.bytes_left.checked_sub(bytes.len() as u64);
        self.bytes_left = left.ok_or_else(|| io::Error::other("it is larger than 4MiB"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The files that fit a pattern, in order; none where none does.
    pub(super) fn matching(&mut self, pattern: &Path) -> Vec<PathBuf> {
        let mut paths = vec![PathBuf::new()];
        for part in pattern.components() {
            let fitting = match part {
                Component::Normal(name) => name.to_str().filter(|name| glob::is_pattern(name)),
                _ => None,
            };
            paths = match fitting {
                None => paths.into_iter().map(|path| path.join(part)).collect(),
                Some(pattern) => paths
                    .iter()
                    .flat_map(|dir| self.entries(dir, pattern))
                    .collect(),
            };
        }
        paths.retain(|path| path.is_file());
        paths.sort();
        paths
    }

    fn entries(&mut self, dir: &Path, pattern: &str) -> Vec<PathBuf> {
        self.seen.insert(dir.to_owned());
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if self.entries_left == 0 {
                break;
            }
            self.entries_left -= 1;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| glob::fits(pattern, name)) {
                found.push(entry.path());
            }
        }
        found
    }
}
