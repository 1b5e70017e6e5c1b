//! A file of a kernel filesystem, opened once and read again and again.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The most that is read of one file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The first size of the buffer that the files share.
const CHUNK_BYTES: usize = 16 << 10;

/// A file that is kept open.
#[derive(Debug)]
pub struct KeptFile {
    file: File,
    path: PathBuf,
}

impl KeptFile {
    /// Opens it.
    ///
    /// # Errors
    /// As `open` has them.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self { file, path })
    }

    /// Its whole content, read from the start into a buffer that the caller
    /// keeps; bytes that are no UTF-8 end it.
    ///
    /// # Errors
    /// As `pread` has them.
    pub fn read<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
        let mut length = 0;
        loop {
            if buffer.len() - length < CHUNK_BYTES / 4 && buffer.len() < FILE_BYTES_MAX {
                buffer.resize((buffer.len() * 2).clamp(CHUNK_BYTES, FILE_BYTES_MAX), 0);
            }
            let n = self.file.read_at(&mut buffer[length..], length as u64)?;
            length += n;
            if n == 0 || length == FILE_BYTES_MAX {
                break;
            }
        }
        Ok(valid_text(&buffer[..length]))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn valid_text(bytes: &[u8]) -> &str {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.valid_up_to(),
    };
    std::str::from_utf8(&bytes[..valid]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_every_reading_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one two three").unwrap();
        let kept = KeptFile::open(path.clone()).unwrap();
        let mut buffer = Vec::new();
        assert_eq!(kept.read(&mut buffer).unwrap(), "one two three");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(kept.read(&mut buffer).unwrap(), "four");
    }

    #[test]
    fn what_is_too_large_or_no_text_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![b'x'; FILE_BYTES_MAX + 10]).unwrap();
        let mut buffer = Vec::new();
        let kept = KeptFile::open(path.clone()).unwrap();
        assert_eq!(kept.read(&mut buffer).unwrap().len(), FILE_BYTES_MAX);
        std::fs::write(&path, b"ab\xffcd").unwrap();
        assert_eq!(kept.read(&mut buffer).unwrap(), "ab");
    }
}
