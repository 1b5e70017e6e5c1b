//! What the agent may do once it has started: as little as it can do with.
//!
//! Programs, maps and `sock_diag` with socket storage need `CAP_BPF` and
//! `CAP_NET_ADMIN`, also later: to attach again, to change the level, to read.
//! What else is kept depends on what is watched and on whose files are used:
//!
//! - `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE` where processes of a target have a
//!   network namespace of their own, or may have one later: only these may enter
//!   it and dump its sockets.
//! - `CAP_PERFMON` wherever it is granted: without it the kernel fences every
//!   access of the programs off from speculation, and a packet costs five times as
//!   much; before Linux 6.18 its verifier takes those of level tcp alone.
//! - `CAP_SYS_PTRACE` where names are read from the files of a process
//!   (`/proc/PID/root`), and that cannot be done without.
//! - `CAP_DAC_READ_SEARCH` where containers are watched by name and the files in which
//!   runtimes keep names belong to somebody else.
//! - `CAP_DAC_OVERRIDE` where the spool, the pins, the token, the control
//!   socket or the names' file belong to somebody else.
//!
//! All else leaves every set, the bounding one included, before the first
//! thread is made, so that every thread has what is left and nothing more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

/// How many files of a directory are looked at.
const FILES_MAX: usize = 1_000;

/// What the agent goes on to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Sockets of other network namespaces.
    pub other_namespaces: bool,
    /// Files and directories that are written, or will be made.
    pub written: Vec<PathBuf>,
    /// Files that are read.
    pub read: Vec<PathBuf>,
    /// Files of container runtimes, which are done without where they may not be read.
    pub container_names: Vec<PathBuf>,
    /// Whether some of these are reached through a process.
    pub files_of_processes: bool,
}

/// Gives up every capability but those that are needed, for good, and says which
/// are left.  To be called while the process has one thread.
///
/// # Errors
/// Where the kernel does not let this thread change its own capabilities.
pub fn keep(needs: &Needs) -> io::Result<Vec<&'static str>> {
    let had = capabilities(None)?.permitted;
    let mut wanted = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    if !had.contains(CapabilitySet::BPF) {
        // It stands for the newer one.
        wanted |= CapabilitySet::SYS_ADMIN;
    }
    if needs.other_namespaces {
        wanted |= CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    }
    // While the permitted ones are still there, what the effective ones can do is
    // tried out.
    set(wanted & had, had)?;
    if !(needs.container_names.iter()).all(|path| can(path, Access::READ_OK)) {
        wanted |= CapabilitySet::DAC_READ_SEARCH;
        set(wanted & had, had)?;
    }
    if !reachable(needs) && needs.files_of_processes {
        wanted |= CapabilitySet::SYS_PTRACE;
        set(wanted & had, had)?;
    }
    if !reachable(needs) {
        wanted |= CapabilitySet::DAC_OVERRIDE;
    }
    let kept = wanted & had;
    set(had, had)?;
    bound(kept)?;
    set(kept, kept)?;
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    Ok(names(kept))
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Drops all but these from the bounding set; without `CAP_SETPCAP` it is as
/// the service manager made it.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match capability_is_in_bounding_set(one) {
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
            Ok(false) => {}
            Ok(true) => match remove_capability_from_bounding_set(one) {
                Err(Errno::PERM) => break,
                other => other?,
            },
        }
    }
    Ok(())
}

fn reachable(needs: &Needs) -> bool {
    let written = needs.written.iter().all(|path| is_writable(path));
    written && needs.read.iter().all(|path| can(path, Access::READ_OK))
}

/// Whether a file, or a directory with what is in it, can be written; where it
/// is not there, whether it can be made.
fn is_writable(path: &Path) -> bool {
    let Some(there) = path.ancestors().find(|p| p.exists()) else {
        return true;
    };
    if !there.is_dir() {
        return can(there, Access::READ_OK | Access::WRITE_OK);
    }
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let own = fs::read_dir(path).into_iter().flatten().flatten();
    let mut files = own
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_file()))
        .take(FILES_MAX);
    can(there, all) && files.all(|entry| can(&entry.path(), Access::READ_OK | Access::WRITE_OK))
}

fn can(path: &Path, access: Access) -> bool {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    // A file that is not there, or a kernel that cannot tell, is told of later.
    !matches!(
        accessat(CWD, path, access, AtFlags::EACCESS),
        Err(Errno::ACCESS | Errno::PERM)
    )
}

fn names(set: CapabilitySet) -> Vec<&'static str> {
    let known = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
        (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    ];
    let held = known.into_iter().filter(|(one, _)| set.contains(*one));
    held.map(|(_, name)| name).collect()
}
