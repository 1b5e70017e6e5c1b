//! What the spool asks of its disk.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use checkpoint::Checkpoint;
use disk::{Disk, DiskFile, Entry, Open, SystemDisk};

/// The system's disk, which removes no segment and counts.
#[derive(Clone, Debug, Default)]
struct WatchedDisk {
    syncs: Arc<AtomicU64>,
    opened: Arc<Mutex<Vec<Open>>>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn DiskFile>,
    syncs: Arc<AtomicU64>,
}

impl Disk for WatchedDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.make_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        SystemDisk.list(dir)
    }

    fn open(&self, path: &Path, which: Open) -> io::Result<Box<dyn DiskFile>> {
        self.opened.lock().unwrap().push(which);
        let file = SystemDisk.open(path, which)?;
        let syncs = Arc::clone(&self.syncs);
        Ok(Box::new(WatchedFile { file, syncs }))
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn is_missing(&self, path: &Path) -> bool {
        SystemDisk.is_missing(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }
}

impl DiskFile for WatchedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }

    fn lock(&self) -> io::Result<bool> {
        self.file.lock()
    }

    fn is_at(&self, path: &Path) -> bool {
        self.file.is_at(path)
    }
}

#[test]
fn acknowledgements_wait_for_no_sync_where_a_segment_cannot_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = WatchedDisk::default();
    let (mut spool, _) = Spool::open_on(Arc::new(disk.clone()), dir.path(), 64 << 10, NOW).unwrap();
    let report = vec![1; 6_000];
    let keys: Vec<_> = (0..8)
        .map(|_| spool.append(&report, b"baseline").unwrap())
        .collect();
    assert_eq!(ids(dir.path()).len(), 4);
    let syncs = || disk.syncs.load(Ordering::Relaxed);
    let before = syncs();
    for key in &keys {
        assert!(spool.acknowledge(*key, Settled::Delivered));
    }
    assert_eq!(syncs(), before + 1, "that the first segment may go");
    assert_eq!(ids(dir.path()).len(), 4);
    // What was told before still holds after a start, which removes them.
    drop(spool);
    let (spool, recovered) = open(dir.path(), 64 << 10);
    assert!(!recovered.damaged);
    assert_eq!(spool.losses(), Losses::default());
    assert_eq!((spool.pending(), ids(dir.path()).len()), (0, 1));
}

#[test]
fn a_checkpoint_is_read_without_the_right_to_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.checkpoint");
    let disk = WatchedDisk::default();
    let on = || Arc::new(disk.clone());
    let own = Checkpoint::on(on(), path.clone(), "boot", Path::new("/pins"));
    own.write(ReportKey::default(), b"baseline");
    disk.opened.lock().unwrap().clear();
    assert_eq!(own.read().unwrap().baseline, b"baseline");
    assert_eq!(*disk.opened.lock().unwrap(), [Open::Read]);
    let read = SystemDisk.open(&path, Open::Read).unwrap();
    assert!(read.write_all_at(b"x", 0).is_err());
    let missing = SystemDisk.open(&dir.path().join("other"), Open::Read);
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}
