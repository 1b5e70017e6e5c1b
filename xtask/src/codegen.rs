//! `cargo xtask codegen`: the wire types, generated from the .proto files.
//!
//! The generator is heavy, so it is a program of its own behind a feature:
//! whoever only builds or runs the project never compiles it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{run, step},
    workspace::Workspace,
};

const COMMITTED: &str = "monitor-proto/src/generated";

/// `cargo xtask codegen`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing: fail where the committed code differs.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        return check(workspace);
    }
    generate(workspace, &workspace.path(COMMITTED))
}

/// Fails where the committed code is not what the generator writes now.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let fresh = workspace.target().join("codegen");
    generate(workspace, &fresh)?;
    compare(&fresh, &workspace.path(COMMITTED))
}

fn generate(workspace: &Workspace, out: &Path) -> Result<()> {
    step("generating the wire types");
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("emptying {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    run(workspace
        .cargo()
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--features",
            "codegen",
        ])
        .args(["--bin", "codegen", "--"])
        .arg(workspace.path("monitor-proto/proto"))
        .arg(out))
}

fn compare(fresh: &Path, committed: &Path) -> Result<()> {
    for (one, other) in [(fresh, committed), (committed, fresh)] {
        for entry in fs::read_dir(one).with_context(|| format!("listing {}", one.display()))? {
            let path = entry?.path();
            let twin = other.join(path.file_name().unwrap_or_default());
            if fs::read(&path).ok() != fs::read(&twin).ok() {
                bail!(
                    "{} is not what the generator writes; run `cargo xtask codegen` and commit it",
                    committed
                        .join(path.file_name().unwrap_or_default())
                        .display()
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_a_missing_file_and_a_stray_file_are_found() {
        let fresh = tempfile::tempdir().unwrap();
        let committed = tempfile::tempdir().unwrap();
        let write = |at: &Path, text| fs::write(at.join("v1.rs"), text).unwrap();

        write(fresh.path(), "a");
        assert!(compare(fresh.path(), committed.path()).is_err());
        write(committed.path(), "b");
        let error = compare(fresh.path(), committed.path()).unwrap_err();
        assert!(error.to_string().contains("cargo xtask codegen"));
        write(committed.path(), "a");
        compare(fresh.path(), committed.path()).unwrap();
        fs::write(committed.path().join("stray.rs"), "").unwrap();
        assert!(compare(fresh.path(), committed.path()).is_err());
    }
}
