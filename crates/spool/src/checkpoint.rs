//! What was reported last, in a place with the life of the counters: a spool that
//! was removed, or replaced by an older copy of it, would else have the next window
//! repeat what was reported before.
//!
//! The file has the form of a segment of one record, whose report says of which
//! counters it is.  It is replaced as a whole, and needs no sync: after a crash of
//! the machine the counters are others anyway.

use monitor_proto::ReportKey;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    directory::at,
    disk::{Disk, Open, SystemDisk},
    record::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, PREFIX_BYTES},
};
use daemon::once_a_minute;

/// The file, and the counters that it is of.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    counters: Vec<u8>,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The newest report.
    pub key: ReportKey,
    /// What the next window begins from.
    pub baseline: Vec<u8>,
}

impl Checkpoint {
    /// The checkpoint of the counters that are pinned there since this boot.
    #[must_use]
    pub fn of(path: PathBuf, boot_id: &str, pin_dir: &Path) -> Self {
        Self::on(Arc::new(SystemDisk), path, boot_id, pin_dir)
    }

    /// The same on another disk.
    #[must_use]
    pub fn on(disk: Arc<dyn Disk>, path: PathBuf, boot_id: &str, pin_dir: &Path) -> Self {
        let counters = format!("{boot_id} {}", pin_dir.display()).into_bytes();
        Self {
            disk,
            path,
            counters,
        }
    }

    /// What it holds; `None` where there is none of these counters.
    #[must_use]
    pub fn read(&self) -> Option<Kept> {
        match self.try_read() {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of what was reported cannot be read");
                None
            }
        }
    }

    fn try_read(&self) -> io::Result<Option<Kept>> {
        let file = self.disk.open(&self.path, Open::Read)?;
        let whole = HEADER_BYTES + (PREFIX_BYTES + PAYLOAD_BYTES_MAX) as u64;
        let mut bytes = vec![0; file.length()?.min(whole) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(self.decode(&bytes))
    }

    fn decode(&self, bytes: &[u8]) -> Option<Kept> {
        let (header, record) = bytes.split_at_checked(HEADER_BYTES as usize)?;
        let key = record::decode_header(header)?;
        let record = record::decode(record).filter(|r| r.report == self.counters)?;
        let baseline = record.baseline.to_vec();
        Some(Kept { key, baseline })
    }

    /// Puts this in its place.  Without it nothing is lost as long as the spool is
    /// there.
    pub fn write(&self, key: ReportKey, baseline: &[u8]) {
        if let Err(error) = self.try_write(key, baseline)
            && once_a_minute("the checkpoint")
        {
            tracing::warn!(
                %error,
                "the checkpoint of what was reported cannot be written: were the spool removed or \
                 replaced now, what was counted meanwhile would be in the totals alone"
            );
        }
    }

    fn try_write(&self, key: ReportKey, baseline: &[u8]) -> io::Result<()> {
        let mut bytes = record::encode_header(key);
        let record = record::encode(key.sequence, &self.counters, baseline);
        bytes.extend(record.ok_or(io::ErrorKind::FileTooLarge)?);
        let new = self.path.with_extension("checkpoint.new");
        let file = self.disk.open(&new, Open::Any).map_err(at(&new))?;
        let written = file
            .set_length(0)
            .and_then(|()| file.write_all_at(&bytes, 0));
        written.map_err(at(&new))?;
        self.disk.rename(&new, &self.path).map_err(at(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const KEY: ReportKey = ReportKey {
        epoch: 1_763_860_000_123,
        sequence: 7,
    };

    fn checkpoint(dir: &Path, boot_id: &str, pin_dir: &str) -> Checkpoint {
        Checkpoint::of(dir.join("x.checkpoint"), boot_id, Path::new(pin_dir))
    }

    #[test]
    fn what_was_written_is_read_for_the_same_counters_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = checkpoint(dir.path(), "boot", "/pins");
        assert_eq!(own.read(), None);
        own.write(KEY, b"old");
        own.write(KEY, b"baseline");
        let kept = Kept {
            key: KEY,
            baseline: b"baseline".to_vec(),
        };
        assert_eq!(own.read(), Some(kept));
        assert_eq!(checkpoint(dir.path(), "later", "/pins").read(), None);
        assert_eq!(checkpoint(dir.path(), "boot", "/others").read(), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_no_checkpoint(bytes: Vec<u8>) {
            let dir = tempfile::tempdir().unwrap();
            let own = checkpoint(dir.path(), "boot", "/pins");
            fs::write(&own.path, bytes).unwrap();
            prop_assert_eq!(own.read(), None);
        }
    }
}
