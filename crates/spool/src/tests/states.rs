//! States that disks, operators and backups leave a spool in.

use std::os::unix::fs::FileExt;

use super::*;

/// Changes bytes of a file that an agent has open.
fn scribble(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"\xff\x00\xff", at).unwrap();
}

/// Where the record of the n-th of these reports begins.
fn offset(n: u64) -> u64 {
    let record = |n| record::encode(n, &body(n), &n.to_le_bytes()).unwrap();
    let before: usize = (1..n).map(|n| record(n).len()).sum();
    record::HEADER_BYTES + before as u64
}

fn sequences(pending: &[Pending]) -> Vec<u64> {
    pending.iter().map(|p| p.key.sequence).collect()
}

#[test]
fn a_report_that_is_damaged_while_the_agent_runs_is_the_only_one_that_is_lost() {
    let (dir, keys) = filled(5);
    let (mut spool, _) = open(dir.path(), MIB);
    scribble(&Segment::path(dir.path(), 1), offset(3) + 30);
    assert_eq!(sequences(&drain(&mut spool)), [1, 2, 4, 5]);
    assert_eq!((spool.pending(), spool.losses().damaged), (4, 1));
    for key in [keys[0], keys[1], keys[3]] {
        assert!(spool.acknowledge(key, Settled::Delivered));
    }
    assert_eq!(spool.append(b"next", b"").unwrap().sequence, 6);
    drop(spool);
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert!(!recovered.damaged, "it was mended");
    assert_eq!(spool.losses().damaged, 1, "and counted once");
    assert_eq!(sequences(&drain(&mut spool)), [5, 6]);
}

#[test]
fn damage_that_hides_a_record_s_length_hides_no_other_from_the_running_agent() {
    let (dir, _) = filled(5);
    let (mut spool, _) = open(dir.path(), MIB);
    scribble(&Segment::path(dir.path(), 1), offset(1));
    scribble(&Segment::path(dir.path(), 1), offset(5));
    assert_eq!(sequences(&drain(&mut spool)), [2, 3, 4]);
    assert_eq!((spool.pending(), spool.losses().damaged), (3, 2));
    drop(spool);
    let (spool, recovered) = open(dir.path(), MIB);
    assert_eq!(recovered.newest.sequence, 5);
    assert_eq!(recovered.baseline_key.sequence, 4, "the last one is gone");
    assert_eq!(spool.pending(), 3);
}

#[test]
fn damage_is_told_until_a_report_is_made_whatever_happens_to_the_agents() {
    let (dir, _) = filled(5);
    scribble(&Segment::path(dir.path(), 1), offset(2) + 30);
    for agent in 1..=3 {
        let (_, recovered) = open(dir.path(), MIB);
        assert!(recovered.damaged, "agent {agent} has made no report");
    }
    let (mut spool, _) = open(dir.path(), MIB);
    spool.append(b"it tells", b"").unwrap();
    drop(spool);
    let (_, recovered) = open(dir.path(), MIB);
    assert!(!recovered.damaged, "it was told");
}

#[test]
fn a_start_skips_a_damaged_record_and_counts_it() {
    let (dir, _) = filled(5);
    scribble(&Segment::path(dir.path(), 1), offset(2) + 30);
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert!(recovered.damaged);
    assert_eq!(recovered.baseline_key, recovered.newest);
    assert_eq!(spool.losses().damaged, 1);
    assert_eq!(sequences(&drain(&mut spool)), [1, 3, 4, 5]);
}

#[test]
fn records_that_are_cut_off_or_removed_are_counted_and_their_baseline_is_known_to_be_gone() {
    let (dir, keys) = filled(5);
    let (mut spool, _) = open(dir.path(), MIB);
    assert!(spool.acknowledge(keys[0], Settled::Delivered));
    drop(spool);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(Segment::path(dir.path(), 1))
        .unwrap();
    file.set_len(offset(4) + 3).unwrap();
    let (spool, recovered) = open(dir.path(), MIB);
    assert_eq!(spool.losses().damaged, 2);
    assert_eq!(
        (recovered.baseline_key, recovered.newest),
        (keys[2], keys[4])
    );

    let (dir, keys) = filled(5);
    fs::remove_file(Segment::path(dir.path(), 1)).unwrap();
    let (spool, recovered) = open(dir.path(), MIB);
    assert_eq!(recovered.baseline_key, ReportKey::default());
    assert_eq!((recovered.newest, spool.losses().damaged), (keys[4], 5));
}

#[test]
fn a_segment_that_is_missing_between_others_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path(), 64 << 10);
    let report = vec![1; 6_000];
    let keys: Vec<_> = (0..8)
        .map(|_| spool.append(&report, b"baseline").unwrap())
        .collect();
    drop(spool);
    let found = ids(dir.path());
    assert_eq!(found.len(), 4);
    for id in [found[0], found[2]] {
        fs::remove_file(Segment::path(dir.path(), id)).unwrap();
    }
    let (mut spool, recovered) = open(dir.path(), 64 << 10);
    assert_eq!(spool.losses().damaged, 4);
    assert!(recovered.damaged);
    assert_eq!(
        (recovered.baseline_key, recovered.newest),
        (keys[7], keys[7])
    );
    assert_eq!(sequences(&drain(&mut spool)), [3, 4, 7, 8]);
}

/// Nobody told of it meanwhile, as where the agent is killed at each start.
#[test]
fn what_is_missing_is_counted_once_and_known_until_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path(), 64 << 10);
    for _ in 0..8 {
        spool.append(&vec![1; 6_000], b"baseline").unwrap();
    }
    drop(spool);
    fs::remove_file(Segment::path(dir.path(), ids(dir.path())[1])).unwrap();
    for _ in 0..3 {
        let (spool, _) = open(dir.path(), 64 << 10);
        assert_eq!((spool.losses().damaged, spool.told().damaged), (2, 0));
    }
    let (mut spool, _) = open(dir.path(), 64 << 10);
    spool.append(b"report", b"baseline").unwrap();
    assert_eq!((spool.losses().damaged, spool.told().damaged), (2, 2));
}

#[test]
fn losses_that_no_report_told_of_outlive_the_agent() {
    let (dir, keys) = filled(4);
    let (mut spool, _) = open(dir.path(), MIB);
    assert!(spool.acknowledge(keys[0], Settled::Rejected));
    assert!(spool.acknowledge(keys[1], Settled::Conflicting));
    spool.discard(keys[2]);
    drop(spool);
    let (mut spool, recovered) = open(dir.path(), 8 << 10);
    assert!(!recovered.damaged);
    for _ in 0..20 {
        spool.append(&[1; 1_000], b"").unwrap();
    }
    let losses = spool.losses();
    assert_eq!(
        (losses.rejected, losses.conflicting, losses.damaged),
        (1, 1, 1)
    );
    assert!(losses.dropped > 0);
    drop(spool);
    let (spool, _) = open(dir.path(), 8 << 10);
    assert_eq!(spool.losses(), losses);
    assert!(spool.told().dropped <= losses.dropped);
}

/// Of what it had nothing is known, which is not that nothing was lost.
#[test]
fn a_damaged_state_is_damage_wherever_it_is_and_whatever_else_is_there() {
    for reports in [0, 3] {
        for at in [0, 40, 50, 80, record::STATE_BYTES - 1] {
            let (dir, _) = filled(reports);
            scribble(&dir.path().join("state"), at as u64);
            let (mut spool, recovered) = open(dir.path(), MIB);
            assert!(recovered.damaged, "{reports} reports, at {at}");
            assert!(spool.next_key().sequence == 1);
            spool.append(b"it tells", b"").unwrap();
            drop(spool);
            assert!(!open(dir.path(), MIB).1.damaged, "told once");
        }
    }
}

#[test]
fn what_only_looks_like_a_segment_keeps_nobody_from_starting() {
    let (dir, _) = filled(2);
    let foreign = [
        "00000000000000000002.seg",
        "00000000000000000007.seg",
        "3.seg",
        "x.seg",
        "18446744073709551615.seg",
    ];
    for name in foreign {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("4.seg"), "mine").unwrap();
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert!(!recovered.damaged);
    let large = vec![1; (MIB / 4) as usize];
    assert_eq!(spool.append(&large, b"").unwrap().sequence, 3);
    assert_eq!(ids(dir.path()), [1, 8]);
    // One that comes while the agent runs is gone round, too.
    fs::create_dir(Segment::path(dir.path(), 9)).unwrap();
    assert_eq!(spool.append(&large, b"").unwrap().sequence, 4);
    assert_eq!(ids(dir.path()), [1, 8, 10]);
    assert_eq!(sequences(&drain(&mut spool)), [1, 2, 3, 4]);
    assert_eq!(fs::read(dir.path().join("4.seg")).unwrap(), b"mine");
}

#[test]
fn a_spool_that_is_removed_under_a_running_agent_is_made_anew_and_loses_nothing() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    assert!(spool.acknowledge(keys[0], Settled::Delivered));
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(spool.append(&body(4), b"baseline").unwrap().sequence, 4);
    // Whoever comes finds it locked, and after the agent everything that waited.
    let second = Spool::open(dir.path(), MIB, NOW);
    assert!(matches!(second, Err(SpoolError::Locked(_))));
    drop(spool);
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert!(!recovered.damaged);
    assert_eq!(recovered.baseline, b"baseline");
    let kept = drain(&mut spool);
    assert_eq!(sequences(&kept), [2, 3, 4]);
    assert_eq!(kept[0].report, body(2));
}

#[test]
fn a_segment_that_is_cut_under_a_running_agent_is_not_appended_to() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    let file = Segment::path(dir.path(), 1);
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(offset(3)).unwrap();
    assert_eq!(spool.append(&body(4), b"baseline").unwrap().sequence, 4);
    assert_eq!(sequences(&drain(&mut spool)), [1, 2, 4]);
    assert_eq!(spool.losses().damaged, 1);
    for key in &keys[..2] {
        assert!(spool.acknowledge(*key, Settled::Delivered));
    }
    assert_eq!(spool.pending(), 1);
    drop(spool);
    let (spool, recovered) = open(dir.path(), MIB);
    assert_eq!(recovered.baseline, b"baseline");
    assert_eq!((spool.pending(), spool.losses().damaged), (1, 1));
}

#[test]
fn a_report_that_is_no_report_is_given_up_and_counted() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    assert_eq!(spool.read_next().unwrap().unwrap().key, keys[0]);
    spool.discard(keys[0]);
    assert_eq!((spool.pending(), spool.losses().damaged), (2, 1));
    assert_eq!(spool.read_next().unwrap().unwrap().key, keys[1]);
    assert!(spool.acknowledge(keys[1], Settled::Delivered));
}

#[test]
fn acknowledgements_that_cannot_be_read_cost_duplicates_alone() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    assert!(spool.acknowledge(keys[0], Settled::Delivered));
    drop(spool);
    fs::write(dir.path().join("state"), b"nonsense").unwrap();
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert_eq!(
        (recovered.baseline_key, recovered.newest),
        (keys[2], keys[2])
    );
    assert!(spool.next_key().epoch > keys[2].epoch);
    assert_eq!((drain(&mut spool).len(), spool.losses().damaged), (3, 0));
}

/// As where the agent is killed before its first report.
#[test]
fn an_epoch_that_nothing_was_reported_in_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), MIB);
    drop(spool);
    let (mut spool, recovered) = Spool::open(dir.path(), MIB, NOW + 7).unwrap();
    assert_eq!(
        (recovered.damaged, recovered.newest),
        (false, ReportKey::default())
    );
    let first = spool.append(b"report", b"").unwrap();
    assert_eq!((first.epoch, first.sequence), (NOW, 1));
}

/// As where the agent is rolled back, and upgraded again.
#[test]
fn the_state_of_an_agent_before_this_one_over_this_one_s_is_no_damage() {
    let (dir, keys) = filled(3);
    for numbers in [3, 5] {
        let newest = keys[2];
        let state = [newest.epoch, 0, 0, newest.epoch, newest.sequence];
        let bytes = state[..numbers].iter().flat_map(|n| n.to_le_bytes());
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let path = dir.path().join("state");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), record::STATE_BYTES as u64);
        let (spool, recovered) = open(dir.path(), MIB);
        assert!(!recovered.damaged);
        assert_eq!((spool.pending(), spool.next_key().sequence), (3, 4));
    }
}

#[test]
fn no_number_on_the_disk_is_too_large_to_be_counted_on() {
    let (dir, _) = filled(4);
    let losses = Losses::from_reasons(|_| Some(u64::MAX));
    let key = |sequence| ReportKey {
        epoch: NOW,
        sequence,
    };
    let state = record::encode_state(State {
        epoch: NOW,
        acked: ReportKey::default(),
        newest: Some(key(1)),
        pending: Some(u64::MAX),
        losses,
        told: losses,
        untold_damage: false,
    });
    fs::write(dir.path().join("state"), state).unwrap();
    let (mut spool, _) = open(dir.path(), 8 << 10);
    let oldest = spool.read_next().unwrap().unwrap().key;
    spool.discard(oldest);
    for settled in [Settled::Rejected, Settled::Conflicting] {
        spool.rewind();
        let oldest = spool.read_next().unwrap().unwrap().key;
        assert!(spool.acknowledge(oldest, settled));
    }
    for _ in 0..20 {
        spool.append(&[1; 1_000], b"").unwrap();
    }
    assert_eq!(spool.losses(), losses);

    // A last sequence is followed by another epoch.
    let dir = tempfile::tempdir().unwrap();
    let mut segment = record::encode_header(key(u64::MAX));
    segment.extend(record::encode(u64::MAX, &body(1), b"baseline").unwrap());
    fs::write(Segment::path(dir.path(), 1), segment).unwrap();
    let state = record::encode_state(State {
        epoch: NOW,
        newest: Some(key(u64::MAX)),
        pending: Some(1),
        ..State::default()
    });
    fs::write(dir.path().join("state"), state).unwrap();
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert!(!recovered.damaged);
    assert_eq!(sequences(&drain(&mut spool)), [u64::MAX]);
    let next = spool.next_key();
    assert!(next.epoch > NOW && next.sequence == 1);
}
