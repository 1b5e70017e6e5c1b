//! A cgroup of one's own, and where cgroups and kernel pins live.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
    process::geteuid,
};

use crate::try_eventually;

/// Where kernel objects are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// A cgroup of cgroup2; what is left in it is killed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a new one below the mount of cgroup2.
    ///
    /// # Errors
    ///
    /// Where cgroup2 is not mounted, or this process may not write there.
    pub fn create(purpose: &str) -> Result<Self> {
        let path = cgroup2_mount()?.join(unique_name(purpose));
        fs::create_dir(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file that takes process ids.
    pub(crate) fn procs(&self) -> Result<File> {
        let file = self.path.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&file)
            .with_context(|| format!("opening {}", file.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was ended leaves its cgroup a moment later.
        let kill = self.path.join("cgroup.kill");
        let removed = try_eventually(Duration::from_secs(5), || {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    // Kernels before 5.14 do not have this file: there, who is
                    // left stays, and the message below says so.
                    fs::write(&kill, "1").ok();
                    None
                }
                _ => Some(()),
            }
        });
        if removed.is_none() {
            eprintln!(
                "the cgroup {} is still in use and stays",
                self.path.display()
            );
        }
    }
}

/// A name that no other test, demo or process uses.
#[must_use]
pub fn unique_name(purpose: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("speedmimi-{purpose}-{}-{next}", process::id())
}

/// Removes the cgroups and pins of processes that were killed before they could.
///
/// # Errors
///
/// Where cgroup2 is not mounted, or a directory cannot be read or removed.
pub fn remove_leftovers() -> Result<()> {
    for cgroup in leftovers(&cgroup2_mount()?)? {
        eprintln!("removing {}, left by a run before", cgroup.display());
        drop(Cgroup { path: cgroup });
    }
    for pins in leftovers(Path::new(BPFFS))? {
        if let Some(agent) = user_of(&pins) {
            let pins = pins.display();
            eprintln!("{pins} was left to a running agent: end it by `kill {agent}`");
            continue;
        }
        eprintln!("removing {}, left by a run before", pins.display());
        // The kernel detaches a program with its last pin.
        fs::remove_dir_all(&pins).with_context(|| format!("removing {}", pins.display()))?;
    }
    Ok(())
}

/// What is called as [`unique_name`] has it, by a process that is no more.
fn leftovers(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("reading {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let left = entry
            .file_name()
            .to_str()
            .and_then(maker)
            .is_some_and(|maker| {
                let process = Path::new("/proc").join(maker.to_string());
                !process.exists()
            });
        if left {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The process that was told of a path.
fn user_of(path: &Path) -> Option<u32> {
    let told = |process: &PathBuf| {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.any(|argument| argument == path.as_os_str().as_encoded_bytes())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let user = processes.map(|entry| entry.path()).find(told)?;
    user.file_name()?.to_str()?.parse().ok()
}

/// The process that made a name.
fn maker(name: &str) -> Option<u32> {
    let (rest, number) = name.strip_prefix("speedmimi-")?.rsplit_once('-')?;
    let (_purpose, process) = rest.rsplit_once('-')?;
    number.parse::<u32>().ok()?;
    process.parse().ok()
}

/// Where cgroup2 is mounted: /sys/fs/cgroup, or a directory below it where the
/// first version is in use too.
///
/// # Errors
///
/// Where it is not mounted; the error says how to mount it.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
    match mounts.lines().find_map(cgroup2_of_line) {
        Some(path) => Ok(path),
        None => bail!(
            "cgroup2 is not mounted; run `mkdir -p /sys/fs/cgroup/unified && \
             mount -t cgroup2 none /sys/fs/cgroup/unified`"
        ),
    }
}

fn cgroup2_of_line(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    (filesystem.split(' ').next() == Some("cgroup2"))
        .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

/// Mounts bpffs where it is not.
///
/// # Errors
///
/// Where it is not mounted and this process may not mount it.
pub fn ensure_bpffs() -> Result<()> {
    // The type of the magic differs between architectures; its value does not.
    if statfs(BPFFS).is_ok_and(|fs| (fs.f_type as u64) & 0xffff_ffff == BPFFS_MAGIC) {
        return Ok(());
    }
    mount("bpffs", BPFFS, "bpf", MountFlags::empty(), c"mode=0700")
        .with_context(|| format!("{BPFFS} is not mounted; run as root: mount -t bpf bpffs {BPFFS}"))
}

/// What keeps kernel programs from being loaded here, in words; `None` where
/// nothing that can be told beforehand does.
#[must_use]
pub fn missing_for_kernel_programs() -> Option<String> {
    if !geteuid().is_root() {
        return Some("loading kernel programs needs root".to_owned());
    }
    let checks = [cgroup2_mount().map(drop), ensure_bpffs()];
    checks
        .into_iter()
        .find_map(|check| check.err().map(|error| format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_either_place() {
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_of_line(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "35 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 none rw,nsdelegate";
        assert_eq!(
            cgroup2_of_line(hybrid),
            Some("/sys/fs/cgroup/unified".into())
        );
        let first = "30 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(cgroup2_of_line(first), None);
    }

    #[test]
    fn names_differ_and_tell_who_made_them() {
        assert_ne!(unique_name("a"), unique_name("a"));
        assert_eq!(maker(&unique_name("a-b")), Some(process::id()));
        for other in [
            "speedmimi",
            "speedmimi-agent",
            "speedmimi-1",
            "speedmimi-a-1-x",
            "a-1-2",
        ] {
            assert_eq!(maker(other), None);
        }
    }

    #[test]
    fn what_the_living_use_is_not_left_over() {
        let directory = tempfile::tempdir().unwrap();
        // No process has the greatest number there is.
        for name in [
            &unique_name("a"),
            "speedmimi-a-4294967295-0",
            "else-4294967295-0",
        ] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let expected = directory.path().join("speedmimi-a-4294967295-0");
        assert_eq!(leftovers(directory.path()).unwrap(), [&*expected]);
        assert_eq!(user_of(&expected), None);
        // It ends with its stdin.
        let mut user = process::Command::new("sh")
            .args(["-c", "read line"])
            .arg(&expected)
            .stdin(process::Stdio::piped())
            .spawn()
            .unwrap();
        // Its arguments are there a moment after the program is.
        let found = try_eventually(Duration::from_secs(10), || user_of(&expected));
        assert_eq!(found, Some(user.id()));
        drop(user.stdin.take());
        user.wait().unwrap();
    }
}
