//! bpf-linker, of one version, so that two machines link alike.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::compiler::Compiler;
use crate::{
    command::{output, run, step},
    debian,
    workspace::{self, Workspace},
};

/// The version that is used everywhere.
const VERSION: &str = "0.13.0";

/// The directory of a bpf-linker of this version, built where there is none.
pub(super) fn ensure(workspace: &Workspace, compiler: &Compiler) -> Result<PathBuf> {
    let own = workspace.tools().join("bin");
    let search = env::var_os("PATH").unwrap_or_default();
    let home = env::home_dir().unwrap_or_default().join(".cargo/bin");
    let places = [own.clone(), home]
        .into_iter()
        .chain(env::split_paths(&search));
    for directory in places {
        if is_this_version(&directory.join("bpf-linker")) {
            return Ok(directory);
        }
    }
    install(workspace, compiler.llvm()?)?;
    Ok(own)
}

fn is_this_version(program: &Path) -> bool {
    program.exists()
        && output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
}

fn install(workspace: &Workspace, llvm: u32) -> Result<()> {
    let prefix = llvm_prefix(llvm)?;
    step(&format!(
        "building bpf-linker {VERSION} with LLVM {llvm} (about a minute)"
    ));
    run(workspace::cargo()
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"))
        .arg("--root")
        .arg(workspace.tools())
        // Outside of the workspace, whose flags are not meant for it.
        .current_dir(env::temp_dir())
        .env("LLVM_PREFIX", prefix)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS"))
}

/// Where LLVM's development files lie; Debian's are installed when missing.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(prefix.into());
    }
    let development = format!("llvm-{llvm}-dev");
    if debian::is_debian() && debian::offers(&development) {
        let polly = format!("libpolly-{llvm}-dev");
        debian::ensure_installed(&[&development, &polly, "zlib1g-dev", "libzstd-dev"])?;
        return Ok(format!("/usr/lib/llvm-{llvm}").into());
    }
    let config = format!("llvm-config-{llvm}");
    output(Command::new(&config).arg("--prefix"))
        .map(PathBuf::from)
        .with_context(|| {
            format!(
                "the kernel programs need bpf-linker {VERSION}: put the one from \
                 https://github.com/aya-rs/bpf-linker/releases on the PATH, or install the \
                 development files of LLVM {llvm} and set LLVM_PREFIX"
            )
        })
}
