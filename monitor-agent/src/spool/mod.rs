//! Reports that no collector has acknowledged yet, on disk.
//!
//! A report is offered for delivery only after it is durable, together with the
//! baseline that the next window begins from: whatever happens to the process or
//! the machine, a key is never used for two bodies, and no count is reported
//! twice or not at all.
//!
//! - **Durability.** `append` returns after `fdatasync` of the record (and of
//!   the directory, where it made a file).  Acknowledgements are written without
//!   a sync: losing one costs a duplicate, which is harmless.
//! - **Bound.** All files together hold at most `bytes_max`; the oldest segment
//!   goes first, and its reports that were not acknowledged are counted.  The
//!   newest record always stays, for its baseline and sequence.  A disk that is
//!   full removes nothing that waits: `append` fails, and the window stays open.
//! - **Damage.** What is not whole is cut off.  It cannot be known whether a
//!   record that was cut off had been sent, so a new epoch begins.

pub mod record;
mod segment;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

use record::State;
use rustix::fs::{FlockOperation, flock};
use segment::Segment;

/// The largest segment that is appended to.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// What identifies a report of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportKey {
    /// Unix milliseconds at which the spool was made.
    pub epoch: u64,
    /// Counts from 1.
    pub sequence: u64,
}

/// Why the spool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its directory or a file of it.
    #[error("spool directory {dir} cannot be used; give another one with --spool-dir")]
    Open {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent has it.
    #[error(
        "spool directory {0} is in use by another agent; {advice}",
        advice = crate::ANOTHER_AGENT
    )]
    Locked(PathBuf),
    /// A report could not be made durable.
    #[error("report cannot be written to the spool")]
    Write(#[source] io::Error),
    /// A report is larger than a record may be.
    #[error("report and baseline take {0} bytes, more than a record holds")]
    TooLarge(usize),
    /// A report could not be read back.
    #[error("report cannot be read back from the spool")]
    Read(#[source] io::Error),
}

/// A report that waits for its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its key.
    pub key: ReportKey,
    /// Encoded.
    pub report: Vec<u8>,
}

/// What an earlier agent left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What the next window begins from; empty where there is none.
    pub baseline: Vec<u8>,
    /// Whether something was cut off.
    pub damaged: bool,
}

/// The spool of one agent.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    // Holds the lock on the directory for as long as the spool lives.
    _lock: File,
    state_file: File,
    state: State,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    next: ReportKey,
    // Whether the next record must begin a segment: it begins an epoch, or the
    // last segment could not be mended.
    rotate: bool,
    cursor: Cursor,
    dropped: u64,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    segment: u64,
    offset: u64,
}

impl Spool {
    /// Opens the spool in a directory, which is made where it is missing.
    ///
    /// # Errors
    /// Where the directory cannot be used, or another agent uses it.
    pub fn open(
        dir: &Path,
        bytes_max: u64,
        now_unix_ms: u64,
    ) -> Result<(Self, Recovered), SpoolError> {
        let open_error = |source| SpoolError::Open {
            dir: dir.to_owned(),
            source,
        };
        let lock = lock(dir).map_err(open_error)?;
        let lock = lock.ok_or_else(|| SpoolError::Locked(dir.to_owned()))?;
        Self::recover(dir, lock, bytes_max, now_unix_ms).map_err(open_error)
    }

    fn recover(dir: &Path, lock: File, bytes_max: u64, now: u64) -> io::Result<(Self, Recovered)> {
        let (state_file, found) = open_state(dir)?;
        let state = found.unwrap_or_default();
        let mut spool = Self {
            dir: dir.to_owned(),
            _lock: lock,
            state_file,
            state,
            bytes_max,
            segments: VecDeque::new(),
            next: ReportKey::default(),
            rotate: true,
            cursor: Cursor::default(),
            dropped: 0,
        };
        let mut recovered = spool.scan()?;
        let last = spool.segments.back().map(Segment::last).unwrap_or_default();
        // An acknowledged report that is not there was lost after it was sent.
        recovered.damaged |= found.is_none() && last != ReportKey::default();
        recovered.damaged |= state.acked > last;
        for segment in &mut spool.segments {
            segment.acknowledge_up_to(state.acked)?;
        }
        spool.next = ReportKey {
            sequence: last.sequence + 1,
            ..last
        };
        // An epoch that has begun and left no report may have lost them.
        if recovered.damaged || last.epoch != state.epoch || spool.segments.is_empty() {
            spool.begin_epoch(now.max(last.epoch.max(state.epoch) + 1))?;
        } else {
            spool.rotate = false;
        }
        spool.remove_acknowledged();
        spool.rewind();
        Ok((spool, recovered))
    }

    /// Durable before the first report of the epoch can be.
    fn begin_epoch(&mut self, epoch: u64) -> io::Result<()> {
        self.next = ReportKey { epoch, sequence: 1 };
        self.rotate = true;
        self.state.epoch = epoch;
        self.write_state()?;
        self.state_file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    fn write_state(&self) -> io::Result<()> {
        let bytes = record::encode_state(self.state);
        self.state_file.write_all_at(&bytes, 0)
    }

    fn scan(&mut self) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        for id in Segment::list(&self.dir)? {
            let scanned = Segment::scan(&self.dir, id)?;
            recovered.damaged |= scanned.damaged;
            if let Some(segment) = scanned.segment {
                recovered.baseline = scanned.baseline;
                self.segments.push_back(segment);
            } else {
                fs::remove_file(Segment::path(&self.dir, id))?;
            }
        }
        Ok(recovered)
    }

    /// The key that the next report will have.
    #[must_use]
    pub fn next_key(&self) -> ReportKey {
        self.next
    }

    /// Makes a report durable, and the baseline that the next window begins
    /// from with it.  Its key is the one that [`Self::next_key`] gave.
    ///
    /// # Errors
    /// Where it cannot be made durable; nothing has changed then.
    pub fn append(&mut self, report: &[u8], baseline: &[u8]) -> Result<ReportKey, SpoolError> {
        let record = record::encode(self.next.sequence, report, baseline)
            .ok_or(SpoolError::TooLarge(report.len() + baseline.len()))?;
        self.write(&record).map_err(SpoolError::Write)?;
        // From here on the key belongs to this report, whatever else fails.
        let key = self.next;
        self.next.sequence += 1;
        self.remove_where(|spool| spool.bytes() > spool.bytes_max);
        self.remove_acknowledged();
        Ok(key)
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let segment_max = SEGMENT_BYTES_MAX.min(self.bytes_max / 4);
        let full = |s: &Segment| s.bytes + record.len() as u64 > segment_max;
        match self.segments.back_mut() {
            Some(segment) if !self.rotate && !full(segment) => {
                let appended = segment.append(record);
                self.rotate = appended.is_err();
                appended
            }
            last => {
                let id = last.map_or(1, |s| s.id + 1);
                let segment = Segment::create(&self.dir, id, self.next, record)?;
                self.segments.push_back(segment);
                self.rotate = false;
                Ok(())
            }
        }
    }

    /// The next report that was not read since [`Self::rewind`], oldest first.
    ///
    /// # Errors
    /// Where it cannot be read back.
    pub fn read_next(&mut self) -> Result<Option<Pending>, SpoolError> {
        for segment in &self.segments {
            if segment.id < self.cursor.segment {
                continue;
            }
            if segment.id > self.cursor.segment {
                self.cursor = Cursor {
                    segment: segment.id,
                    offset: segment.acked_bytes,
                };
            }
            let offset = self.cursor.offset.max(segment.acked_bytes);
            let read = segment.read_at(offset, segment.bytes);
            let Some(bytes) = read.map_err(SpoolError::Read)? else {
                continue;
            };
            let record = record::decode(&bytes).ok_or_else(|| {
                SpoolError::Read(io::Error::new(io::ErrorKind::InvalidData, "bad checksum"))
            })?;
            self.cursor.offset = offset + bytes.len() as u64;
            return Ok(Some(Pending {
                key: ReportKey {
                    epoch: segment.first.epoch,
                    sequence: record.sequence,
                },
                report: record.report.to_vec(),
            }));
        }
        Ok(None)
    }

    /// Reading goes on at the first report that is not acknowledged.
    pub fn rewind(&mut self) {
        self.cursor = Cursor::default();
    }

    /// The report with this key needs not be kept.  Only the oldest one that is
    /// kept can be acknowledged; anything else changes nothing and gives false.
    ///
    /// # Errors
    /// Where files cannot be read or written.
    pub fn acknowledge(&mut self, key: ReportKey) -> Result<bool, SpoolError> {
        let Some(segment) = self.segments.iter_mut().find(|s| s.pending() > 0) else {
            return Ok(false);
        };
        if segment.front() != Some(key) {
            return Ok(false);
        }
        segment.acknowledge_one().map_err(SpoolError::Read)?;
        self.state.acked = key;
        self.write_state().map_err(SpoolError::Write)?;
        self.remove_acknowledged();
        Ok(true)
    }

    /// How many reports wait for their acknowledgement.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.segments.iter().map(Segment::pending).sum()
    }

    /// How many bytes the files hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// How many reports were dropped for want of room, unacknowledged.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn remove_acknowledged(&mut self) {
        self.remove_where(|spool| spool.segments[0].pending() == 0);
    }

    /// Removes the oldest segments while this holds, but for the newest one.
    /// What cannot be removed stays, and is tried again the next time.
    fn remove_where(&mut self, holds: impl Fn(&Self) -> bool) {
        while self.segments.len() > 1 && holds(self) {
            if let Err(error) = self.drop_oldest() {
                let path = self.segments[0].path.display();
                tracing::warn!(%error, %path, "a file of the spool cannot be removed");
                return;
            }
        }
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        if let Some(oldest) = self.segments.front() {
            match fs::remove_file(&oldest.path) {
                // Somebody was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            self.dropped += oldest.pending();
            self.segments.pop_front();
        }
        Ok(())
    }
}

/// Makes and locks the directory; `None` where another process has the lock.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The file `state`, and what it holds unless it is new or damaged.
fn open_state(dir: &Path) -> io::Result<(File, Option<State>)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("state"))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&file, 64), &mut bytes)?;
    let state = record::decode_state(&bytes);
    Ok((file, state))
}

#[cfg(test)]
mod tests;
