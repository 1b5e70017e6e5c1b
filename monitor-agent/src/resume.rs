//! Where reporting goes on: after the newest report that is known of, be it from the
//! spool or from the checkpoint beside the counters.

use spool::{Losses, Recovered, Spool, SpoolError, checkpoint::Checkpoint};
use std::collections::BTreeSet;
use window::Baseline;

/// What the first window begins from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The totals that were reported last.
    pub baseline: Option<Baseline>,
    /// What was counted since before this may be in reports of which nothing is
    /// known any more: it is in the totals alone.
    pub reported_until_unix_ns: Option<u64>,
    /// What makes the first window incomplete.
    pub reasons: BTreeSet<String>,
}

impl Resume {
    /// Finds it, and begins an epoch where keys might be used twice, and with every
    /// boot: a spool that comes back from a backup has seen another one.
    ///
    /// # Errors
    /// Where the epoch cannot be made durable.
    pub fn find(
        spool: &mut Spool,
        recovered: Recovered,
        checkpoint: &Checkpoint,
        boot_id: &str,
        now_unix_ms: u64,
    ) -> Result<Self, SpoolError> {
        let mut reasons = BTreeSet::new();
        if recovered.damaged {
            reasons.insert("the spool was damaged".to_owned());
        }
        let (mut key, mut bytes) = (recovered.baseline_key, recovered.baseline);
        let mut newest = recovered.newest;
        let kept = checkpoint.read();
        let is_uncertain = recovered.is_uncertain && kept.is_none();
        match kept {
            Some(kept) if kept.key > key => {
                (key, bytes) = (kept.key, kept.baseline);
            }
            Some(kept) if kept.key == key => {}
            // An agent before was killed before it came to that.
            _ if bytes.is_empty() => {}
            _ => checkpoint.write(key, &bytes),
        }
        if key > newest {
            newest = key;
            spool.found_damaged();
            tracing::warn!(
                "the spool was emptied, or is an older copy of itself: a new epoch begins, after \
                 what was reported last"
            );
            reasons.insert(
                "the spool was emptied or replaced: reports that waited in it are lost".to_owned(),
            );
        }
        let told = Baseline::decode_spool_losses(&bytes);
        spool.was_told(Losses::from_reasons(|reason| told.get(reason).copied()));
        let baseline = Baseline::decode(&bytes);
        if baseline.is_none() && !bytes.is_empty() {
            reasons.insert("the totals reported before cannot be read".to_owned());
        }
        let another_boot = baseline.as_ref().is_some_and(|b| b.boot_id != boot_id);
        if newest > recovered.newest || another_boot {
            spool.begin_epoch(now_unix_ms, newest)?;
        }
        let begun_unix_ns = spool.next_key().epoch.saturating_mul(1_000_000);
        let unknown = is_uncertain || key < newest || baseline.is_none();
        Ok(Self {
            baseline,
            reported_until_unix_ns: unknown.then_some(begun_unix_ns),
            reasons,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use kernel_sample::Instant;
    use monitor_proto::ReportKey;

    const NOW: u64 = 1_763_860_000_123;

    fn baseline(boot_id: &str, requests: u64) -> Baseline {
        Baseline {
            boot_id: boot_id.to_owned(),
            window_end: Instant {
                unix_ns: requests,
                boot_ns: 0,
            },
            ..Baseline::default()
        }
    }

    fn spool(reports: u64) -> (TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path(), 1 << 20, NOW).unwrap();
        for n in 1..=reports {
            let baseline = baseline("b", n).encode();
            spool.append(b"report", &baseline).unwrap();
        }
        (dir, spool)
    }

    fn again(dir: &TempDir) -> (Spool, Recovered) {
        Spool::open(dir.path(), 1 << 20, NOW + 5).unwrap()
    }

    fn checkpoint(dir: &TempDir) -> Checkpoint {
        Checkpoint::of(dir.path().join("x.checkpoint"), "b", Path::new("/pins"))
    }

    /// What was reported last, if so many reports are missing in the spool.
    fn keep(checkpoint: &Checkpoint, spool: &Spool, ahead: u64) -> ReportKey {
        let mut key = spool.next_key();
        key.sequence = key.sequence + ahead - 1;
        checkpoint.write(key, &baseline("b", key.sequence).encode());
        key
    }

    #[test]
    fn a_spool_that_is_whole_goes_on_with_or_without_a_checkpoint() {
        for has_checkpoint in [true, false] {
            let (dir, before) = spool(3);
            let checkpoint = checkpoint(&dir);
            if has_checkpoint {
                keep(&checkpoint, &before, 0);
            }
            let next = before.next_key();
            drop(before);
            let (mut spool, recovered) = again(&dir);
            let resume = Resume::find(&mut spool, recovered, &checkpoint, "b", NOW).unwrap();
            assert!(checkpoint.read().is_some(), "it is there from now on");
            let expected = Resume {
                baseline: Some(baseline("b", 3)),
                ..Resume::default()
            };
            assert_eq!(resume, expected);
            assert_eq!(spool.next_key(), next);
        }
    }

    #[test]
    fn an_older_copy_of_a_spool_goes_on_after_what_was_reported_last() {
        let (dir, before) = spool(3);
        let checkpoint = checkpoint(&dir);
        let above = keep(&checkpoint, &before, 40).epoch;
        drop(before);
        let (mut spool, recovered) = again(&dir);
        let resume = Resume::find(&mut spool, recovered, &checkpoint, "b", NOW).unwrap();
        assert_eq!(resume.baseline, Some(baseline("b", 43)));
        assert_eq!(resume.reported_until_unix_ns, None);
        assert_eq!(resume.reasons.len(), 1);
        assert!(spool.next_key().epoch > above && spool.next_key().sequence == 1);
        assert_eq!(spool.pending(), 3, "what waits is sent all the same");
    }

    #[test]
    fn where_nothing_tells_what_was_reported_it_is_in_the_totals_alone() {
        let (dir, before) = spool(3);
        drop(before);
        std::fs::remove_dir_all(dir.path()).unwrap();
        let (mut spool, recovered) = again(&dir);
        let resume = Resume::find(&mut spool, recovered, &checkpoint(&dir), "b", NOW).unwrap();
        assert_eq!(resume.baseline, None);
        assert_eq!(resume.reported_until_unix_ns, Some((NOW + 5) * 1_000_000));
    }

    #[test]
    fn every_boot_has_an_epoch_of_its_own() {
        let (dir, before) = spool(3);
        let last = before.next_key();
        drop(before);
        let (mut spool, recovered) = again(&dir);
        let resume =
            Resume::find(&mut spool, recovered, &checkpoint(&dir), "another", NOW).unwrap();
        assert_eq!(resume.baseline, Some(baseline("b", 3)));
        assert_eq!(resume.reported_until_unix_ns, None);
        assert!(spool.next_key().epoch > last.epoch);
    }

    #[test]
    fn what_was_found_damaged_is_told() {
        let (dir, mut spool) = spool(0);
        let recovered = Recovered {
            baseline: b"no baseline".to_vec(),
            damaged: true,
            ..Recovered::default()
        };
        let resume = Resume::find(&mut spool, recovered, &checkpoint(&dir), "b", NOW).unwrap();
        let reasons: Vec<_> = resume.reasons.iter().map(String::as_str).collect();
        let expected = [
            "the spool was damaged",
            "the totals reported before cannot be read",
        ];
        assert_eq!(reasons, expected);
    }
}
