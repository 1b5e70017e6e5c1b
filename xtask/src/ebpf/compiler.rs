//! The compiler of the kernel programs.
//!
//! Debian ships a Rust with a ready-made `core` for BPF, so that neither
//! nightly nor rust-src is needed there.  Elsewhere rustup's nightly builds
//! `core` itself.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{output, run, step},
    debian,
    workspace::{self, Workspace},
};

/// Debian's compiler, its `core` for BPF, and its clippy.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// A compiler that is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compiler {
    /// /usr/bin/rustc of Debian's package rustc-web.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
}

impl Compiler {
    /// Chooses the compiler of this distribution, unless nightly is asked for,
    /// and installs what is missing.
    pub(super) fn prepare(workspace: &Workspace, nightly: bool) -> Result<Self> {
        let manifest = workspace.path("monitor-ebpf/Cargo.toml");
        ensure!(manifest.exists(), "{} is missing", manifest.display());
        if debian::is_debian() && !nightly {
            if !debian::offers(DEBIAN_PACKAGES[1]) && rustix::process::geteuid().is_root() {
                debian::update_lists_once()?;
            }
            if debian::offers(DEBIAN_PACKAGES[1]) {
                debian::ensure_installed(&DEBIAN_PACKAGES)?;
                return Ok(Self::Debian);
            }
        }
        install_nightly()?;
        Ok(Self::Nightly)
    }

    /// Cargo for the kernel programs: `build` or `clippy`.
    pub(super) fn cargo(self, workspace: &Workspace, subcommand: &str) -> Result<Command> {
        let mut command = match (self, subcommand) {
            (Self::Debian, "clippy") => {
                // Beside it lies the clippy-driver of the same compiler.
                let mut command = Command::new("/usr/bin/cargo-clippy");
                command.arg("clippy");
                command.env("CARGO", workspace::cargo().get_program());
                command
            }
            (Self::Debian, _) => {
                let mut command = workspace::cargo();
                command.arg(subcommand);
                command
            }
            (Self::Nightly, _) => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", subcommand, "-Zbuild-std=core"]);
                command
            }
        };
        if self == Self::Debian {
            // The prebuilt `core` counts as unstable to its own compiler.
            command.env("RUSTC", "/usr/bin/rustc");
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
            .args(["--release", "--target", target()])
            .arg("--target-dir")
            .arg(workspace.target().join("bpf"))
            .current_dir(workspace.path("monitor-ebpf"))
            // The library path of the cargo that runs us is not theirs.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO_TARGET_DIR")
            .env("RUSTFLAGS", rustflags(workspace)?);
        Ok(command)
    }

    /// What `rustc --version` says.
    pub(super) fn version(self) -> Result<String> {
        output(self.rustc().arg("--version"))
    }

    /// The major version of its LLVM, which the linker's must not be below.
    pub(super) fn llvm(self) -> Result<u32> {
        let text = output(self.rustc().arg("-vV"))?;
        llvm_major(&text).with_context(|| format!("no LLVM version in: {text}"))
    }

    /// The object that `build` leaves.
    pub(super) fn product(self, workspace: &Workspace) -> PathBuf {
        workspace
            .target()
            .join("bpf")
            .join(target())
            .join("release/speedmimi-bpf")
    }

    fn rustc(self) -> Command {
        match self {
            Self::Debian => {
                let mut command = Command::new("/usr/bin/rustc");
                command.env_remove("LD_LIBRARY_PATH");
                command
            }
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
        }
    }
}

fn install_nightly() -> Result<()> {
    let has_source = output(Command::new("rustup").args([
        "component",
        "list",
        "--installed",
        "--toolchain",
        "nightly",
    ]))
    .is_ok_and(|components| {
        ["rust-src", "clippy"]
            .iter()
            .all(|c| components.contains(c))
    });
    if has_source {
        return Ok(());
    }
    step("installing rustup's nightly with rust-src");
    run(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--component",
        "clippy",
        "--no-self-update",
    ]))
    .context("the kernel programs need rustup (https://rustup.rs) on this distribution")
}

/// The flags of every build; paths of this machine are kept out of the object.
fn rustflags(workspace: &Workspace) -> Result<String> {
    let home = env::var("HOME").unwrap_or_default();
    let cargo_home = env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let root = workspace
        .root()
        .to_str()
        .context("the path of the repository is no UTF-8")?;
    ensure!(
        !root.contains(' ') && !cargo_home.contains(' '),
        "build-ebpf cannot work below a path with a space: {root}, {cargo_home}"
    );
    Ok(format!(
        "--cfg=bpf_target_arch=\"{}\" -Cdebuginfo=2 -Clink-arg=--btf \
         --remap-path-prefix={cargo_home}=cargo --remap-path-prefix={root}=.",
        env::consts::ARCH
    ))
}

/// BPF's own target in the byte order of this machine.
fn target() -> &'static str {
    if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|l| l.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_llvm_version_is_read_from_the_compilers_own_words() {
        assert_eq!(
            llvm_major("release: 1.96.0\nLLVM version: 22.1.8"),
            Some(22)
        );
        assert_eq!(llvm_major("release: 1.96.0"), None);
    }
}
