//! What is watched: named cgroups, or the whole host.
//!
//! A socket belongs to the cgroup of the process that made it, so cgroups are
//! what a process, a unit and a container come down to.

mod auto;
mod awaited;
mod candidates;
mod foreign;
mod network;
mod processes;
mod running;
mod unix;

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

pub use auto::{Proxy, ProxyConfig, Refusal};
pub use awaited::{Awaited, Change};
pub use candidates::{Candidate, candidates};
pub use foreign::{ADVICE as FOREIGN_ADVICE, Foreign, foreign_listeners, in_other_namespaces};
use kernel_sample::Target;
pub use processes::may_be_looked_into;
pub use running::{
    ContainerPattern, Pod, PodPattern, Running, RunningNames, files_with_names, running, unreadable,
};
pub use unix::{ADVICE as UNIX_ADVICE, Unix, unix};

/// How many directories are searched for a unit's cgroup.
const SEARCHED_DIRS_MAX: usize = 20_000;

/// What was asked to be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRequest {
    /// Cgroups by path.
    pub cgroups: Vec<PathBuf>,
    /// The cgroups of these processes.
    pub pids: Vec<u32>,
    /// The cgroups of these systemd units.
    pub units: Vec<String>,
    /// Containers by name.
    pub containers: Vec<ContainerPattern>,
    /// Pods of Kubernetes by namespace and name.
    pub pods: Vec<PodPattern>,
    /// Everything.
    pub whole_host: bool,
    /// The proxies that run.
    pub auto: bool,
    /// Whether a process may share its cgroup with unrelated ones.
    pub force: bool,
}

impl TargetRequest {
    /// Whether what is watched comes and goes.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.auto || !self.containers.is_empty() || !self.pods.is_empty()
    }
}

/// Where the kernel shows processes and cgroups, and where runtimes keep names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/`.
    pub host: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// Where cgroup2 is mounted.
    pub cgroup: PathBuf,
}

/// Why a target cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no cgroup2.
    #[error(
        "no cgroup2 filesystem is mounted; mount one with: \
         mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// Nothing was asked for.
    #[error(
        "nothing to watch: give --auto, --cgroup, --container, --pid, --pod, --unit or --whole-host"
    )]
    Nothing,
    /// The path is no cgroup.
    #[error("{path} is no cgroup below {mount}")]
    NoCgroup {
        /// What was asked for.
        path: PathBuf,
        /// Where cgroups are.
        mount: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root cgroup needs to be asked for by its own name.
    #[error("{0} is the whole host; to watch all of it, say --whole-host")]
    Root(PathBuf),
    /// There is no such process, or it has no cgroup2.
    #[error("process {pid} has no cgroup2 that can be read: is it running?")]
    Process {
        /// Which one.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// Unrelated processes would be watched too.
    #[error(
        "process {pid} shares its cgroup {label} with {others}; give it a cgroup of its own \
         (a systemd unit has one), or add --force to watch them all"
    )]
    Shared {
        /// Which process.
        pid: u32,
        /// Its cgroup.
        label: String,
        /// Some of the others.
        others: String,
    },
    /// There is no such unit.
    #[error("unit {unit} has no cgroup below {mount}: is it running?")]
    NoUnit {
        /// Which one.
        unit: String,
        /// Where cgroups are.
        mount: PathBuf,
    },
    /// There are several of that name.
    #[error("unit {unit} has several cgroups; name one with --cgroup: {paths}")]
    ManyUnits {
        /// Which one.
        unit: String,
        /// Where.
        paths: String,
    },
    /// No container or pod fits a pattern.
    #[error("no {what} runs here{}", denied(unreadable))]
    NoContainer {
        /// What was asked for.
        what: String,
        /// What holds names and may not be read.
        unreadable: Vec<PathBuf>,
    },
    /// One target lies within another.
    #[error("{inner} lies within {outer}: its sockets would be counted twice; watch one of them")]
    Nested {
        /// The one within.
        inner: String,
        /// The one around.
        outer: String,
    },
}

fn denied(unreadable: &[PathBuf]) -> String {
    if unreadable.is_empty() {
        return String::new();
    }
    let paths: Vec<_> = unreadable.iter().map(|p| p.display().to_string()).collect();
    let paths = paths.join(", ");
    format!(
        ", as far as is known: names are in {paths}, which may not be read; give a container's id, or \
         run as root with CAP_DAC_READ_SEARCH"
    )
}

impl TargetError {
    /// Whether what was asked for may only be not there yet, like a unit that
    /// starts later.
    #[must_use]
    pub fn may_come(&self) -> bool {
        match self {
            Self::NoCgroup { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Process { .. } | Self::NoUnit { .. } | Self::NoContainer { .. } => true,
            _ => false,
        }
    }
}

impl Roots {
    /// This machine's.
    ///
    /// # Errors
    /// Where no cgroup2 is mounted.
    pub fn detect() -> Result<Self, TargetError> {
        Ok(Self {
            host: "/".into(),
            proc: "/proc".into(),
            cgroup: bpf::cgroup2_mount().ok_or(TargetError::NoCgroup2)?,
        })
    }

    /// Targets by their labels, whether their cgroups are still there or not.
    #[must_use]
    pub fn of_labels(&self, labels: &[&str]) -> Vec<Target> {
        let target = |label: &&str| Target {
            path: self.cgroup.join(label.trim_start_matches('/')),
            label: Arc::from(*label),
        };
        labels.iter().map(target).collect()
    }

    /// What a target is called in reports, whether its cgroup is still there or not.
    #[must_use]
    pub fn label_of(&self, path: &Path) -> String {
        let dir = below_mount(path, &self.cgroup);
        if let Ok(target) = self.target(&dir) {
            return target.label.to_string();
        }
        let below = dir.strip_prefix(&self.cgroup).unwrap_or(&dir);
        format!("/{}", below.display())
    }

    /// The target in this directory, which must be a cgroup.
    fn target(&self, dir: &Path) -> Result<Target, TargetError> {
        let no_cgroup = |source| TargetError::NoCgroup {
            path: dir.to_owned(),
            mount: self.cgroup.clone(),
            source,
        };
        let dir = dir.canonicalize().map_err(no_cgroup)?;
        fs::metadata(dir.join("cgroup.procs")).map_err(no_cgroup)?;
        let mount = self.cgroup.canonicalize().map_err(no_cgroup)?;
        let below = dir.strip_prefix(&mount);
        let below = below.map_err(|e| no_cgroup(io::Error::other(e)))?;
        Ok(Target {
            label: Arc::from(format!("/{}", below.display())),
            path: dir,
        })
    }
}

/// What was asked for, as far as it is there.
#[derive(Debug, Default)]
pub struct Resolved {
    /// What is there.
    pub targets: Vec<Target>,
    /// What may still come, and why it is not there.
    pub awaited: Vec<TargetError>,
    /// The proxies that were found, those too that are not watched.
    pub proxies: Vec<Proxy>,
}

/// The proxies that run on this host.
#[must_use]
pub fn proxies(roots: &Roots) -> Vec<Proxy> {
    auto::proxies(roots, &auto::Listening::now())
}

/// Finds what was asked for.
///
/// # Errors
/// Where something would watch more than was meant, or lies within something else.
pub fn resolve(request: &TargetRequest, roots: &Roots) -> Result<Resolved, TargetError> {
    let cgroups = request.cgroups.iter().map(|path| of_path(path, roots));
    let processes = request.pids.iter();
    let processes = processes.map(|&pid| of_process(pid, request.force, roots));
    let units = request.units.iter().map(|unit| of_unit(unit, roots));
    let host = request.whole_host.then(|| roots.target(&roots.cgroup));
    let mut resolved = Resolved::default();
    for found in cgroups.chain(processes).chain(units).chain(host) {
        match found {
            Ok(target) => resolved.targets.push(target),
            Err(error) if error.may_come() => resolved.awaited.push(error),
            Err(error) => return Err(error),
        }
    }
    if !request.containers.is_empty() || !request.pods.is_empty() {
        let chosen = running::chosen(&request.containers, &request.pods, roots);
        for what in chosen.missing {
            let unreadable = chosen.unreadable.clone();
            resolved
                .awaited
                .push(TargetError::NoContainer { what, unreadable });
        }
        let own = outside(&resolved.targets, chosen.targets);
        resolved.targets.extend(own);
    }
    if request.auto {
        resolved.proxies = auto::proxies(roots, &auto::Listening::now());
        let watched = resolved.proxies.iter().filter(|p| p.refused.is_none());
        let watched = watched.map(|p| p.target.clone()).collect();
        let own = outside(&resolved.targets, watched);
        resolved.targets.extend(own);
    }
    resolved.targets.sort_by(|a, b| a.label.cmp(&b.label));
    resolved.targets.dedup();
    if resolved.targets.is_empty() && resolved.awaited.is_empty() && !request.is_followed() {
        return Err(TargetError::Nothing);
    }
    refuse_nested(&resolved.targets)?;
    Ok(resolved)
}

/// Those that lie neither in nor around what was named: that is watched as it was named.
fn outside(named: &[Target], found: Vec<Target>) -> Vec<Target> {
    let mut found = found;
    found.retain(|target| {
        let path = &target.path;
        !named
            .iter()
            .any(|t| path.starts_with(&t.path) || t.path.starts_with(path))
    });
    found
}

fn of_path(path: &Path, roots: &Roots) -> Result<Target, TargetError> {
    let target = roots.target(&below_mount(path, &roots.cgroup))?;
    if &*target.label == "/" {
        return Err(TargetError::Root(path.to_owned()));
    }
    Ok(target)
}

/// The first process of a target.
#[must_use]
pub fn first_pid(target: &Target) -> Option<u32> {
    processes::first_pid(&target.path)
}

/// The command of the first process of a target; empty where there is none.
#[must_use]
pub fn first_process(target: &Target) -> String {
    let command = |pid| processes::command(Path::new("/proc"), pid);
    first_pid(target).map(command).unwrap_or_default()
}

/// A path as `/proc/PID/cgroup` has it, or relative to the mount, or absolute.
fn below_mount(path: &Path, mount: &Path) -> PathBuf {
    if path.starts_with(mount) {
        return path.to_owned();
    }
    let named = path
        .components()
        .filter(|c| !matches!(c, Component::RootDir));
    mount.join(named.collect::<PathBuf>())
}

fn of_process(pid: u32, force: bool, roots: &Roots) -> Result<Target, TargetError> {
    let label = processes::cgroup_of(&roots.proc, pid);
    let label = label.map_err(|source| TargetError::Process { pid, source })?;
    let target = roots.target(&below_mount(Path::new(&label), &roots.cgroup))?;
    let others = processes::unrelated(&roots.proc, &target.path, pid);
    if !force && (&*target.label == "/" || !others.is_empty()) {
        let others = if others.is_empty() {
            "the whole host".to_owned()
        } else {
            others.join(", ")
        };
        let label = target.label.to_string();
        return Err(TargetError::Shared { pid, label, others });
    }
    Ok(target)
}

fn of_unit(unit: &str, roots: &Roots) -> Result<Target, TargetError> {
    let known = [".service", ".scope", ".slice"];
    let full = if known.iter().any(|suffix| unit.ends_with(suffix)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    };
    let found = find_dirs(&roots.cgroup, &full);
    match found.as_slice() {
        [] => Err(TargetError::NoUnit {
            unit: full,
            mount: roots.cgroup.clone(),
        }),
        [dir] => roots.target(dir),
        dirs => {
            let paths: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
            let paths = paths.join(" ");
            Err(TargetError::ManyUnits { unit: full, paths })
        }
    }
}

/// The directories of this name, nearest to the root first; a bounded search.
fn find_dirs(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level = vec![root.to_owned()];
    let mut searched = 0;
    while !level.is_empty() && searched < SEARCHED_DIRS_MAX {
        let mut next = Vec::new();
        for dir in level {
            searched += 1;
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                if entry.file_name() == name {
                    found.push(entry.path());
                } else {
                    next.push(entry.path());
                }
            }
        }
        level = next;
    }
    found
}

fn refuse_nested(targets: &[Target]) -> Result<(), TargetError> {
    for outer in targets {
        for inner in targets {
            if inner.path != outer.path && inner.path.starts_with(&outer.path) {
                return Err(TargetError::Nested {
                    inner: inner.label.to_string(),
                    outer: outer.label.to_string(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
