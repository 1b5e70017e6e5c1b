//! `/proc/diskstats`, and the root filesystem as `df` has it.

use std::path::Path;

use monitor_proto::v1;

/// How many devices are read at the most.
pub const DISKS_MAX: usize = 256;

/// The unit of `/proc/diskstats`, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// Device names are shorter than the kernel's `DISK_NAME_LEN`.
const NAME_BYTES_MAX: usize = 31;

/// Reads the counters since boot of every device that was ever used, ordered by
/// name.
#[must_use]
pub fn parse(text: &str) -> Vec<v1::Disk> {
    let used = |d: &v1::Disk| d.reads > 0 || d.writes > 0;
    let mut disks: Vec<_> = text
        .lines()
        .filter_map(disk)
        .filter(used)
        .take(DISKS_MAX)
        .collect();
    disks.sort_by(|a, b| a.device.cmp(&b.device));
    disks
}

fn disk(line: &str) -> Option<v1::Disk> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let device = fields.next().filter(|n| n.len() <= NAME_BYTES_MAX)?;
    let mut n = [0u64; 10];
    for value in &mut n {
        *value = fields.next()?.parse().ok()?;
    }
    Some(v1::Disk {
        device: device.to_owned(),
        reads: n[0],
        read_bytes: n[2].saturating_mul(SECTOR_BYTES),
        writes: n[4],
        written_bytes: n[6].saturating_mul(SECTOR_BYTES),
        io_time_ms: n[9],
    })
}

/// What came on top per device; one that is new counts from nothing.
#[must_use]
pub fn since(earlier: &[v1::Disk], later: &[v1::Disk]) -> Vec<v1::Disk> {
    let delta = |now: &v1::Disk| {
        let found = earlier.binary_search_by(|e| e.device.cmp(&now.device));
        let zero = v1::Disk::default();
        let mut before = found.map_or(&zero, |i| &earlier[i]);
        if now.reads < before.reads || now.writes < before.writes {
            before = &zero;
        }
        v1::Disk {
            device: now.device.clone(),
            read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
            written_bytes: now.written_bytes.saturating_sub(before.written_bytes),
            reads: now.reads.saturating_sub(before.reads),
            writes: now.writes.saturating_sub(before.writes),
            io_time_ms: now.io_time_ms.saturating_sub(before.io_time_ms),
        }
    };
    later.iter().map(delta).collect()
}

/// Percent used of a filesystem, as `df` has it: of what an ordinary user can
/// have, so blocks reserved for root count neither as used nor as free.
#[must_use]
pub fn usage_percent(path: &Path) -> Option<f64> {
    let fs = rustix::fs::statvfs(path).ok()?;
    share_percent(fs.f_blocks.saturating_sub(fs.f_bfree), fs.f_bavail)
}

fn share_percent(used: u64, available: u64) -> Option<f64> {
    let (used, available) = (used as f64, available as f64);
    let all = used + available;
    (all > 0.0).then(|| 100.0 * used / all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
        254       0 vda 87415 25736 8206082 96568 15540 33661 6308576 17599 0 24952 114687 5230 37 789264 473 1371 45\n";

    #[test]
    fn devices_that_were_used_are_read() {
        let disks = parse(TEXT);
        assert_eq!(disks.len(), 1);
        let vda = &disks[0];
        assert_eq!(
            (vda.reads, vda.writes, vda.io_time_ms),
            (87_415, 15_540, 24_952)
        );
        assert_eq!(vda.read_bytes, 8_206_082 * 512);
        assert_eq!(since(&disks, &disks)[0].reads, 0);
        assert_eq!(since(&[], &disks), disks);
    }

    #[test]
    fn reserved_blocks_are_neither_used_nor_free() {
        assert_eq!(share_percent(30, 60), Some(100.0 * 30.0 / 90.0));
        assert_eq!(share_percent(0, 0), None);
    }

    #[test]
    fn the_root_filesystem_has_a_usage() {
        let usage = usage_percent(Path::new("/")).unwrap();
        assert!((0.0..=100.0).contains(&usage));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "( {0,3}[0-9]{1,3} [0-9] [a-z0-9]{0,34}( [0-9]{0,21}){9,12}\n){0,9}") {
            let disks = parse(&text);
            prop_assert_eq!(since(&[], &disks), disks);
        }
    }
}
