//! One file of the spool.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    ReportKey,
    record::{self, HEADER_BYTES, PREFIX_BYTES},
};

/// One file of the spool: records of one epoch, their sequences without gaps.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The key of its first record.
    pub(super) first: ReportKey,
    pub(super) records: u64,
    /// The length up to the end of the last whole record.
    pub(super) bytes: u64,
    /// How many of the first records are acknowledged.
    pub(super) acked: u64,
    /// Where the first one that is not begins.
    pub(super) acked_bytes: u64,
}

/// What was found in a file.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Absent where there is not one whole record.
    pub(super) segment: Option<Segment>,
    /// Of the last whole record.
    pub(super) baseline: Vec<u8>,
    /// Whether there was anything but whole records.
    pub(super) damaged: bool,
}

impl Segment {
    pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
        dir.join(format!("{id:020}.seg"))
    }

    /// The ids of the segments in a directory, oldest first.
    pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|n| n.strip_suffix(".seg"));
            ids.extend(id.and_then(|id| id.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Makes a segment that begins with this record, both durable.
    pub(super) fn create(dir: &Path, id: u64, first: ReportKey, record: &[u8]) -> io::Result<Self> {
        let path = Self::path(dir, id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let mut bytes = record::encode_header(first);
        bytes.extend(record);
        let written = file
            .write_all_at(&bytes, 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(dir)?.sync_all());
        if let Err(error) = written {
            // Not durable, so it must not be found either.
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(Self {
            id,
            path,
            file,
            first,
            records: 1,
            bytes: bytes.len() as u64,
            acked: 0,
            acked_bytes: HEADER_BYTES,
        })
    }

    /// Appends a record and makes it durable.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let written = self
            .file
            .write_all_at(record, self.bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += record.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Reads a file of the spool and cuts off what is not whole.
    pub(super) fn scan(dir: &Path, id: u64) -> io::Result<Scanned> {
        let path = Self::path(dir, id);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut header = vec![0; HEADER_BYTES.min(length) as usize];
        file.read_exact_at(&mut header, 0)?;
        let mut baseline = Vec::new();
        let mut segment = record::decode_header(&header).map(|first| Self {
            id,
            path,
            file,
            first,
            records: 0,
            bytes: HEADER_BYTES,
            acked: 0,
            acked_bytes: HEADER_BYTES,
        });
        if let Some(segment) = &mut segment {
            baseline = segment.scan_records(length)?;
        }
        let segment = segment.filter(|s| s.records > 0);
        let damaged = segment.as_ref().is_none_or(|s| s.bytes != length);
        Ok(Scanned {
            segment,
            baseline,
            damaged,
        })
    }

    /// Counts the whole records, and gives the baseline of the last one.
    fn scan_records(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut baseline = Vec::new();
        while let Some(bytes) = self.read_at(self.bytes, length)? {
            match record::decode(&bytes) {
                Some(r) if r.sequence == self.first.sequence + self.records => {
                    baseline = r.baseline.to_vec();
                }
                _ => break,
            }
            self.bytes += bytes.len() as u64;
            self.records += 1;
        }
        if self.bytes != length {
            self.file.set_len(self.bytes)?;
        }
        self.file.sync_data()?;
        Ok(baseline)
    }

    /// The bytes of the record at this offset, unchecked; `None` where it does
    /// not end before `end`.
    pub(super) fn read_at(&self, offset: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
        let mut prefix = [0; PREFIX_BYTES];
        if offset + PREFIX_BYTES as u64 > end {
            return Ok(None);
        }
        self.file.read_exact_at(&mut prefix, offset)?;
        let Some(whole) = record::whole_length(&prefix) else {
            return Ok(None);
        };
        if offset + whole as u64 > end {
            return Ok(None);
        }
        let mut bytes = vec![0; whole];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    /// Marks the first record that is not yet acknowledged.
    pub(super) fn acknowledge_one(&mut self) -> io::Result<()> {
        let mut prefix = [0; PREFIX_BYTES];
        self.file.read_exact_at(&mut prefix, self.acked_bytes)?;
        let whole = record::whole_length(&prefix)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is damaged"))?;
        self.acked_bytes += whole as u64;
        self.acked += 1;
        Ok(())
    }

    /// Marks everything up to and including this key.
    pub(super) fn acknowledge_up_to(&mut self, key: ReportKey) -> io::Result<()> {
        while self.front().is_some_and(|front| front <= key) {
            self.acknowledge_one()?;
        }
        Ok(())
    }

    /// The first record that is not acknowledged.
    pub(super) fn front(&self) -> Option<ReportKey> {
        (self.acked < self.records).then_some(ReportKey {
            epoch: self.first.epoch,
            sequence: self.first.sequence + self.acked,
        })
    }

    /// The last record.
    pub(super) fn last(&self) -> ReportKey {
        ReportKey {
            epoch: self.first.epoch,
            sequence: self.first.sequence + self.records.saturating_sub(1),
        }
    }

    /// How many records are not acknowledged.
    pub(super) fn pending(&self) -> u64 {
        self.records - self.acked
    }
}
