//! What the kernel counts per network namespace: connections that it turned away
//! before any process saw them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use monitor_proto::v1;

/// Reads the totals of a process's network namespace; `None` where the process is
/// gone or may not be looked at.
#[must_use]
pub fn read(proc: &Path, pid: u32) -> Option<v1::NetworkNamespace> {
    let process = proc.join(pid.to_string());
    let text = |name: &str| fs::read_to_string(process.join("net").join(name)).ok();
    let namespace = parse(&text("netstat")?, &text("snmp")?);
    Some(v1::NetworkNamespace {
        id: id(proc, &process)?,
        ..namespace
    })
}

/// The inode of the namespace.  Whose own it is takes `CAP_SYS_PTRACE` to read
/// for processes of others, but every namespace has files of its own below
/// `net`: where they are this process's, so is the namespace.
fn id(proc: &Path, process: &Path) -> Option<u64> {
    let inode = |path: &Path| fs::metadata(path).ok().map(|m| m.ino());
    inode(&process.join("ns/net")).or_else(|| {
        let own = proc.join("self");
        let theirs = inode(&process.join("net/snmp"))?;
        (inode(&own.join("net/snmp"))? == theirs).then(|| inode(&own.join("ns/net")))?
    })
}

/// Reads the totals in the texts of `netstat` and `snmp`.
fn parse(netstat: &str, snmp: &str) -> v1::NetworkNamespace {
    let ext = |name| value(netstat, "TcpExt: ", name);
    v1::NetworkNamespace {
        listen_overflows_total: ext("ListenOverflows"),
        listen_drops_total: ext("ListenDrops"),
        attempt_fails_total: value(snmp, "Tcp: ", "AttemptFails"),
        syncookies_failed_total: ext("SyncookiesFailed"),
        ..v1::NetworkNamespace::default()
    }
}

/// A value of a table whose names stand on the line above its values.
fn value(text: &str, table: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split(' ').position(|n| n == name)?;
    values.split(' ').nth(column)?.parse().ok()
}

/// What came on top per namespace.  One that is seen for the first time may be
/// as old as the machine, so nothing of it belongs to this window.
#[must_use]
pub fn since(
    earlier: &[v1::NetworkNamespace],
    later: &[v1::NetworkNamespace],
) -> Vec<v1::NetworkNamespace> {
    let delta = |now: &v1::NetworkNamespace| {
        let before = earlier.iter().find(|e| e.id == now.id);
        let before = before.unwrap_or(now);
        let delta = |total: fn(&v1::NetworkNamespace) -> Option<u64>| {
            let both = total(now).zip(total(before));
            both.map_or(0, |(now, before)| now.saturating_sub(before))
        };
        v1::NetworkNamespace {
            listen_overflows: delta(|n| n.listen_overflows_total),
            listen_drops: delta(|n| n.listen_drops_total),
            attempt_fails: delta(|n| n.attempt_fails_total),
            syncookies_failed: delta(|n| n.syncookies_failed_total),
            ..*now
        }
    };
    later.iter().map(delta).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NETSTAT: &str = "TcpExt: SyncookiesSent SyncookiesFailed ListenOverflows ListenDrops\n\
        TcpExt: 1 2 3 4\nIpExt: InNoRoutes\nIpExt: 9\n";
    const SNMP: &str = "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens AttemptFails\nTcp: 7 8\n";

    #[test]
    fn values_are_found_by_the_names_above_them() {
        let before = parse(NETSTAT, SNMP);
        let read = [
            before.syncookies_failed_total,
            before.listen_overflows_total,
        ];
        assert_eq!(read, [Some(2), Some(3)]);
        let read = [before.listen_drops_total, before.attempt_fails_total];
        assert_eq!(read, [Some(4), Some(8)]);
        let mut after = before;
        after.listen_drops_total = Some(9);
        let both = |n: &v1::NetworkNamespace| (n.listen_drops, n.listen_drops_total);
        assert_eq!(both(&since(&[before], &[after])[0]), (5, Some(9)));
        assert_eq!(both(&since(&[], &[after])[0]), (0, Some(9)));
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_absent() {
        let without = parse("TcpExt: ListenDrops\nTcpExt: 4\n", "");
        assert_eq!(without.listen_drops_total, Some(4));
        assert_eq!(without.listen_overflows_total, None);
        assert_eq!(without.attempt_fails_total, None);
    }

    #[test]
    fn this_process_has_a_namespace() {
        let namespace = read(Path::new("/proc"), std::process::id()).unwrap();
        assert!(namespace.id > 0);
        assert_eq!(read(Path::new("/proc"), u32::MAX), None);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(netstat in "((TcpExt: |Tcp: )?(ListenDrops |[0-9]{0,21} ){0,5}\n){0,5}") {
            let n = parse(&netstat, &netstat);
            prop_assert!(n.listen_drops_total.is_none() || netstat.contains("ListenDrops"));
        }
    }
}
