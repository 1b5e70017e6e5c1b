//! The network namespaces that a target's processes are in.
//!
//! A netlink socket belongs to the namespace that its thread was in when it was
//! opened, so another namespace is entered once, by a thread that ends right after.
//! That takes `CAP_SYS_ADMIN`.
//!
//! A process may make sockets in a namespace that no process is in: `HAProxy`'s
//! `namespace` and Envoy's listeners do, by a thread that goes there and comes back.
//! The programs note in which namespaces connections begin.  Where more are counted
//! than found, those that are not open are looked for: among threads, mounts and the
//! processes' descriptors.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData};
use kernel_sample::LiveSocket;

use crate::{
    cgroup2::cgroups,
    error::{KernelError, failed},
    object::maps,
    pins::Pins,
    sockdiag::{Diag, Ends, Listening},
    syscall,
};

/// How many namespaces of one target are looked at.
const NAMESPACES_MAX: usize = 1024;

/// One namespace, asked over a socket of its own.  The socket keeps the namespace
/// alive, so it is closed when no process is left there.
struct Namespace {
    inode: u64,
    /// What the programs call it; `None` before Linux 5.14.
    cookie: Option<u64>,
    diag: Diag,
    /// Whether the last dump had sockets there that the programs follow.
    used: Cell<bool>,
}

impl Namespace {
    fn new(inode: u64, diag: Diag) -> Self {
        Self {
            inode,
            cookie: diag.namespace_cookie().ok(),
            diag,
            used: Cell::new(false),
        }
    }
}

/// Those in which connections began, by cookie, as the programs note them.
type Noted = BpfHashMap<MapData, u64, u32>;

/// Opens what the programs note; `None` where pins of an older agent have none.
fn noted(pins: &Pins) -> Option<Noted> {
    let map = pins.map(maps::NAMESPACES).map(Map::from_map_data).ok()?;
    let noted = map.and_then(Noted::try_from);
    noted.map_err(failed("opening", maps::NAMESPACES)).ok()
}

/// The namespaces of one target.
pub(crate) struct Namespaces {
    /// The target's cgroup; `None` where only our own namespace is looked at.
    cgroup: Option<PathBuf>,
    noted: Option<Noted>,
    open: Vec<Namespace>,
    /// Whether processes are in some that may not be entered.
    closed: bool,
    /// Whether connections began in some that were not found.
    unseen: bool,
    warned: bool,
}

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inodes: Vec<_> = self.open.iter().map(|n| n.inode).collect();
        f.debug_struct("Namespaces")
            .field("open", &inodes)
            .field("hidden", &self.hidden())
            .finish_non_exhaustive()
    }
}

impl Namespaces {
    pub(crate) fn of(cgroup: Option<PathBuf>, pins: &Pins) -> Self {
        Self {
            cgroup,
            noted: noted(pins),
            open: Vec::new(),
            closed: false,
            unseen: false,
            warned: false,
        }
    }

    /// Whether there are sockets that cannot be looked at.
    pub(crate) fn hidden(&self) -> bool {
        self.closed || self.unseen
    }

    /// Whether processes are in some that may not be entered.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// All connections were found.
    pub(crate) fn complete(&mut self) {
        self.unseen = false;
    }

    /// The namespaces that are open, by their inodes.
    pub(crate) fn has(&self, inode: u64) -> bool {
        self.open.iter().any(|n| n.inode == inode)
    }

    /// Opens the namespaces that processes are in now, ours first, and closes the
    /// others.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        let own = inode(Path::new("/proc/thread-self/ns/net"));
        let own_snmp = inode(Path::new("/proc/thread-self/net/snmp"));
        let mut found = BTreeSet::new();
        self.closed = false;
        if !self.has(own) {
            self.open.insert(0, Namespace::new(own, Diag::open()?));
        }
        for process in self.cgroup.iter().flat_map(|path| processes(path)) {
            let path = process.join("ns/net");
            let inode = match fs::metadata(&path) {
                Ok(metadata) => metadata.ino(),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // Whose it is takes CAP_SYS_PTRACE to read, but every namespace has
                    // files of its own, which anybody may look at.
                    let theirs = inode(&process.join("net/snmp"));
                    self.closed |= theirs != 0 && theirs != own_snmp;
                    continue;
                }
                // A process that has just ended has no namespace.
                Err(_) => continue,
            };
            if inode == own || !found.insert(inode) || self.has(inode) {
                continue;
            }
            match within(&path, Diag::open) {
                Ok(diag) if self.open.len() < NAMESPACES_MAX => {
                    self.open.push(Namespace::new(inode, diag));
                }
                Ok(_) => self.closed = true,
                Err(error) => {
                    tracing::debug!(%error, "a network namespace cannot be looked at");
                    // It may be gone by now.
                    self.closed |= path.exists();
                    found.remove(&inode);
                }
            }
        }
        self.open
            .retain(|n| n.inode == own || found.contains(&n.inode) || n.used.get());
        self.tell();
        Ok(())
    }

    fn tell(&mut self) {
        if !self.hidden() {
            self.warned = false;
        } else if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                target = ?self.cgroup,
                "sockets of another network namespace are counted, but cannot be looked at: \
                 their bytes come late; start the agent again, which keeps the capabilities for \
                 those that it finds, or with --network-namespaces for those that come later"
            );
        }
    }

    /// Looks for the namespaces in which connections began and that no process is in.
    pub(crate) fn search(&mut self) {
        let wanted = self.wanted();
        self.unseen = !wanted.is_empty();
        if wanted.is_empty() {
            return;
        }
        let mut looked_at = BTreeSet::new();
        let candidates = self.cgroup.iter().flat_map(|path| processes(path));
        let candidates = candidates.flat_map(|process| kept_by(&process));
        for (inode, path) in candidates.collect::<Vec<_>>() {
            if self.has(inode) || !looked_at.insert(inode) || self.open.len() >= NAMESPACES_MAX {
                continue;
            }
            match within(&path, Diag::open) {
                Ok(diag) => {
                    let found = Namespace::new(inode, diag);
                    if found.cookie.is_some_and(|cookie| wanted.contains(&cookie)) {
                        // Until the next dump tells.
                        found.used.set(true);
                        self.open.push(found);
                    }
                }
                Err(error) => tracing::debug!(%error, "a network namespace cannot be looked at"),
            }
        }
        self.unseen = !self.wanted().is_empty();
        self.tell();
    }

    /// The namespaces in which connections began and that are not open.
    fn wanted(&self) -> BTreeSet<u64> {
        let open: BTreeSet<u64> = self.open.iter().filter_map(|n| n.cookie).collect();
        let noted = self.noted.iter().flat_map(|noted| noted.keys().flatten());
        noted.filter(|cookie| !open.contains(cookie)).collect()
    }

    /// The sockets of all open namespaces, as one of them tells them.
    pub(crate) fn sockets(
        &self,
        mut ask: impl FnMut(&Diag, &mut Vec<LiveSocket>) -> Result<(), KernelError>,
    ) -> Result<Vec<LiveSocket>, KernelError> {
        let mut sockets = Vec::new();
        for namespace in &self.open {
            let before = sockets.len();
            ask(&namespace.diag, &mut sockets)?;
            let followed = |socket: &LiveSocket| socket.storage.is_some();
            namespace.used.set(sockets[before..].iter().any(followed));
        }
        // A socket that moves while the table is walked may be told twice.
        sockets.sort_unstable_by_key(|socket| socket.cookie);
        sockets.dedup_by_key(|socket| socket.cookie);
        Ok(sockets)
    }

    /// The listening sockets of all open namespaces.
    pub(crate) fn listening(&self) -> Result<Vec<Listening>, KernelError> {
        let mut sockets = Vec::new();
        for namespace in &self.open {
            namespace.diag.listening(&mut sockets)?;
        }
        Ok(sockets)
    }

    /// Listens for the ends of sockets in every namespace.
    pub(crate) fn ends(&self) -> Result<Vec<(u64, Ends)>, KernelError> {
        let own = inode(Path::new("/proc/thread-self/ns/net"));
        let mut all = vec![(own, Ends::open()?)];
        let mut seen = BTreeSet::from([own]);
        for process in self.cgroup.iter().flat_map(|path| processes(path)) {
            let path = process.join("ns/net");
            let inode = inode(&path);
            if self.has(inode) && seen.insert(inode) {
                all.extend(within(&path, Ends::open).map(|ends| (inode, ends)).ok());
            }
        }
        Ok(all)
    }
}

/// The network namespaces that a process keeps, each with its inode and a path to
/// open it by: those of its threads, those that are mounted where it sees them, as
/// `ip netns` does, and those that it holds a descriptor of.
fn kept_by(process: &Path) -> Vec<(u64, PathBuf)> {
    let entries = |dir: &str| {
        let entries = fs::read_dir(process.join(dir)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    };
    let threads = entries("task").map(|thread| thread.join("ns/net"));
    let threads = threads.map(|path| (inode(&path), path));
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let mounts = mounts.lines().filter_map(mounted);
    let mounts = mounts.map(|(inode, point)| (inode, process.join("root").join(point)));
    let held = entries("fd").filter_map(|path| {
        let link = fs::read_link(&path).ok()?;
        Some((namespace_inode(link.to_str()?)?, path))
    });
    threads.chain(mounts).chain(held).collect()
}

/// The network namespace that a line of mountinfo mounts, and where, below the root.
fn mounted(line: &str) -> Option<(u64, PathBuf)> {
    let mut fields = line.split(' ').skip(3);
    let inode = namespace_inode(fields.next()?)?;
    let point = fields.next()?.trim_start_matches('/');
    // The kernel writes blanks and backslashes of a path as octal numbers.
    let point = ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(point.to_owned(), |path, (code, c)| path.replace(code, c));
    Some((inode, point.into()))
}

/// From `net:[4026531840]`.
fn namespace_inode(name: &str) -> Option<u64> {
    let number = name.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// 0 where there is none.
fn inode(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.ino())
}

/// The processes of a cgroup and of all below it.
fn processes(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    cgroups(cgroup).into_iter().flat_map(|(path, _)| {
        let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let process = |pid: &str| Path::new("/proc").join(pid);
        pids.lines().map(process).collect::<Vec<_>>()
    })
}

/// Does something within a network namespace, on a thread of its own.
fn within<T: Send>(
    path: &Path,
    open: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    let failed = |operation| {
        move |source| KernelError::File {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let namespace = File::open(path).map_err(failed("opening the network namespace"))?;
    let task = || {
        syscall::enter_network_namespace(namespace.as_fd())
            .map_err(failed("entering the network namespace"))?;
        open()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, task);
        let thread = thread.map_err(failed("making a thread for"))?;
        let ended = || io::Error::other("its thread ended");
        let joined = thread.join();
        joined.unwrap_or_else(|_panic| Err(failed("looking at")(ended())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_namespaces_are_found_and_other_mounts_are_not() {
        let of = |line| mounted(line).map(|(inode, path)| (inode, path.display().to_string()));
        let line = "812 24 0:4 net:[4026532282] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw";
        assert_eq!(of(line), Some((4_026_532_282, "run/netns/a b".to_owned())));
        for other in [
            "24 1 0:22 / /run rw shared:9 - tmpfs tmpfs rw",
            "24 1 0:22 mnt:[4026532282] /run/x rw - nsfs nsfs rw",
            "24 1 0:22 net:[x] /run/x rw - nsfs nsfs rw",
            "24 1",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
