//! What a spool does at its start: it finds what an earlier agent left.

use monitor_proto::ReportKey;
use std::{fs, io, path::Path};

use super::{
    Cursor, Recovered, Spool, SpoolError,
    directory::Directory,
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
        let (directory, found) = Directory::open(dir)?;
        let mut spool = Self {
            directory,
            state: found.unwrap_or_default(),
            bytes_max,
            segments: Default::default(),
            next: ReportKey::default(),
            next_id: 1,
            rotate: true,
            cursor: Cursor::default(),
            dropped: 0,
            lost: 0,
        };
        let mut recovered = spool.scan().map_err(SpoolError::open(dir))?;
        let last = spool.segments.back().map(Segment::last).unwrap_or_default();
        if found.is_some() {
            spool.lost += spool.missing();
        }
        recovered.newest = last.max(spool.state.newest.unwrap_or_default());
        recovered.is_uncertain = found.is_none() && recovered.damaged;
        // An acknowledged report that is not there was lost after it was sent.
        recovered.damaged |= found.is_none() && last != ReportKey::default();
        recovered.damaged |= spool.state.acked > last || recovered.newest > last;
        recovered.damaged |= spool.lost > 0;
        for segment in &mut spool.segments {
            segment.settle_up_to(spool.state.acked);
        }
        spool.state.newest = Some(recovered.newest);
        spool.next = ReportKey {
            sequence: last.sequence + 1,
            ..last
        };
        let nothing_was_sent = recovered.newest == ReportKey::default();
        // An epoch that has begun and left no report may have lost them.
        let has_lost = last.epoch != spool.state.epoch && !nothing_was_sent;
        if recovered.damaged || found.is_none() || has_lost {
            spool.begin_epoch(now_unix_ms, last)?;
        } else if nothing_was_sent {
            let epoch = spool.state.epoch;
            spool.next = ReportKey { epoch, sequence: 1 };
        } else {
            spool.rotate = false;
        }
        spool.remove_acknowledged();
        Ok((spool, recovered))
    }

    fn scan(&mut self) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        let listed = Segment::list(&self.directory.path)?;
        self.next_id = listed.taken.saturating_add(1);
        for id in listed.ids {
            let scanned = self.scan_one(id);
            recovered.damaged |= scanned.damaged;
            self.lost += scanned.lost;
            if let Some(segment) = scanned.segment {
                if scanned.baseline_key != ReportKey::default() {
                    recovered.baseline = scanned.baseline;
                    recovered.baseline_key = scanned.baseline_key;
                }
                self.segments.push_back(segment);
            }
        }
        Ok(recovered)
    }

    /// What is no segment goes; what cannot be read stays, and counts as missing.
    fn scan_one(&self, id: u64) -> Scanned {
        let dir = &self.directory.path;
        let scanned = Segment::scan(dir, id).and_then(|scanned| {
            if scanned.segment.is_none() {
                fs::remove_file(Segment::path(dir, id))?;
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

    /// How many reports were neither acknowledged nor are there, as far as their
    /// numbers tell.
    fn missing(&self) -> u64 {
        let mut settled = self.state.acked;
        let mut missing = 0;
        for segment in &self.segments {
            missing += between(settled, segment.first).saturating_sub(1);
            settled = settled.max(segment.last());
        }
        // Of one that this spool did not make nobody knows what became of those before.
        let newest = self
            .state
            .newest
            .filter(|key| key.epoch == self.state.epoch);
        missing + between(settled, newest.unwrap_or_default())
    }
}

/// How many reports came after the one, up to and including the other.
fn between(one: ReportKey, other: ReportKey) -> u64 {
    if one.epoch == other.epoch {
        other.sequence.saturating_sub(one.sequence)
    } else if other.epoch > one.epoch {
        other.sequence
    } else {
        0
    }
}
