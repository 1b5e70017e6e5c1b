mod states;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const NOW: u64 = 1_763_860_000_123;
const MIB: u64 = 1 << 20;

fn open(dir: &Path, bytes_max: u64) -> (Spool, Recovered) {
    Spool::open(dir, bytes_max, NOW).unwrap()
}

fn filled(reports: u64) -> (TempDir, Vec<ReportKey>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path(), MIB);
    let append = |n: u64| spool.append(&body(n), &n.to_le_bytes()).unwrap();
    let keys = (1..=reports).map(append).collect();
    (dir, keys)
}

fn body(n: u64) -> Vec<u8> {
    format!("report {n}").into_bytes()
}

fn ids(dir: &Path) -> Vec<u64> {
    Segment::list(&disk::SystemDisk, dir).unwrap().ids
}

fn drain(spool: &mut Spool) -> Vec<Pending> {
    std::iter::from_fn(|| spool.read_next().unwrap()).collect()
}

#[test]
fn reports_come_back_in_order_until_they_are_acknowledged() {
    let (dir, keys) = filled(3);
    let (mut spool, recovered) = open(dir.path(), MIB);
    assert_eq!(recovered.baseline, 3u64.to_le_bytes());
    assert!(!recovered.damaged);
    let read: Vec<_> = drain(&mut spool).into_iter().map(|p| p.key).collect();
    assert_eq!(read, keys);
    assert!(spool.acknowledge(keys[0], Settled::Delivered));
    spool.rewind();
    assert_eq!(spool.read_next().unwrap().unwrap().key, keys[1]);
    assert_eq!(spool.pending(), 2);
}

#[test]
fn epoch_sequence_and_baseline_survive_even_when_everything_is_acknowledged() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    for key in &keys {
        assert!(spool.acknowledge(*key, Settled::Delivered));
    }
    drop(spool);
    let (mut spool, recovered) = Spool::open(dir.path(), MIB, NOW + 5_000).unwrap();
    assert_eq!(recovered.baseline, 3u64.to_le_bytes());
    assert_eq!(
        spool.next_key(),
        ReportKey {
            epoch: NOW,
            sequence: 4
        }
    );
    assert_eq!(drain(&mut spool), []);
}

#[test]
fn only_the_oldest_report_can_be_acknowledged() {
    let (dir, keys) = filled(3);
    let (mut spool, _) = open(dir.path(), MIB);
    let foreign = ReportKey {
        epoch: 1,
        sequence: 1,
    };
    for key in [keys[1], keys[2], foreign] {
        assert!(!spool.acknowledge(key, Settled::Delivered));
    }
    assert_eq!(spool.pending(), 3);
}

#[test]
fn a_directory_serves_one_agent() {
    let (dir, _) = filled(1);
    let (_spool, _) = open(dir.path(), MIB);
    let second = Spool::open(dir.path(), MIB, NOW);
    assert!(matches!(second, Err(SpoolError::Locked(_))));
}

#[test]
fn the_oldest_reports_make_room_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 64 << 10;
    let (mut spool, _) = open(dir.path(), bytes_max);
    let mut report = vec![7; 3_000];
    for n in 0..100u64 {
        report[..8].copy_from_slice(&n.to_le_bytes());
        spool.append(&report, b"b").unwrap();
        assert!(spool.bytes() <= bytes_max);
    }
    let kept = drain(&mut spool);
    assert_eq!(kept.len() as u64 + spool.losses().dropped, 100);
    assert_eq!(kept.last().unwrap().key.sequence, 100);
    assert!(kept.len() > 10, "most of the room is used");
    let on_disk: u64 = ids(dir.path())
        .iter()
        .map(|id| fs::metadata(Segment::path(dir.path(), *id)).unwrap().len())
        .sum();
    assert_eq!(on_disk, spool.bytes());
}

#[test]
fn a_report_that_is_dropped_in_flight_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path(), 8 << 10);
    let first = spool.append(&[1; 1_000], b"").unwrap();
    assert_eq!(spool.read_next().unwrap().unwrap().key, first);
    for _ in 0..20 {
        spool.append(&[1; 1_000], b"").unwrap();
    }
    assert!(!spool.acknowledge(first, Settled::Delivered));
    let next = spool.read_next().unwrap().unwrap().key;
    assert_eq!(next.sequence, spool.losses().dropped + 1);
    assert!(spool.acknowledge(next, Settled::Delivered));
}

#[test]
fn a_report_larger_than_a_record_changes_nothing() {
    let (dir, _) = filled(1);
    let (mut spool, _) = open(dir.path(), MIB);
    let huge = vec![0; record::PAYLOAD_BYTES_MAX];
    assert!(matches!(
        spool.append(&huge, b""),
        Err(SpoolError::TooLarge(_))
    ));
    assert_eq!(spool.append(b"next", b"").unwrap().sequence, 2);
}

#[test]
fn a_disk_that_refuses_changes_nothing() {
    let (dir, _) = filled(2);
    let (mut spool, _) = open(dir.path(), MIB);
    // Nothing can be made where a file is in the place of the directory.
    let elsewhere = dir.path().with_extension("elsewhere");
    fs::rename(dir.path(), &elsewhere).unwrap();
    fs::write(dir.path(), "no directory").unwrap();
    for _ in 0..2 {
        let refused = spool.append(b"report", b"baseline").unwrap_err();
        let told = daemon::error_chain(&refused);
        assert!(told.contains("remove what is in its place"), "{told}");
        assert_eq!((spool.next_key().sequence, spool.pending()), (3, 2));
    }
    assert_eq!(spool.losses().dropped, 0, "no report is given up for it");
    fs::remove_file(dir.path()).unwrap();
    fs::rename(&elsewhere, dir.path()).unwrap();
    assert_eq!(spool.append(b"report", b"baseline").unwrap().sequence, 3);
    assert_eq!(drain(&mut spool).len(), 3);
}

/// Whatever becomes of older files: a report that was made durable has its key
/// for good, and the bound and acknowledgements go on.
#[test]
fn segments_that_somebody_removes_or_holds_give_no_key_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path(), 8 << 10);
    let mut keys = BTreeSet::new();
    let mut append = |spool: &mut Spool| {
        let key = spool.append(&[1; 1_000], b"baseline").unwrap();
        assert!(keys.insert(key), "{key:?} is given out again");
    };
    (0..6).for_each(|_| append(&mut spool));
    for id in ids(dir.path()) {
        fs::remove_file(Segment::path(dir.path(), id)).unwrap();
    }
    for _ in 0..20 {
        append(&mut spool);
        assert!(spool.bytes() <= 8 << 10, "the bound holds");
    }
    // What is no file cannot be removed as one.
    let oldest = spool.segments[0].path.clone();
    fs::remove_file(&oldest).unwrap();
    fs::create_dir(&oldest).unwrap();
    (0..6).for_each(|_| append(&mut spool));
    assert!(spool.bytes() > 8 << 10, "it is held");
    while spool.segments.len() > 1 && spool.segments[0].pending() > 0 {
        let front = spool.segments[0].front().unwrap();
        assert!(spool.acknowledge(front, Settled::Delivered));
    }
    fs::remove_dir(&oldest).unwrap();
    append(&mut spool);
    assert!(spool.bytes() <= 8 << 10);
    let pending = spool.pending();
    assert_eq!(drain(&mut spool).len() as u64, pending);
}

#[test]
fn an_acknowledged_report_that_vanished_begins_an_epoch() {
    let (dir, keys) = filled(2);
    let (mut spool, _) = open(dir.path(), MIB);
    keys.iter()
        .for_each(|k| assert!(spool.acknowledge(*k, Settled::Delivered)));
    drop(spool);
    fs::remove_file(Segment::path(dir.path(), 1)).unwrap();
    let (spool, recovered) = open(dir.path(), MIB);
    assert!(recovered.damaged && recovered.baseline.is_empty());
    assert_eq!(
        spool.next_key(),
        ReportKey {
            epoch: NOW + 1,
            sequence: 1
        }
    );
}

/// Cut anywhere, what is whole before the cut is kept, and no key is given out
/// again for another body.
#[test]
fn truncation_at_every_byte_keeps_the_whole_records_before_it() {
    let (dir, keys) = filled(4);
    let file = Segment::path(dir.path(), 1);
    let state = dir.path().join("state");
    let (whole, whole_state) = (fs::read(&file).unwrap(), fs::read(&state).unwrap());
    for length in 0..whole.len() {
        fs::write(&state, &whole_state).unwrap();
        fs::write(&file, &whole[..length]).unwrap();
        let (mut spool, recovered) = open(dir.path(), MIB);
        let kept: Vec<_> = drain(&mut spool).into_iter().map(|p| p.key).collect();
        assert_eq!(kept, keys[..kept.len()], "cut at {length}");
        let on_a_boundary = !recovered.damaged;
        if on_a_boundary {
            // As if the process had ended before the next append.
            assert_eq!(spool.next_key(), keys[kept.len()], "cut at {length}");
        } else {
            assert!(!keys.contains(&spool.next_key()), "cut at {length}");
        }
        if let Some(last) = kept.last() {
            assert_eq!(recovered.baseline, last.sequence.to_le_bytes());
        }
        let key = spool.append(b"after", b"baseline").unwrap();
        drop(spool);
        let (mut again, after) = open(dir.path(), MIB);
        assert!(!after.damaged, "cut at {length}: mended once");
        assert_eq!(drain(&mut again).last().unwrap().key, key);
        drop(again);
        for id in ids(dir.path()) {
            fs::remove_file(Segment::path(dir.path(), id)).unwrap();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    AcknowledgeOldest,
    Read,
    Rewind,
    Reopen,
    Flip(prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..900).prop_map(Step::Append),
        4 => Just(Step::AcknowledgeOldest),
        3 => Just(Step::Read),
        1 => Just(Step::Rewind),
        1 => Just(Step::Reopen),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(file, at)| Step::Flip(file, at)),
    ]
}

/// Changes one byte of one file, as a bad disk does, while nobody has it open.
fn flip(dir: &Path, file: prop::sample::Index, at: prop::sample::Index) {
    let ids = ids(dir);
    if ids.is_empty() {
        return;
    }
    let path = Segment::path(dir, ids[file.index(ids.len())]);
    let mut bytes = fs::read(&path).unwrap();
    let at = at.index(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: what is read is what was appended, keys are unique and
    /// grow, and without damage nothing is lost that was not counted.
    #[test]
    fn a_spool_loses_nothing_uncounted(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let bytes_max = 8 << 10;
        let (mut spool, _) = open(dir.path(), bytes_max);
        let mut bodies = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        let mut damaged = false;
        for (n, step) in (0u64..).zip(steps) {
            match step {
                Step::Append(length) => {
                    let mut body = vec![3; length];
                    body.extend(n.to_le_bytes());
                    let key = spool.append(&body, &n.to_le_bytes()).unwrap();
                    let newest = bodies.keys().next_back().is_none_or(|last| *last < key);
                    prop_assert!(newest, "{key:?}");
                    bodies.insert(key, body);
                    waiting.insert(key);
                }
                Step::AcknowledgeOldest => {
                    spool.rewind();
                    if let Ok(Some(oldest)) = spool.read_next() {
                        prop_assert!(spool.acknowledge(oldest.key, Settled::Delivered));
                        prop_assert!(waiting.remove(&oldest.key));
                    }
                }
                Step::Read => {
                    if let Ok(Some(pending)) = spool.read_next() {
                        prop_assert_eq!(Some(&pending.report), bodies.get(&pending.key));
                    }
                }
                Step::Rewind => spool.rewind(),
                Step::Reopen | Step::Flip(..) => {
                    drop(spool);
                    if let Step::Flip(file, at) = step {
                        flip(dir.path(), file, at);
                    }
                    let recovered;
                    (spool, recovered) = open(dir.path(), bytes_max);
                    damaged |= recovered.damaged;
                }
            }
        }
        spool.rewind();
        let kept = drain(&mut spool);
        prop_assert!(kept.iter().all(|p| bodies.get(&p.key) == Some(&p.report)));
        prop_assert!(kept.iter().all(|p| waiting.contains(&p.key) || damaged));
        if !damaged {
            let lost = waiting.len() - kept.len();
            prop_assert_eq!(lost as u64, spool.losses().dropped);
        }
    }
}
