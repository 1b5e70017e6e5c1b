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
//!   newest record stays, for its baseline and sequence.  A disk that is full
//!   removes nothing that waits: `append` fails, and the window stays open.  Where
//!   nothing waits, the newest record gives its room too: the checkpoint has its
//!   baseline.
//! - **Losses.** Every report that is lost is counted, by reason, in the file
//!   `state`, with how many wait and how much the newest report told: what a report
//!   tells of is durable before the report is, and a file goes after the state that
//!   gives it up.  So a loss is told once, whenever the process is killed, and so is
//!   that something was found damaged.
//! - **Damage.** A damaged record is given up, and counted; what is not whole at
//!   the end is cut off.  It cannot be known whether a record that was cut off had
//!   been sent, so a new epoch begins.
//! - **Removal.** Files that somebody removes while they are open are made anew.

pub mod checkpoint;
mod directory;
pub mod disk;
pub mod record;
mod recovery;
mod segment;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use directory::Directory;
pub use record::Losses;
use record::State;
use segment::Segment;

use daemon::once_a_minute;
use monitor_proto::ReportKey;

/// The largest segment that is appended to.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// Why the spool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its directory or a file of it.
    #[error(
        "spool directory {dir} cannot be used; {}, or give another one with --spool-dir",
        remedy(source)
    )]
    Open {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("spool directory {0} is in use by another agent")]
    Locked(PathBuf),
    /// A report could not be made durable.
    #[error(
        "report cannot be written to the spool in {dir}; {}, or give another directory with \
         --spool-dir",
        remedy(source)
    )]
    Write {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A report is larger than a record may be.
    #[error("report and baseline take {0} bytes, more than a record holds")]
    TooLarge(usize),
    /// A report could not be read back.
    #[error(
        "report cannot be read back from the spool in {dir}; {}",
        remedy(source)
    )]
    Read {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SpoolError {
    fn open(dir: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Open {
            dir: dir.to_owned(),
            source,
        }
    }
}

/// What whoever runs the agent can do about it.
fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull => "make room on its volume",
        QuotaExceeded => "raise the quota",
        ReadOnlyFilesystem => "mount its volume to be written",
        PermissionDenied => "give its files back to the agent's user",
        AlreadyExists | IsADirectory | NotADirectory => "remove what is in its place",
        _ => "look for errors of its disk in the kernel's log",
    }
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
    /// The report that it was kept with.
    pub baseline_key: ReportKey,
    /// The last report that is known to have been made.
    pub newest: ReportKey,
    /// Whether something was cut off, or is missing.
    pub damaged: bool,
    /// Whether nothing here tells if later reports were made.
    pub is_uncertain: bool,
}

/// The spool of one agent.
#[derive(Debug)]
pub struct Spool {
    directory: Directory,
    state: State,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    next: ReportKey,
    next_id: u64,
    // Whether the next record must begin a segment: it begins an epoch, or the
    // last segment could not be mended.
    rotate: bool,
    cursor: Cursor,
    // What the disk has for certain.
    synced: State,
}

/// What became of a report that its receiver will not be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has it.
    Delivered,
    /// It refused it for good.
    Rejected,
    /// It keeps another one of this number.
    Conflicting,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    segment: u64,
    index: usize,
}

impl Spool {
    /// The key that the next report will have.
    #[must_use]
    pub fn next_key(&self) -> ReportKey {
        self.next
    }

    /// Something of it was found missing: until a report is made, whoever opens it is
    /// told that it is damaged.  Durable with the next epoch.
    pub fn found_damaged(&mut self) {
        self.state.untold_damage = true;
    }

    /// The next report is the first of a new epoch, after this one that is known of.
    ///
    /// # Errors
    /// Where that cannot be made durable; nothing has changed then.
    pub fn begin_epoch(&mut self, now_unix_ms: u64, known: ReportKey) -> Result<(), SpoolError> {
        let last = self.next.epoch.max(self.state.epoch).max(known.epoch);
        let epoch = now_unix_ms.max(last.saturating_add(1));
        let state = State {
            epoch,
            newest: self.state.newest.max(Some(known)),
            pending: Some(self.pending()),
            ..self.state
        };
        let written = self.directory.write_state(state);
        let durable = written.and_then(|()| self.directory.sync());
        durable.map_err(self.write_error())?;
        self.state = state;
        self.synced = state;
        self.next = ReportKey { epoch, sequence: 1 };
        self.rotate = true;
        Ok(())
    }

    /// Makes a report durable, and the baseline that the next window begins
    /// from with it.  Its key is the one that [`Self::next_key`] gave.
    ///
    /// # Errors
    /// Where it cannot be made durable; no key has been used then.
    pub fn append(&mut self, report: &[u8], baseline: &[u8]) -> Result<ReportKey, SpoolError> {
        let record = record::encode(self.next.sequence, report, baseline)
            .ok_or(SpoolError::TooLarge(report.len() + baseline.len()))?;
        self.keep_in_place()?;
        if self.state.losses != self.synced.losses {
            self.write_durable_state().map_err(self.write_error())?;
        }
        let told = self.state.losses;
        let written = match self.write(&record) {
            Err(error) if is_full(&error) && self.give_room() => self.write(&record),
            written => written,
        };
        written.map_err(self.write_error())?;
        // From here on the key belongs to this report, whatever else fails.
        let key = self.next;
        self.next.sequence = self.next.sequence.saturating_add(1);
        self.state.newest = Some(key);
        self.state.told = told;
        self.state.untold_damage = false;
        self.remove_where(|spool| spool.bytes() > spool.bytes_max);
        self.remove_acknowledged();
        self.write_state();
        Ok(key)
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let segment_max = SEGMENT_BYTES_MAX.min(self.bytes_max / 4);
        let fits = |s: &Segment| s.bytes() + record.len() as u64 <= segment_max;
        match self.segments.back_mut() {
            Some(segment) if !self.rotate && fits(segment) && segment.is_intact() => {
                let appended = segment.append(record);
                self.rotate = appended.is_err();
                appended
            }
            _ => {
                let segment = self.create(record)?;
                self.segments.push_back(segment);
                self.rotate = false;
                Ok(())
            }
        }
    }

    fn create(&mut self, record: &[u8]) -> io::Result<Segment> {
        let (disk, dir) = (&*self.directory.disk, &self.directory.path);
        let mut created = Segment::create(disk, dir, self.next_id, self.next, record);
        if matches!(&created, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            self.next_id = Segment::list(disk, dir)?.taken.saturating_add(1);
            created = Segment::create(disk, dir, self.next_id, self.next, record);
        }
        let segment = created?;
        self.next_id = segment.id.saturating_add(1);
        Ok(segment)
    }

    /// Makes anew what somebody removed: what waits is read from the files that are
    /// still open.
    fn keep_in_place(&mut self) -> Result<(), SpoolError> {
        let in_place = self.directory.is_in_place();
        if !in_place {
            self.directory.make_anew()?;
            self.synced = State::default();
            self.write_state();
        }
        let (disk, dir) = (&*self.directory.disk, &self.directory.path);
        let is_removed = |segment: &Segment| disk.is_missing(&segment.path);
        let removed = self.segments.back().is_some_and(is_removed);
        if in_place && !removed {
            return Ok(());
        }
        tracing::warn!(dir = %dir.display(), "the spool's files were removed: they are made anew");
        for segment in self.segments.iter_mut().filter(|s| is_removed(s)) {
            if let Err(error) = segment.restore(disk, dir) {
                let path = segment.path.display();
                tracing::warn!(%error, %path, "reports wait in a file that was removed: after a restart they are lost");
            }
        }
        Ok(())
    }

    /// Where nothing waits, everything goes to make room for what comes; whether it
    /// has gone.
    fn give_room(&mut self) -> bool {
        if self.pending() > 0 || self.segments.is_empty() {
            return false;
        }
        while !self.segments.is_empty() {
            if let Err(error) = self.drop_oldest() {
                tracing::debug!(%error, "the spool cannot make room");
                return false;
            }
        }
        true
    }

    /// The next report that was not read since [`Self::rewind`], oldest first.  One
    /// that is damaged is given up.
    ///
    /// # Errors
    /// Where it cannot be read back now.
    pub fn read_next(&mut self) -> Result<Option<Pending>, SpoolError> {
        while let Some((at, index)) = self.next_kept() {
            let segment = &self.segments[at];
            let cursor = Cursor {
                segment: segment.id,
                index: index + 1,
            };
            match segment.read(index) {
                Ok(report) => {
                    let key = segment.key(index);
                    self.cursor = cursor;
                    return Ok(Some(Pending { key, report }));
                }
                Err(error) => {
                    self.cursor = cursor;
                    if !segment::is_damage(&error) && !self.can_read_on() {
                        self.rewind();
                        return Err(self.read_error(error));
                    }
                    self.lose(at, index);
                }
            }
        }
        Ok(None)
    }

    /// The segment and the record that the cursor stands before.
    fn next_kept(&self) -> Option<(usize, usize)> {
        let segments = self.segments.iter().enumerate();
        let mut next = segments.filter_map(|(at, segment)| {
            let from = match segment.id.cmp(&self.cursor.segment) {
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Equal => self.cursor.index,
                std::cmp::Ordering::Greater => 0,
            };
            Some((at, segment.next_kept(from)?))
        });
        next.next()
    }

    /// Whether the disk can be read but for what is before the cursor.
    fn can_read_on(&self) -> bool {
        let next = self.next_kept();
        next.is_some_and(|(at, index)| self.segments[at].read(index).is_ok())
    }

    /// Gives a report up that was read and cannot be delivered.
    pub fn discard(&mut self, key: ReportKey) {
        let segments = self.segments.iter().enumerate();
        let mut found = segments.filter_map(|(at, s)| Some((at, s.index_of(key)?)));
        if let Some((at, index)) = found.next() {
            self.lose(at, index);
        }
    }

    fn lose(&mut self, at: usize, index: usize) {
        let segment = &mut self.segments[at];
        if once_a_minute("a damaged report") {
            let ReportKey { epoch, sequence } = segment.key(index);
            let path = segment.path.display();
            tracing::warn!(epoch, sequence, %path, "a report in the spool is damaged: it is given up");
        }
        segment.lose(index);
        let damaged = &mut self.state.losses.damaged;
        *damaged = damaged.saturating_add(1);
        self.write_state();
    }

    /// Reading goes on at the first report that is not acknowledged.
    pub fn rewind(&mut self) {
        self.cursor = Cursor::default();
    }

    /// The report with this key needs not be kept.  Only the oldest one that is
    /// kept can be acknowledged; anything else changes nothing and gives false.
    pub fn acknowledge(&mut self, key: ReportKey, settled: Settled) -> bool {
        let Some(segment) = self.segments.iter_mut().find(|s| s.pending() > 0) else {
            return false;
        };
        if segment.front() != Some(key) {
            return false;
        }
        segment.settle_one();
        self.state.acked = key;
        let losses = &mut self.state.losses;
        match settled {
            Settled::Delivered => {}
            Settled::Rejected => losses.rejected = losses.rejected.saturating_add(1),
            Settled::Conflicting => losses.conflicting = losses.conflicting.saturating_add(1),
        }
        self.remove_acknowledged();
        self.write_state();
        true
    }

    /// Without it, what was acknowledged is sent again after a restart.
    fn write_state(&mut self) {
        self.state.pending = Some(self.pending());
        if let Err(error) = self.directory.write_state(self.state)
            && once_a_minute("the spool's state")
        {
            let dir = self.directory.path.display();
            tracing::warn!(%error, %dir, "the file `state` of the spool cannot be written");
        }
    }

    /// The same, durable.
    fn write_durable_state(&mut self) -> io::Result<()> {
        self.state.pending = Some(self.pending());
        self.directory.write_durable_state(self.state)?;
        self.synced = self.state;
        Ok(())
    }

    /// So much was told by a report, whatever is known of it here.
    pub fn was_told(&mut self, told: Losses) {
        self.state.losses = self.state.losses.max(told);
        self.state.told = self.state.told.max(told);
        self.write_state();
    }

    /// How many reports wait for their acknowledgement.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.segments.iter().map(Segment::pending).sum()
    }

    /// How many bytes the files hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// What was lost since the spool was made.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.state.losses
    }

    /// How much of it reports have told.
    #[must_use]
    pub fn told(&self) -> Losses {
        self.state.told
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
                if once_a_minute("removing a file of the spool") {
                    tracing::warn!(%error, %path, "a file of the spool cannot be removed");
                }
                return;
            }
        }
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.segments.front_mut() else {
            return Ok(());
        };
        let last = oldest.last();
        let dropped = &mut self.state.losses.dropped;
        *dropped = dropped.saturating_add(oldest.pending());
        self.state.acked = self.state.acked.max(last);
        oldest.settle_up_to(last);
        // It goes only after what says that it went, or it would be missing.  Where the
        // disk has that, as where it could not be removed the last time, no sync waits.
        let is_told = self.synced.acked >= last && self.synced.losses == self.state.losses;
        if !is_told {
            self.write_durable_state()?;
        }
        let oldest = &self.segments[0];
        match self.directory.disk.remove(&oldest.path) {
            // Somebody was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.segments.pop_front();
        Ok(())
    }

    fn write_error(&self) -> impl Fn(io::Error) -> SpoolError {
        let dir = self.directory.path.clone();
        move |source| SpoolError::Write {
            dir: dir.clone(),
            source,
        }
    }

    fn read_error(&self, source: io::Error) -> SpoolError {
        let dir = self.directory.path.clone();
        SpoolError::Read { dir, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests;
