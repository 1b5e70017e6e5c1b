//! A kernel to boot: an image and, where they are beside it, its modules.

use std::{
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
    /// them: in `lib/modules/VERSION` beside `boot`, or around the image.
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
            debian::unpack(&[package], &directory, None)?;
        }
        Self::at(&path).map(Some)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its version: behind its file's name, or the directory that it shares with
    /// its modules.
    pub(crate) fn version(&self) -> &str {
        match name(&self.path) {
            Some("vmlinuz") => self.path.parent().and_then(name),
            other => other,
        }
        .map_or("of no name", |name| name.trim_start_matches("vmlinuz-"))
    }

    /// The directory of its modules, where it is there.
    pub(super) fn module_directory(&self) -> Option<PathBuf> {
        let around = self.path.parent()?;
        let beside = around.with_file_name("lib/modules").join(self.version());
        let has_some = |directory: &PathBuf| directory.join("kernel").is_dir();
        [around.to_owned(), beside].into_iter().find(has_some)
    }

    /// The modules' contents, those that are there.
    pub(super) fn modules(&self) -> Result<Vec<Vec<u8>>> {
        let Some(directory) = self.module_directory() else {
            return Ok(Vec::new());
        };
        MODULES
            .iter()
            .filter_map(|name| module(&directory.join("kernel/net/ipv4"), name).transpose())
            .collect()
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn module(directory: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    for (ending, unpacker) in [("ko", "cat"), ("ko.xz", "xzcat"), ("ko.zst", "zstdcat")] {
        let file = directory.join(format!("{name}.{ending}"));
        if file.exists() {
            let context = || format!("unpacking {} by {unpacker}", file.display());
            let unpacked = Command::new(unpacker).arg(&file).output();
            let unpacked = unpacked.with_context(context)?;
            ensure!(unpacked.status.success(), "{} failed", context());
            return Ok(Some(unpacked.stdout));
        }
    }
    Ok(None)
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
    use super::*;

    #[test]
    fn a_version_is_in_the_images_name_or_in_that_of_its_directory() {
        for path in [
            "boot/vmlinuz-6.1.0-1-amd64",
            "usr/lib/modules/6.1.0-1-amd64/vmlinuz",
        ] {
            let image = Image { path: path.into() };
            assert_eq!(image.version(), "6.1.0-1-amd64");
        }
    }

    #[test]
    fn the_package_is_read_from_what_apt_prints() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n";
        assert_eq!(newest(depends), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(newest("linux-image-cloud-amd64\n"), None);
    }
}
