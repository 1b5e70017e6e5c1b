//! Which cgroups have listeners: what one could want to watch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::processes;

/// How many candidates are shown.
const CANDIDATES_MAX: usize = 50;

/// How much of a table of sockets is read.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// A cgroup with listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its path below the cgroup2 mount.
    pub cgroup: String,
    /// The commands of its processes that listen.
    pub processes: BTreeSet<String>,
    /// Where they listen.
    pub listeners: BTreeSet<SocketAddr>,
}

/// The cgroups whose processes listen, by their paths.  Processes that this one
/// may not look into are left out.
#[must_use]
pub fn candidates(proc: &Path) -> Vec<Candidate> {
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    let mut tables: HashMap<u64, HashMap<u64, SocketAddr>> = HashMap::new();
    for pid in pids(proc) {
        let dir = proc.join(pid.to_string());
        let Ok(namespace) = fs::metadata(dir.join("ns/net")) else {
            continue;
        };
        let table = tables
            .entry(namespace.ino())
            .or_insert_with(|| listeners(&dir));
        let listening: BTreeSet<_> = socket_inodes(&dir)
            .filter_map(|inode| table.get(&inode).copied())
            .collect();
        let Ok(cgroup) = processes::cgroup_of(proc, pid) else {
            continue;
        };
        if listening.is_empty() || (found.len() >= CANDIDATES_MAX && !found.contains_key(&cgroup)) {
            continue;
        }
        let candidate = found.entry(cgroup.clone()).or_insert_with(|| Candidate {
            cgroup,
            processes: BTreeSet::new(),
            listeners: BTreeSet::new(),
        });
        candidate.processes.insert(processes::command(proc, pid));
        candidate.listeners.extend(listening);
    }
    found.into_values().collect()
}

fn pids(proc: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

pub(super) fn socket_inodes(process: &Path) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|e| {
        let link = fs::read_link(e.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    })
}

/// The listening sockets of a process's network namespace, by inode.
fn listeners(process: &Path) -> HashMap<u64, SocketAddr> {
    let mut listeners = HashMap::new();
    for name in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(process.join(name)).unwrap_or_default();
        let text = text.get(..TABLE_BYTES_MAX).unwrap_or(&text);
        listeners.extend(text.lines().filter_map(listener));
    }
    listeners
}

/// A line of `/proc/net/tcp` or `tcp6` that is a listener.
fn listener(line: &str) -> Option<(u64, SocketAddr)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some((inode, address(local)?))
}

/// `0100007F:1F90`: each 32-bit word of the address in host byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let digits = address.get(8 * i..8 * i + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (i, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(i)?);
            }
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;

    #[test]
    fn listeners_are_read_and_connections_are_not() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000 100 0 0 10 0";
        assert_eq!(
            listener(v4),
            Some((4242, "127.0.0.1:8080".parse().unwrap()))
        );
        let v6 = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1";
        assert_eq!(listener(v6), Some((7, "[::1]:80".parse().unwrap())));
        assert_eq!(listener(&v4.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn this_process_is_a_candidate_while_it_listens() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = candidates(Path::new("/proc"));
        let own = processes::cgroup_of(Path::new("/proc"), std::process::id()).unwrap();
        let own = found.iter().find(|c| c.cgroup == own).unwrap();
        assert!(own.listeners.contains(&address));
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(line in "([0-9A-Fa-fé:]{0,40} ?){0,14}") {
            if let Some((_, address)) = listener(&line) {
                prop_assert!(line.contains("0A"), "{address}");
            }
        }
    }
}
