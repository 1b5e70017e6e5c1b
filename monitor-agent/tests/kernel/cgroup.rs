//! A cgroup that the test process moves itself into.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) struct Cgroup {
    path: PathBuf,
    before: PathBuf,
}

/// Where cgroup2 is mounted.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem
            .starts_with("cgroup2 ")
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The cgroup2 directory that this process is in.
fn own(mount: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(mount.join(line.unwrap_or("/").trim_start_matches('/')))
}

impl Cgroup {
    pub(crate) fn enter(name: &str) -> Result<Self, String> {
        let mount = mount().ok_or("no cgroup2 is mounted")?;
        let before = own(&mount).map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let path = mount.join(name);
        fs::create_dir(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        let cgroup = Self { path, before };
        cgroup
            .move_to(&cgroup.path)
            .map_err(|e| format!("entering the cgroup: {e}"))?;
        Ok(cgroup)
    }

    fn move_to(&self, to: &Path) -> io::Result<()> {
        fs::write(to.join("cgroup.procs"), std::process::id().to_string())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn leave(&self) {
        let left = self
            .move_to(&self.before)
            .and_then(|()| fs::remove_dir(&self.path));
        if let Err(error) = left {
            eprintln!("leaving {}: {error}", self.path.display());
        }
    }
}
