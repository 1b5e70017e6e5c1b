//! A kernel to boot: an image and, where they are beside it, its modules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command::output, debian, workspace::Workspace};

/// What `sock_diag` needs where it is not built in, dependencies first.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

/// A kernel image.
#[derive(Debug)]
pub(crate) struct Image {
    path: PathBuf,
}

impl Image {
    /// An image of the user's; its modules are looked for where a package has
    /// them: `lib/modules/VERSION` beside `boot`.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        ensure!(path.is_file(), "{} is no kernel image", path.display());
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The kernel of this Debian release, from its package; `None` where there is
    /// none to be had.
    pub(crate) fn of_debian(workspace: &Workspace) -> Result<Option<Self>> {
        if !debian::is_debian() {
            return Ok(None);
        }
        debian::update_lists_once()?;
        let depends =
            output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]));
        let Some(package) = depends.ok().as_deref().and_then(newest).map(str::to_owned) else {
            return Ok(None);
        };
        let directory = workspace.target().join("kernels").join(&package);
        let version = package.trim_start_matches("linux-image-").to_owned();
        let path = directory.join("boot").join(format!("vmlinuz-{version}"));
        if !path.exists() {
            debian::unpack(&[package], &directory)?;
        }
        Self::at(&path).map(Some)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, as its file's name has it.
    pub(crate) fn version(&self) -> &str {
        let name = self
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("of no name");
        name.trim_start_matches("vmlinuz-")
    }

    /// The modules' contents, those that are there.
    pub(super) fn modules(&self) -> Result<Vec<Vec<u8>>> {
        let Some(root) = self.path.parent().and_then(Path::parent) else {
            return Ok(Vec::new());
        };
        let directory = root
            .join("lib/modules")
            .join(self.version())
            .join("kernel/net/ipv4");
        MODULES
            .iter()
            .filter_map(|name| module(&directory, name).transpose())
            .collect()
    }
}

fn module(directory: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let plain = directory.join(format!("{name}.ko"));
    if plain.exists() {
        return fs::read(&plain)
            .map(Some)
            .with_context(|| format!("reading {}", plain.display()));
    }
    let compressed = directory.join(format!("{name}.ko.xz"));
    if !compressed.exists() {
        return Ok(None);
    }
    let unpacked = Command::new("xz").args(["-dc"]).arg(&compressed).output()?;
    ensure!(
        unpacked.status.success(),
        "unpacking {} failed",
        compressed.display()
    );
    Ok(Some(unpacked.stdout))
}

/// The package that the meta-package depends on.
fn newest(depends: &str) -> Option<&str> {
    depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| package.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_package_is_read_from_what_apt_prints() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n";
        assert_eq!(newest(depends), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(newest("linux-image-cloud-amd64\n"), None);
    }
}
