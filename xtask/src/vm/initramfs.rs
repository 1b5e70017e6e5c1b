//! An initramfs: a cpio archive in the "new ASCII" format, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` has it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// Adds a directory, unless it is there.
    pub(crate) fn directory(&mut self, path: &str) {
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, &[]);
        }
    }

    /// Adds an executable file, and the directories above it.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        let above = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        for directory in above.collect::<Vec<_>>() {
            self.directory(&directory);
        }
        self.entry(path, EXECUTABLE, content);
    }

    /// Adds a copy of a file of this machine.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // Inode, mode, uid, gid, links, mtime, size, four device numbers, the
        // name's size, checksum.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn entries_are_aligned_and_directories_come_first_and_once() {
        let mut initramfs = Initramfs::default();
        initramfs.file("lib/x/a", b"12345");
        initramfs.file("lib/x/b", b"");
        let bytes = initramfs.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(
            text.matches("070701").count(),
            5,
            "lib, lib/x, a, b and the trailer"
        );
        assert!(text.find("lib/x\0") < text.find("lib/x/a\0"));
        assert!(
            text.match_indices("070701")
                .all(|(at, _)| at.is_multiple_of(4))
        );
    }
}
