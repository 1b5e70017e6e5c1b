//! One file of the spool.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use monitor_proto::ReportKey;

use super::{
    disk::{Disk, DiskFile, Open},
    record::{self, HEADER_BYTES, PREFIX_BYTES},
};

/// One file of the spool: records of one epoch, their sequences without gaps.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    file: Box<dyn DiskFile>,
    /// The key of its first record.
    pub(super) first: ReportKey,
    // Where each record begins, and where the last one ends: known without the
    // file, so that a damaged record does not hide those behind it.
    offsets: Vec<u64>,
    // How many of the first records need not be kept.
    settled: usize,
    // Those of the others that are damaged.
    lost: BTreeSet<usize>,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Absent where there is not one whole record.
    pub(super) segment: Option<Segment>,
    /// Of the last whole record.
    pub(super) baseline: Vec<u8>,
    /// Its key.
    pub(super) baseline_key: ReportKey,
    /// Whether there was anything but whole records.
    pub(super) damaged: bool,
    /// How many records were damaged, with whole ones behind them.
    pub(super) lost: u64,
}

/// What a directory has by the names of segments.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Files, oldest first.
    pub(super) ids: Vec<u64>,
    /// No segment can be made up to this id.
    pub(super) taken: u64,
}

/// Whether a record cannot be read because it is not what was written, rather than
/// because the disk cannot be read now.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

impl Segment {
    pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
        dir.join(name(id))
    }

    /// The segments in a directory.  What has a segment's name and is no file is
    /// somebody else's, and stays.
    pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Listed> {
        let mut listed = Listed::default();
        for entry in disk.list(dir)? {
            let Some(id) = id_of(&entry.name) else {
                continue;
            };
            listed.taken = listed.taken.max(id);
            if entry.is_file {
                listed.ids.push(id);
            } else {
                let path = dir.join(entry.name);
                let path = path.display();
                tracing::warn!(%path, "it is no file of the spool: it is left alone; remove it");
            }
        }
        listed.ids.sort_unstable();
        Ok(listed)
    }

    /// Makes a segment that begins with this record, both durable.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        id: u64,
        first: ReportKey,
        record: &[u8],
    ) -> io::Result<Self> {
        let mut bytes = record::encode_header(first);
        bytes.extend(record);
        let (path, file) = write_new(disk, dir, id, &bytes)?;
        Ok(Self {
            id,
            path,
            file,
            first,
            offsets: vec![HEADER_BYTES, bytes.len() as u64],
            settled: 0,
            lost: BTreeSet::new(),
        })
    }

    /// Appends a record and makes it durable.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.bytes();
        let written = self
            .file
            .write_all_at(record, end)
            .and_then(|()| self.file.sync());
        if let Err(error) = written {
            self.file.set_length(end)?;
            return Err(error);
        }
        self.offsets.push(end + record.len() as u64);
        Ok(())
    }

    /// Whether another record can follow: the file is where it belongs, and as long
    /// as it was left.
    pub(super) fn is_intact(&self) -> bool {
        let length = self.file.length();
        length.is_ok_and(|length| length == self.bytes()) && self.file.is_at(&self.path)
    }

    /// Makes the file anew of the one that is still open though it was removed.
    pub(super) fn restore(&mut self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let mut bytes = vec![0; self.bytes() as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        (self.path, self.file) = write_new(disk, dir, self.id, &bytes)?;
        Ok(())
    }

    /// Reads a file of the spool and cuts off what is not whole.
    pub(super) fn scan(disk: &dyn Disk, dir: &Path, id: u64) -> io::Result<Scanned> {
        let path = Self::path(dir, id);
        let file = disk.open(&path, Open::Existing)?;
        let length = file.length()?;
        let mut header = vec![0; HEADER_BYTES.min(length) as usize];
        file.read_exact_at(&mut header, 0)?;
        let mut scanned = Scanned::default();
        let Some(first) = record::decode_header(&header) else {
            scanned.damaged = true;
            return Ok(scanned);
        };
        let mut segment = Self {
            id,
            path,
            file,
            first,
            offsets: vec![HEADER_BYTES],
            settled: 0,
            lost: BTreeSet::new(),
        };
        segment.scan_records(length, &mut scanned)?;
        scanned.damaged |= segment.bytes() != length;
        scanned.segment = (segment.records() > 0).then_some(segment);
        Ok(scanned)
    }

    /// Finds the records, and the baseline of the last whole one.
    fn scan_records(&mut self, length: u64, scanned: &mut Scanned) -> io::Result<()> {
        while let Some(bytes) = self.read_at(self.bytes(), length)? {
            let index = self.records();
            if let Some(record) = self.decode(index, &bytes) {
                if record.report.is_empty() {
                    self.lost.insert(index);
                } else {
                    scanned.baseline = record.baseline.to_vec();
                    scanned.baseline_key = self.key(index);
                }
                self.offsets.push(self.bytes() + bytes.len() as u64);
                continue;
            }
            // Where its length can be believed, it is the only one that is lost.
            let behind = self.bytes() + bytes.len() as u64;
            let next = self.read_at(behind, length)?;
            if next.is_none_or(|next| self.decode(index + 1, &next).is_none()) {
                break;
            }
            self.offsets.push(behind);
            self.lose(index);
            scanned.lost += 1;
            scanned.damaged = true;
        }
        self.skip_lost();
        if self.bytes() != length {
            self.file.set_length(self.bytes())?;
        }
        self.file.sync()
    }

    fn decode<'a>(&self, index: usize, bytes: &'a [u8]) -> Option<record::Record<'a>> {
        let expected = self.key(index).sequence;
        record::decode(bytes).filter(|record| record.sequence == expected)
    }

    /// The bytes of the record at this offset, unchecked; `None` where it does
    /// not end before `end`.
    fn read_at(&self, offset: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
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

    /// The report at this index.
    pub(super) fn read(&self, index: usize) -> io::Result<Vec<u8>> {
        let (begin, end) = (self.offsets[index], self.offsets[index + 1]);
        let mut bytes = vec![0; (end - begin) as usize];
        self.file.read_exact_at(&mut bytes, begin)?;
        match self.decode(index, &bytes) {
            Some(record) => Ok(record.report.to_vec()),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "bad checksum")),
        }
    }

    /// Gives a damaged record up.  A blank one takes its place, so that it is found
    /// and counted once.
    pub(super) fn lose(&mut self, index: usize) {
        let (begin, end) = (self.offsets[index], self.offsets[index + 1]);
        let blank = record::encode_blank(self.key(index).sequence, (end - begin) as usize);
        let written = blank.map(|blank| self.file.write_all_at(&blank, begin));
        if let Some(Err(error)) = written {
            let path = self.path.display();
            tracing::debug!(%error, %path, "a damaged record stays in the spool");
        }
        self.lost.insert(index);
        self.skip_lost();
    }

    fn skip_lost(&mut self) {
        while self.lost.remove(&self.settled) {
            self.settled += 1;
        }
    }

    /// The first record that is kept needs to be no longer.
    pub(super) fn settle_one(&mut self) {
        self.settled += 1;
        self.skip_lost();
    }

    /// Nor does everything up to and including this key.
    pub(super) fn settle_up_to(&mut self, key: ReportKey) {
        while self.front().is_some_and(|front| front <= key) {
            self.settle_one();
        }
    }

    /// The index of the first record to be read, from this one on.
    pub(super) fn next_kept(&self, from: usize) -> Option<usize> {
        (from.max(self.settled)..self.records()).find(|index| !self.lost.contains(index))
    }

    /// The index of the record with this key.
    pub(super) fn index_of(&self, key: ReportKey) -> Option<usize> {
        let index = key.sequence.checked_sub(self.first.sequence)?;
        let index = usize::try_from(index).ok()?;
        (key.epoch == self.first.epoch && index < self.records()).then_some(index)
    }

    pub(super) fn key(&self, index: usize) -> ReportKey {
        ReportKey {
            epoch: self.first.epoch,
            sequence: self.first.sequence.saturating_add(index as u64),
        }
    }

    fn records(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The length up to the end of the last record.
    pub(super) fn bytes(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(HEADER_BYTES)
    }

    /// The first record that is kept.
    pub(super) fn front(&self) -> Option<ReportKey> {
        (self.settled < self.records()).then(|| self.key(self.settled))
    }

    /// The last record.
    pub(super) fn last(&self) -> ReportKey {
        self.key(self.records().saturating_sub(1))
    }

    /// How many records came after this report, damaged ones among them.
    pub(super) fn records_behind(&self, key: ReportKey) -> u64 {
        let of_epoch = (self.first.epoch == key.epoch).then_some(key.sequence);
        let up_to = match of_epoch {
            Some(sequence) => match sequence.checked_sub(self.first.sequence) {
                Some(behind_first) => behind_first.saturating_add(1),
                None => 0,
            },
            None if self.first.epoch < key.epoch => u64::MAX,
            None => 0,
        };
        (self.records() as u64).saturating_sub(up_to)
    }

    /// How many records wait for their acknowledgement.
    pub(super) fn pending(&self) -> u64 {
        (self.records() - self.settled - self.lost.len()) as u64
    }
}

/// Twenty digits, so that names sort as ids do.
fn name(id: u64) -> String {
    format!("{id:020}.seg")
}

fn id_of(file_name: &str) -> Option<u64> {
    let id = file_name.strip_suffix(".seg")?.parse().ok()?;
    (id < u64::MAX && name(id) == file_name).then_some(id)
}

/// Makes a file with these bytes, durable.
fn write_new(
    disk: &dyn Disk,
    dir: &Path,
    id: u64,
    bytes: &[u8],
) -> io::Result<(PathBuf, Box<dyn DiskFile>)> {
    let path = Segment::path(dir, id);
    let file = disk.open(&path, Open::New)?;
    let written = file
        .write_all_at(bytes, 0)
        .and_then(|()| file.sync())
        .and_then(|()| disk.sync_dir(dir));
    if let Err(error) = written {
        // Not durable, so it must not be found either.
        disk.remove(&path)?;
        return Err(error);
    }
    Ok((path, file))
}
