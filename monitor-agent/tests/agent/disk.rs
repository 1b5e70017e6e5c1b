//! A small file system of a test's own.

use std::{path::Path, process::Command};

use tempfile::TempDir;

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Makes one of this size.
    pub(crate) fn mount(size: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        let output = mount.arg(dir.path()).output().map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(Self(dir))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Why there can be none.
    pub(crate) fn missing() -> Option<String> {
        let refused = Self::mount("64k").err()?;
        Some(format!(
            "a tmpfs cannot be mounted here: {}",
            refused.trim()
        ))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}
