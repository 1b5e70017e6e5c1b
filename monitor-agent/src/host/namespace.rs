//! What the kernel counts per network namespace: connections that it turned away
//! before any process saw them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use monitor_proto::v1;

/// Reads the counters since boot of a process's network namespace; `None` where
/// the process is gone or may not be looked at.
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

/// Reads the texts of `netstat` and `snmp`; what is not there is 0.
fn parse(netstat: &str, snmp: &str) -> v1::NetworkNamespace {
    let ext = |name| value(netstat, "TcpExt: ", name).unwrap_or(0);
    v1::NetworkNamespace {
        id: 0,
        listen_overflows: ext("ListenOverflows"),
        listen_drops: ext("ListenDrops"),
        attempt_fails: value(snmp, "Tcp: ", "AttemptFails").unwrap_or(0),
        syncookies_failed: ext("SyncookiesFailed"),
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
        v1::NetworkNamespace {
            id: now.id,
            listen_overflows: now.listen_overflows.saturating_sub(before.listen_overflows),
            listen_drops: now.listen_drops.saturating_sub(before.listen_drops),
            attempt_fails: now.attempt_fails.saturating_sub(before.attempt_fails),
            syncookies_failed: now
                .syncookies_failed
                .saturating_sub(before.syncookies_failed),
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
        assert_eq!((before.syncookies_failed, before.listen_overflows), (2, 3));
        assert_eq!((before.listen_drops, before.attempt_fails), (4, 8));
        let mut after = before;
        after.listen_drops += 5;
        assert_eq!(since(&[before], &[after])[0].listen_drops, 5);
        assert_eq!(since(&[], &[after])[0].listen_drops, 0);
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
            prop_assert!(n.listen_drops == 0 || netstat.contains("ListenDrops"));
        }
    }
}
