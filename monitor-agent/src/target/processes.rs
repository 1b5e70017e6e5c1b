//! Which processes are in a cgroup, and which of them belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// How many unrelated processes are named.
const NAMED_MAX: usize = 3;

/// How many ancestors are followed; a chain cannot be longer in practice, and a
/// hostile one must end.
const ANCESTORS_MAX: usize = 64;

/// The path of a process's cgroup2, from the line `0::` of its `cgroup` file.
pub(super) fn cgroup_of(proc: &Path, pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("0::"));
    line.map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no line `0::`"))
}

/// The command of a process; empty where it is gone.
pub(super) fn command(proc: &Path, pid: u32) -> String {
    let comm = fs::read_to_string(proc.join(pid.to_string()).join("comm"));
    comm.unwrap_or_default().trim_end().to_owned()
}

/// Whether every process of a cgroup shows which sockets it has: it takes
/// `CAP_SYS_PTRACE` for those of others.
#[must_use]
pub fn may_be_looked_into(proc: &Path, cgroup: &Path) -> bool {
    pids_below(cgroup).into_iter().all(|pid| {
        let looked = fs::read_dir(proc.join(pid.to_string()).join("fd"));
        looked.map_or_else(|e| e.kind() != io::ErrorKind::PermissionDenied, |_| true)
    })
}

/// Some of the processes in a cgroup that have nothing to do with `pid`, as
/// `command (pid)`.  Related are its descendants and, because a server's master
/// and workers run the same program, its ancestors of the same executable with
/// theirs.
pub(super) fn unrelated(proc: &Path, cgroup: &Path, pid: u32) -> Vec<String> {
    let inside: BTreeSet<u32> = pids_below(cgroup);
    let parents: BTreeMap<u32, u32> = inside
        .iter()
        .filter_map(|&p| Some((p, parent(proc, p)?)))
        .collect();
    let top = same_program_ancestor(proc, pid);
    let related = |p: u32| {
        let step = |p: &u32| parents.get(p).copied().filter(|&parent| parent != 0);
        let mut chain = std::iter::successors(Some(p), step).take(ANCESTORS_MAX);
        chain.any(|p| p == top || p == pid)
    };
    let others = inside.iter().filter(|p| !related(**p)).take(NAMED_MAX);
    others
        .map(|p| format!("{} ({p})", command(proc, *p)))
        .collect()
}

fn same_program_ancestor(proc: &Path, pid: u32) -> u32 {
    let program = |p: u32| fs::read_link(proc.join(p.to_string()).join("exe")).ok();
    let mut top = pid;
    for _ in 0..ANCESTORS_MAX {
        match parent(proc, top) {
            Some(above) if above > 1 && program(above).is_some() => {
                if program(above) != program(pid) {
                    break;
                }
                top = above;
            }
            _ => break,
        }
    }
    top
}

/// The parent's pid, from `/proc/PID/stat`.  The command in parentheses may
/// hold anything, parentheses too, so the fields after the last one count.
fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The processes of a cgroup and of the ones below it.
pub(super) fn pids_below(cgroup: &Path) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    let mut dirs: Vec<PathBuf> = vec![cgroup.to_owned()];
    while let Some(dir) = dirs.pop() {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(procs.lines().filter_map(|l| l.parse::<u32>().ok()));
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.extend(below.map(|e| e.path()));
    }
    // Processes of other pid namespaces are shown as 0.
    pids.remove(&0);
    pids
}

/// The first process of a cgroup itself.
pub(super) fn first_pid(cgroup: &Path) -> Option<u32> {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    procs.lines().next()?.parse().ok()
}
