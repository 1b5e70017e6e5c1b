//! What a spool does at its start: it finds what an earlier agent left.

use monitor_proto::ReportKey;
use std::{io, path::Path, sync::Arc};

use super::{
    Cursor, Recovered, Spool, SpoolError,
    directory::{Directory, Found},
    disk::{Disk, SystemDisk},
    record::State,
    segment::{Scanned, Segment},
};

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
        Self::open_on(Arc::new(SystemDisk), dir, bytes_max, now_unix_ms)
    }

    /// The same on another disk.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        bytes_max: u64,
        now_unix_ms: u64,
    ) -> Result<(Self, Recovered), SpoolError> {
        let (directory, found) = Directory::open(disk, dir)?;
        let mut spool = Self {
            directory,
            state: match found {
                Found::Read(state) => state,
                Found::New | Found::Damaged => State::default(),
            },
            bytes_max,
            segments: Default::default(),
            next: ReportKey::default(),
            next_id: 1,
            rotate: true,
            cursor: Cursor::default(),
            synced: State::default(),
        };
        let is_known = matches!(found, Found::Read(_));
        let (mut recovered, damaged) = spool.scan().map_err(SpoolError::open(dir))?;
        let last = spool.segments.back().map(Segment::last).unwrap_or_default();
        recovered.newest = last.max(spool.state.newest.unwrap_or_default());
        recovered.is_uncertain = !is_known && recovered.damaged;
        // An acknowledged report that is not there was lost after it was sent.
        recovered.damaged |= !is_known && last != ReportKey::default();
        recovered.damaged |= matches!(found, Found::Damaged);
        recovered.damaged |= spool.state.acked > last || recovered.newest > last;
        for segment in &mut spool.segments {
            segment.settle_up_to(spool.state.acked);
        }
        let lost = spool.missing().unwrap_or(damaged);
        let known = &mut spool.state.losses.damaged;
        *known = known.saturating_add(lost);
        recovered.damaged |= lost > 0;
        spool.state.untold_damage |= recovered.damaged;
        spool.state.newest = Some(recovered.newest);
        spool.next = ReportKey {
            sequence: last.sequence.saturating_add(1),
            ..last
        };
        let nothing_was_sent = recovered.newest == ReportKey::default();
        // An epoch that has begun and left no report may have lost them.
        let has_lost = last.epoch != spool.state.epoch && !nothing_was_sent;
        let has_no_more = spool.next.sequence == u64::MAX;
        if recovered.damaged || !is_known || has_lost || has_no_more {
            spool.begin_epoch(now_unix_ms, last)?;
        } else if nothing_was_sent {
            let epoch = spool.state.epoch;
            spool.next = ReportKey { epoch, sequence: 1 };
        } else {
            spool.rotate = false;
        }
        spool.remove_acknowledged();
        // An agent before found it, and was killed before it reported.
        recovered.damaged |= spool.state.untold_damage;
        Ok((spool, recovered))
    }

    /// With how many records were found damaged.
    fn scan(&mut self) -> io::Result<(Recovered, u64)> {
        let mut recovered = Recovered::default();
        let mut damaged = 0;
        // A file that an agent made just before it was killed is not durable by itself.
        self.directory.sync()?;
        let listed = Segment::list(&*self.directory.disk, &self.directory.path)?;
        self.next_id = listed.taken.saturating_add(1);
        for id in listed.ids {
            let scanned = self.scan_one(id);
            recovered.damaged |= scanned.damaged;
            damaged += scanned.lost;
            if let Some(segment) = scanned.segment {
                if scanned.baseline_key != ReportKey::default() {
                    recovered.baseline = scanned.baseline;
                    recovered.baseline_key = scanned.baseline_key;
                }
                self.segments.push_back(segment);
            }
        }
        Ok((recovered, damaged))
    }

    /// What is no segment goes; what cannot be read stays, and counts as missing.
    fn scan_one(&self, id: u64) -> Scanned {
        let (disk, dir) = (&self.directory.disk, &self.directory.path);
        let scanned = Segment::scan(&**disk, dir, id).and_then(|scanned| {
            if scanned.segment.is_none() {
                disk.remove(&Segment::path(dir, id))?;
            }
            Ok(scanned)
        });
        scanned.unwrap_or_else(|error| {
            let path = Segment::path(dir, id);
            let path = path.display();
            tracing::warn!(%error, %path, "a file of the spool cannot be read: it is left out");
            Scanned {
                damaged: true,
                ..Scanned::default()
            }
        })
    }

    /// How many reports waited, or came behind those, and are not there; `None` where
    /// nothing tells how many waited.
    fn missing(&self) -> Option<u64> {
        let newest = self.state.newest?;
        let behind = self.segments.iter().map(|s| s.records_behind(newest));
        let waited = self.state.pending?.saturating_add(behind.sum());
        Some(waited.saturating_sub(self.pending()))
    }
}
