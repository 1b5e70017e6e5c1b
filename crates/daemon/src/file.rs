//! The files that a configuration names: certificates, keys, tokens, the configuration
//! itself.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: use an existing, readable file")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe, a device or a directory: reading it could wait for ever.
    #[error("cannot read {0}: it is not a regular file; write its content into one")]
    NotRegular(PathBuf),
    /// It is far too large.
    #[error("cannot read {path}: it is larger than {bytes_max} bytes")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The maximum.
        bytes_max: u64,
    },
}

impl FileError {
    /// Whether there is nothing at the path.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it may be readable later: nothing is at the path, or who made it has not
    /// let others read it yet.
    #[must_use]
    pub fn may_come(&self) -> bool {
        let refused = matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
        refused || self.is_missing()
    }
}

/// What is in a regular file of at most so many bytes.  Nothing is waited for, and no
/// more is read whatever the file's size says: both may change meanwhile.
///
/// # Errors
/// Where it cannot be read, is no regular file, or is larger.
pub fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let error = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(path);
    let file = file.map_err(error)?;
    if !file.metadata().map_err(error)?.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    let mut content = Vec::new();
    let mut bounded = file.take(bytes_max.saturating_add(1));
    let bytes = bounded.read_to_end(&mut content).map_err(error)?;
    if bytes as u64 > bytes_max {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            bytes_max,
        });
    }
    Ok(content)
}

/// The same of a file of text.
///
/// # Errors
/// Those of [`read_file`], and where it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, FileError> {
    let text = String::from_utf8(read_file(path, bytes_max)?);
    text.map_err(|error| FileError::Read {
        path: path.to_owned(),
        source: io::Error::new(
            io::ErrorKind::InvalidData,
            NotUtf8(error.utf8_error().valid_up_to()),
        ),
    })
}

#[derive(Debug, thiserror::Error)]
#[error("byte {} is not UTF-8", .0 + 1)]
struct NotUtf8(usize);

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(read_file(&path, 1 << 20).unwrap().len(), 1 << 20);
        file.set_len((1 << 20) + 1).unwrap();
        let error = read_file(&path, 1 << 20).unwrap_err().to_string();
        assert!(error.ends_with("is larger than 1048576 bytes"), "{error}");
        let missing = read_file(&dir.path().join("other"), 1).unwrap_err();
        assert!(missing.is_missing());
    }

    #[test]
    fn what_could_be_waited_for_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [&pipe, dir.path(), Path::new("/dev/zero")] {
            let error = read_file(path, 1 << 10).unwrap_err();
            assert!(matches!(error, FileError::NotRegular(_)), "{error}");
        }
    }

    #[test]
    fn a_file_that_says_it_is_empty_is_bounded_too() {
        let length = fs::metadata("/proc/self/mountinfo").unwrap().len();
        let read = read_file(Path::new("/proc/self/mountinfo"), 1);
        assert!(matches!(read, Err(FileError::TooLarge { .. })));
        assert_eq!(length, 0);
    }

    #[test]
    fn what_is_not_text_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, b"ab\xff").unwrap();
        let error = crate::error_chain(&read_text(&path, 10).unwrap_err());
        assert!(error.ends_with("byte 3 is not UTF-8"), "{error}");
    }
}
