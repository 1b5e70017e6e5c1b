//! Unix sockets of a target's processes: what is said over them is not counted.
//!
//! The programs follow TCP sockets, so a listener or an upstream that is a path
//! (`listen unix:…`, `server unix:…`, `fastcgi_pass unix:…`) is not seen.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{Roots, candidates, network::in_network_of, processes};
use bpf::{UnixSocket, unix_sockets};
use kernel_sample::Target;

/// How many are told of.
const SHOWN_MAX: usize = 20;

/// What ordinary services speak to that is no upstream: logs, the service manager,
/// the bus and name look-ups.
const SYSTEM: [&str; 5] = [
    "/run/systemd/",
    "/run/dbus/",
    "/run/user/",
    "/var/run/nscd/",
    "/dev/log",
];

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unix {
    /// Which target, by its label.
    pub target: String,
    /// Whether it accepts connections; else it makes them.
    pub listens: bool,
    /// The listener's path.
    pub path: String,
    /// The command of the process.
    pub process: String,
}

impl fmt::Display for Unix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            listens,
            path,
            process,
        } = self;
        let does = if *listens {
            "accepts on"
        } else {
            "connects to"
        };
        write!(f, "{process} in {target} {does} unix:{path}")
    }
}

/// What to do about them.
pub const ADVICE: &str = "what is said over Unix sockets is not counted: to have it counted, let \
    both sides use TCP on a loopback address";

/// The Unix sockets that processes of the targets accept or make connections on.
/// Processes that may not be looked into are left out.
///
/// # Errors
/// Where the kernel has no `unix_diag`.
pub fn unix(targets: &[Target], roots: &Roots) -> io::Result<Vec<Unix>> {
    let mut namespaces: HashMap<u64, HashMap<u64, UnixSocket>> = HashMap::new();
    let mut found = BTreeSet::new();
    for target in targets.iter().filter(|t| &*t.label != "/") {
        for pid in processes::pids_below(&target.path) {
            let process = roots.proc.join(pid.to_string());
            let Ok(namespace) = fs::metadata(process.join("ns/net")) else {
                continue;
            };
            let sockets = match namespaces.entry(namespace.ino()) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => {
                    new.insert(in_network_of(&process, unix_sockets)?)
                }
            };
            let command = processes::command(&roots.proc, pid);
            found.extend(of_process(&process, sockets).map(|(listens, path)| Unix {
                target: target.label.to_string(),
                listens,
                path: path.to_owned(),
                process: command.clone(),
            }));
            if found.len() > SHOWN_MAX {
                break;
            }
        }
    }
    Ok(found.into_iter().take(SHOWN_MAX).collect())
}

/// Which paths a process accepts connections on, and which it is connected to.
fn of_process<'a>(
    process: &Path,
    sockets: &'a HashMap<u64, UnixSocket>,
) -> impl Iterator<Item = (bool, &'a str)> {
    candidates::socket_inodes(process).filter_map(|inode| {
        let socket = sockets.get(&inode)?;
        if socket.listens {
            return Some((true, socket.path.as_deref()?));
        }
        // One that was accepted has its listener's path, its client has none.
        let peer = sockets.get(&socket.peer?)?;
        let path = peer.path.as_deref()?;
        let ordinary = SYSTEM.iter().any(|system| path.starts_with(system));
        (!ordinary).then_some((false, path))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn both_ends_of_a_unix_socket_are_told_apart_and_pairs_are_neither() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fpm.sock");
        let path = path.to_str().unwrap();
        let own = |listening: &UnixListener| {
            let client = UnixStream::connect(path).unwrap();
            let server = listening.accept().unwrap().0;
            let pair = UnixStream::pair().unwrap();
            let sockets = unix_sockets().unwrap();
            let found = of_process(Path::new("/proc/self"), &sockets);
            let found: Vec<_> = found
                .filter(|(_, of)| *of == path)
                .map(|(listens, _)| listens)
                .collect();
            drop((client, server, pair));
            found
        };
        let listener = UnixListener::bind(path).unwrap();
        let mut found = own(&listener);
        found.sort_unstable();
        assert_eq!(found, [false, true]);
    }
}
