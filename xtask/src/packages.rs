//! `cargo xtask test --packages`: the packages' tests, with binaries of the dev
//! profile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{output, run, timed},
    dist::{self, Release},
    rootfs,
    workspace::Workspace,
};

/// The version before, for which no binaries are kept: the same ones, packed as if
/// they were older.
const OLD: &str = "0.0.1";

/// What the tests need, or why this machine cannot have it.
pub(crate) enum Prepared {
    /// The command that runs them.
    Ready(Command),
    /// The reason.
    Missing(String),
}

/// Builds the packages three times and the root file system, and returns the
/// command that runs the tests.
pub(crate) fn prepare(workspace: &Workspace) -> Result<Prepared> {
    let root = match rootfs::of_debian(workspace)? {
        Ok(root) => root,
        Err(missing) => return Ok(Prepared::Missing(missing)),
    };
    let directory = workspace.target().join("packages");
    let version = workspace.version()?;
    timed("building the packages", || {
        for (build, version) in [("new", version.as_str()), ("again", &version), ("old", OLD)] {
            build_dev(workspace, &directory.join(build), version, build != "old")?;
        }
        Ok(())
    })?;
    let link = directory.join("root");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(root, &link)?;
    let program = test_program(workspace, "packages", None)?;
    // What is mounted goes with them, and nobody else's ports are in their way.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--", "sh", "-euc"]);
    command
        .args(["ip link set lo up; exec \"$0\""])
        .arg(program);
    command.env("SPEEDMIMI_PACKAGES", &directory);
    Ok(Prepared::Ready(command))
}

/// Packs the binaries of the dev profile, without compressing them; `with_images` as
/// images too.
pub(crate) fn build_dev(
    workspace: &Workspace,
    out: &Path,
    version: &str,
    with_images: bool,
) -> Result<()> {
    dist::ensure_tools()?;
    // As the tests are built, so that nothing is compiled twice.
    run(workspace
        .cargo()
        .args(["build", "--quiet", "--workspace", "--bins"]))?;
    let release = Release {
        version: version.to_owned(),
        binaries: workspace.target().join("debug"),
        epoch: dist::epoch(workspace)?,
        architecture: dist::architecture()?,
        compression: "none",
        out: out.to_owned(),
    };
    dist::pack(workspace, &release)?;
    if with_images {
        dist::images(workspace, &release)?;
    }
    dist::sums(out)
}

/// A test program, built as all tests are.
pub(crate) fn test_program(
    workspace: &Workspace,
    name: &str,
    object: Option<&Path>,
) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--test", name, "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if let Some(object) = object {
        cargo.env("SPEEDMIMI_BPF_OBJECT", object);
    }
    let messages = output(&mut cargo)?;
    executable(&messages, name).with_context(|| format!("cargo built no test program named {name}"))
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = "{\"target\":{\"name\":\"agent\"},\"executable\":\"/a\"}\nnoise\n\
                        {\"target\":{\"name\":\"kernel\"},\"executable\":\"/k\"}";
        assert_eq!(executable(messages, "kernel"), Some(PathBuf::from("/k")));
        assert_eq!(executable("{}", "kernel"), None);
    }
}
