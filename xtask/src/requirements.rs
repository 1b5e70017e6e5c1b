//! What the machine must give before products can run.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use testkit::{cgroup2_mount, ensure_bpffs, remove_leftovers};

use crate::command::step;

/// Raises the number of files that may be open as far as it may be raised.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        let now = limit
            .maximum
            .map_or("unlimited".to_owned(), |n| n.to_string());
        step(&format!("open files: up to {now}"));
    }
}

/// Fails with everything that is missing for kernel programs, and how to get
/// it; mounts bpffs where it is not, and removes what a run that was killed left.
pub(crate) fn for_kernel_programs(command: &str) -> Result<()> {
    let mut missing = Vec::new();
    if geteuid().is_root() {
        if let Err(error) = ensure_bpffs() {
            missing.push(format!("{error:#}"));
        }
    } else {
        missing.push(format!(
            "root (loading kernel programs needs CAP_BPF and CAP_NET_ADMIN, making a cgroup \
             needs root): run `sudo -E env PATH=\"$PATH\" {command}`"
        ));
    }
    if let Err(error) = cgroup2_mount() {
        missing.push(format!("{error:#}"));
    }
    if missing.is_empty() {
        return remove_leftovers();
    }
    bail!("this machine lacks:\n  - {}", missing.join("\n  - "))
}
