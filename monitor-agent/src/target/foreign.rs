//! Listeners of a target's processes whose sockets belong to other cgroups.
//!
//! A socket belongs for all its life to the cgroup of the process that made it,
//! and what is accepted on it does too.  So what a process listens on that was
//! handed to it (socket activation of systemd, an upgrade from outside, a move
//! from one cgroup to another) is not seen by the programs on its own cgroup.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Roots, candidates, network::in_network_of, processes};
use bpf::{Listener, listeners};
use kernel_sample::Target;

/// How many are told of.
const FOREIGN_MAX: usize = 20;

/// How many directories are searched for the cgroup of a socket.
const SEARCHED_DIRS_MAX: usize = 20_000;

/// A listener that is not counted, though a process of a target listens on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// Which target, by its label.
    pub target: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The command of the process that does.
    pub process: String,
    /// The path of the cgroup that its socket belongs to; `None` where that
    /// cgroup is gone.
    pub cgroup: Option<String>,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            address,
            process,
            cgroup,
        } = self;
        let cgroup = cgroup.as_deref().unwrap_or("one that is gone");
        write!(
            f,
            "{address} of {process} in {target}: its socket was made in the cgroup {cgroup}"
        )
    }
}

/// What to do about such listeners.
pub const ADVICE: &str = "what it accepts is not counted: let the service make its own socket \
    (without systemd's socket activation), or watch the socket's cgroup too";

/// The listeners of the targets' processes that belong to cgroups outside of
/// their target.  Processes that may not be looked into are left out: it takes
/// `CAP_SYS_PTRACE` for those of others, and `CAP_SYS_ADMIN` for those in other
/// network namespaces.
#[must_use]
pub fn foreign_listeners(targets: &[Target], roots: &Roots) -> Vec<Foreign> {
    let mut namespaces: HashMap<u64, HashMap<u64, Listener>> = HashMap::new();
    let mut found = BTreeMap::new();
    for target in targets.iter().filter(|t| &*t.label != "/") {
        let own = cgroup_ids(&target.path);
        for pid in processes::pids_below(&target.path) {
            let process = roots.proc.join(pid.to_string());
            let Ok(namespace) = fs::metadata(process.join("ns/net")) else {
                continue;
            };
            let listening = namespaces
                .entry(namespace.ino())
                .or_insert_with(|| in_network_of(&process, listeners).unwrap_or_default());
            for inode in candidates::socket_inodes(&process) {
                let Some(listener) = listening.get(&inode) else {
                    continue;
                };
                if !own.contains(&listener.cgroup_id) && found.len() < FOREIGN_MAX {
                    let key = (
                        target.label.to_string(),
                        listener.address,
                        listener.cgroup_id,
                    );
                    let command = || processes::command(&roots.proc, pid);
                    found.entry(key).or_insert_with(command);
                }
            }
        }
    }
    let wanted: HashSet<u64> = found.keys().map(|(_, _, id)| *id).collect();
    let names = cgroup_names(&roots.cgroup, &wanted);
    let foreign = |((target, address, id), process)| Foreign {
        target,
        address,
        process,
        cgroup: names.get(&id).cloned(),
    };
    found.into_iter().map(foreign).collect()
}

/// Whether a process of a target has another network namespace than this one.
#[must_use]
pub fn in_other_namespaces(targets: &[Target], roots: &Roots) -> bool {
    let namespace = |process: &Path| fs::metadata(process.join("ns/net")).map(|m| m.ino());
    let Ok(own) = namespace(&roots.proc.join("self")) else {
        return false;
    };
    let pids: BTreeSet<u32> = targets
        .iter()
        .flat_map(|t| processes::pids_below(&t.path))
        .collect();
    let mut others = pids.iter().map(|pid| roots.proc.join(pid.to_string()));
    others.any(|process| namespace(&process).is_ok_and(|id| id != own))
}

/// The ids of a cgroup and of those below it.
fn cgroup_ids(cgroup: &Path) -> HashSet<u64> {
    let mut ids = HashSet::new();
    walk(cgroup, |_, id| {
        ids.insert(id);
    });
    ids
}

fn cgroup_names(mount: &Path, wanted: &HashSet<u64>) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    if wanted.is_empty() {
        return names;
    }
    walk(mount, |dir, id| {
        if wanted.contains(&id) {
            let below = dir.strip_prefix(mount).unwrap_or(dir);
            names.insert(id, format!("/{}", below.display()));
        }
    });
    names
}

/// Visits a directory and those below it, a bounded number.
fn walk(root: &Path, mut visit: impl FnMut(&Path, u64)) {
    let mut dirs: Vec<PathBuf> = vec![root.to_owned()];
    let mut left = SEARCHED_DIRS_MAX;
    while let Some(dir) = dirs.pop() {
        if left == 0 {
            return;
        }
        left -= 1;
        // A cgroup's id is its directory's inode.
        if let Ok(metadata) = fs::metadata(&dir) {
            visit(&dir, metadata.ino());
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.extend(below.map(|e| e.path()));
    }
}
