//! The files that the configuration is in: written in one step, watched for
//! changes.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::Config;
use crate::token::Sources;

/// A configuration that stands beside its file; dropped, it goes away.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    beside: PathBuf,
}

impl Staged {
    /// Writes `text` beside `path`.
    ///
    /// # Errors
    /// The file system's; then nothing is left behind.
    pub(super) fn write(path: &Path, text: &str) -> io::Result<Self> {
        // Beside the file, so that renaming it is one step; with its mode, as it
        // may hold a token.
        let path = std::fs::canonicalize(path)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let mode = std::fs::metadata(&path)?.permissions();
        let staged = Self {
            beside: PathBuf::from(name),
            path,
        };
        write_synced(&staged.beside, text.as_bytes(), mode)?;
        Ok(staged)
    }

    /// Takes the file's place.
    ///
    /// # Errors
    /// The file system's; then the file is as it was.
    pub fn commit(self) -> io::Result<()> {
        std::fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.beside)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "cannot remove {}", self.beside.display());
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8], mode: Permissions) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.set_permissions(mode)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What can be seen of the files that matter, to notice a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub(super) config: Option<FileStamp>,
    pub(super) tls: Option<(Option<FileStamp>, Option<FileStamp>)>,
    /// The admin API's and the collector's tokens, and the authorities of the
    /// collector and the backends.
    others: Vec<Option<FileStamp>>,
}

impl Fingerprint {
    /// To be taken before the files are read, so that no change is missed.
    #[must_use]
    pub fn new(file: Option<FileStamp>, config: &Config, sources: &Sources) -> Self {
        let tls = config
            .tls
            .as_ref()
            .map(|(cert, key)| (file_stamp(cert), file_stamp(key)));
        let collector = &config.raw.collector;
        let admin = config.admin.as_ref();
        let token = admin.and_then(|_| sources.file(&config.raw.admin));
        let backends = config.upstreams.iter().flat_map(|one| &one.backends);
        let others = [&token, &collector.token_file, &collector.ca_file];
        Self {
            config: file,
            tls,
            others: others
                .into_iter()
                .chain(backends.map(|backend| &backend.ca_file))
                .map(|path| path.as_deref().and_then(file_stamp))
                .collect(),
        }
    }
}

/// Time of the last change, size, and the time of the last change of its mode or
/// owner too, in seconds and nanoseconds.
pub type FileStamp = (SystemTime, u64, i64, i64);

/// What can be seen of one file.
#[must_use]
pub fn file_stamp(path: &Path) -> Option<FileStamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((
        metadata.modified().ok()?,
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_file_that_may_be_read_again_looks_new() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = file_stamp(file.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Within one tick of the kernel's clock two changes have the same time.
        while file_stamp(file.path()) == Some(before) {
            assert!(Instant::now() < deadline, "{before:?}");
            file.as_file()
                .set_permissions(Permissions::from_mode(0o640))
                .unwrap();
        }
    }
}
