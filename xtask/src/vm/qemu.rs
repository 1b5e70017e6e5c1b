//! The emulator, and the shell of the guest.
//!
//! What is installed is used.  Else Debian's packages are unpacked into the build
//! directory: installing them would remove newer tools of qemu.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command::output, debian, workspace::Workspace};

const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
const PROGRAM: &str = "qemu-system-x86_64";

/// How long the guest may take, also where nobody is there any more to end it.
const LIMIT_SECONDS: &str = "7200";

/// Where the packages have what qemu needs, below the directory that they were
/// unpacked into.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Both programs.
#[derive(Debug)]
pub(super) struct Qemu {
    /// The directory of the unpacked packages; `None` where they are installed.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    pub(super) fn find(workspace: &Workspace) -> Result<Self> {
        let installed = Self { unpacked: None };
        if installed.works() {
            return Ok(installed);
        }
        ensure!(
            debian::is_debian(),
            "{PROGRAM} and a static {} are needed: install qemu and busybox",
            installed.busybox().display()
        );
        let directory = workspace.tools().join("qemu");
        let unpacked = Self {
            unpacked: Some(directory.clone()),
        };
        if !unpacked.works() {
            debian::unpack(&debian::with_dependencies(&PACKAGES)?, &directory, None)?;
            output(unpacked.command()?.arg("--version"))?;
        }
        Ok(unpacked)
    }

    fn works(&self) -> bool {
        let version = self.command().and_then(|mut c| output(c.arg("--version")));
        self.busybox().exists() && version.is_ok()
    }

    /// The emulator, with its firmware, for a limited time.
    pub(super) fn command(&self) -> Result<Command> {
        let mut command = Command::new("timeout");
        command.arg(LIMIT_SECONDS);
        let Some(directory) = &self.unpacked else {
            command.arg(PROGRAM);
            return Ok(command);
        };
        command.arg(directory.join("usr/bin").join(PROGRAM));
        let libraries = env::join_paths(LIBRARIES.map(|path| directory.join(path)));
        command.env(
            "LD_LIBRARY_PATH",
            libraries.context("the build directory has a colon in its path")?,
        );
        for path in FIRMWARE {
            command.arg("-L").arg(directory.join(path));
        }
        Ok(command)
    }

    /// A busybox without libraries.
    pub(super) fn busybox(&self) -> PathBuf {
        let root = self.unpacked.as_deref().unwrap_or(Path::new("/"));
        root.join("bin/busybox")
    }
}
