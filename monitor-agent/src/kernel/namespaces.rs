//! The network namespaces that a target's processes are in.
//!
//! A netlink socket belongs to the namespace that its thread was in when it was
//! opened, so another namespace is entered once, by a thread that ends right after.
//! That takes `CAP_SYS_ADMIN`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    KernelError, LiveSocket,
    diag::{Diag, Ends},
    syscall,
};

/// How many namespaces of one target are looked at.
const NAMESPACES_MAX: usize = 1024;

/// One namespace, asked over a socket of its own.  The socket keeps the namespace
/// alive, so it is closed when no process is left there.
struct Namespace {
    inode: u64,
    diag: Diag,
}

/// The namespaces of one target.
pub(super) struct Namespaces {
    /// The target's cgroup; `None` where only our own namespace is looked at.
    cgroup: Option<PathBuf>,
    open: Vec<Namespace>,
    /// Whether there are some that cannot be looked at.
    hidden: bool,
}

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inodes: Vec<_> = self.open.iter().map(|n| n.inode).collect();
        f.debug_struct("Namespaces")
            .field("open", &inodes)
            .field("hidden", &self.hidden)
            .finish_non_exhaustive()
    }
}

impl Namespaces {
    pub(super) fn of(cgroup: Option<PathBuf>) -> Self {
        Self {
            cgroup,
            open: Vec::new(),
            hidden: false,
        }
    }

    /// Whether there are sockets that cannot be looked at.
    pub(super) fn hidden(&self) -> bool {
        self.hidden
    }

    /// The namespaces that are open, by their inodes.
    pub(super) fn has(&self, inode: u64) -> bool {
        self.open.iter().any(|n| n.inode == inode)
    }

    /// Opens the namespaces that processes are in now, ours first, and closes the
    /// others.
    pub(super) fn refresh(&mut self) -> Result<(), KernelError> {
        let own = inode(Path::new("/proc/thread-self/ns/net"));
        let own_snmp = inode(Path::new("/proc/thread-self/net/snmp"));
        let mut found = BTreeSet::new();
        let told = std::mem::take(&mut self.hidden);
        if !self.has(own) {
            let diag = Diag::open()?;
            self.open.insert(0, Namespace { inode: own, diag });
        }
        for process in self.cgroup.iter().flat_map(|path| processes(path)) {
            let path = process.join("ns/net");
            let inode = match fs::metadata(&path) {
                Ok(metadata) => metadata.ino(),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // Whose it is takes CAP_SYS_PTRACE to read, but every namespace has
                    // files of its own, which anybody may look at.
                    let theirs = inode(&process.join("net/snmp"));
                    self.hidden |= theirs != 0 && theirs != own_snmp;
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
                    self.open.push(Namespace { inode, diag });
                }
                Ok(_) => self.hidden = true,
                Err(error) => {
                    tracing::debug!(%error, "a network namespace cannot be looked at");
                    // It may be gone by now.
                    self.hidden |= path.exists();
                    found.remove(&inode);
                }
            }
        }
        self.open
            .retain(|n| n.inode == own || found.contains(&n.inode));
        if self.hidden && !told {
            tracing::warn!(
                target = ?self.cgroup,
                "sockets of another network namespace are counted, but cannot be looked at: \
                 start the agent again, which keeps the capabilities for those that it finds, or \
                 with --network-namespaces for those that come later"
            );
        }
        Ok(())
    }

    /// The sockets of all open namespaces, as one of them tells them.
    pub(super) fn sockets(
        &self,
        mut ask: impl FnMut(&Diag, &mut Vec<LiveSocket>) -> Result<(), KernelError>,
    ) -> Result<Vec<LiveSocket>, KernelError> {
        let mut sockets = Vec::new();
        for namespace in &self.open {
            ask(&namespace.diag, &mut sockets)?;
        }
        // A socket that moves while the table is walked may be told twice.
        sockets.sort_unstable_by_key(|socket| socket.cookie);
        sockets.dedup_by_key(|socket| socket.cookie);
        Ok(sockets)
    }

    /// Listens for the ends of sockets in every namespace.
    pub(super) fn ends(&self) -> Result<Vec<(u64, Ends)>, KernelError> {
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

/// 0 where there is none.
fn inode(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.ino())
}

/// The processes of a cgroup and of all below it.
fn processes(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    super::adoption::cgroups(cgroup)
        .into_iter()
        .flat_map(|(path, _)| {
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
