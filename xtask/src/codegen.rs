//! `cargo xtask codegen`: the wire types and all that follows from the definitions
//! of the figures, generated from the .proto files.
//!
//! The generator is heavy, so it is a program of its own behind a feature:
//! whoever only builds or runs the project never compiles it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{run, step},
    workspace::Workspace,
};

/// Holds nothing but generated files.
const GENERATED: &str = "monitor-proto/src/generated";

/// `cargo xtask codegen`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing: fail where the committed files differ.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        return check(workspace);
    }
    let fresh = generate(workspace)?;
    replace(&fresh, &workspace.path(""))
}

/// Fails where a committed file is not what the generator writes now.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let fresh = generate(workspace)?;
    compare(&fresh, &workspace.path(""))
}

/// Writes the generated files below a directory of their own, which is returned.
fn generate(workspace: &Workspace) -> Result<PathBuf> {
    step("generating what follows from the .proto files");
    let out = workspace.target().join("codegen");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("emptying {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
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
        .arg(workspace.path(""))
        .arg(&out))?;
    Ok(out)
}

/// The paths of the files below a directory.
fn files(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        let listing = || format!("listing {}", next.display());
        for entry in fs::read_dir(&next).with_context(listing)? {
            let path = entry.with_context(listing)?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(directory)?.to_owned());
            }
        }
    }
    Ok(files)
}

/// The committed files among which a generated one is missing or differs, or that
/// nothing generates.
fn different(fresh: &Path, committed: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut all = files(fresh)?;
    let strays = files(&committed.join(GENERATED))?;
    all.extend(strays.iter().map(|path| Path::new(GENERATED).join(path)));
    all.retain(|path| fs::read(fresh.join(path)).ok() != fs::read(committed.join(path)).ok());
    Ok(all)
}

fn compare(fresh: &Path, committed: &Path) -> Result<()> {
    if let Some(path) = different(fresh, committed)?.first() {
        bail!(
            "{} is not what the generator writes; run `cargo xtask codegen` and commit it",
            path.display()
        );
    }
    Ok(())
}

/// Writes what differs; what nothing generates goes.
fn replace(fresh: &Path, committed: &Path) -> Result<()> {
    for path in different(fresh, committed)? {
        let (from, to) = (fresh.join(&path), committed.join(&path));
        let done = if from.exists() {
            fs::copy(&from, &to).map(drop)
        } else {
            fs::remove_file(&to)
        };
        done.with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_a_missing_file_and_a_stray_file_are_found_and_mended() {
        let fresh = tempfile::tempdir().unwrap();
        let committed = tempfile::tempdir().unwrap();
        let write = |at: &Path, name: &str, text| {
            fs::create_dir_all(at.join(GENERATED)).unwrap();
            fs::create_dir_all(at.join("docs")).unwrap();
            fs::write(at.join(name), text).unwrap();
        };
        let generated = format!("{GENERATED}/v1.rs");

        write(fresh.path(), &generated, "a");
        write(committed.path(), "docs/by-hand.md", "kept");
        assert!(compare(fresh.path(), committed.path()).is_err(), "missing");
        write(committed.path(), &generated, "b");
        let error = compare(fresh.path(), committed.path()).unwrap_err();
        assert!(error.to_string().contains("cargo xtask codegen"));
        write(committed.path(), &generated, "a");
        compare(fresh.path(), committed.path()).unwrap();
        write(committed.path(), &format!("{GENERATED}/stray.rs"), "");
        assert!(compare(fresh.path(), committed.path()).is_err(), "stray");
        write(fresh.path(), "docs/metrics.md", "tables");
        replace(fresh.path(), committed.path()).unwrap();
        compare(fresh.path(), committed.path()).unwrap();
        let left = files(committed.path()).unwrap();
        let names = ["docs/by-hand.md", "docs/metrics.md", generated.as_str()];
        assert_eq!(left, names.map(PathBuf::from).into());
    }
}
