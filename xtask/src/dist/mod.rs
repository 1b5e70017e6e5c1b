//! `cargo xtask dist`: everything that a release publishes.
//!
//! One tree per package is laid out by debhelper, after `dist/debian`; the RPMs and
//! the images hold the same trees.  With the same binaries and the same
//! `SOURCE_DATE_EPOCH` every file is the same byte for byte.

mod deb;
mod floor;
mod licenses;
mod oci;
mod rpm;
mod sbom;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{output, step, timed},
    debian,
    workspace::Workspace,
};

/// The packages; of each the daemon that it is called after is the program.
pub(crate) const PACKAGES: [&str; 3] =
    ["speedmimi-agent", "speedmimi-collector", "speedmimi-proxy"];

/// What packs.
const TOOLS: [&str; 4] = ["binutils", "debhelper", "dpkg-dev", "rpm"];

/// `cargo xtask dist`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the files go [default: dist in the build directory]; what is there is
    /// replaced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is packed, and how.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    /// As in the packages' names.
    pub(crate) version: String,
    /// Where the binaries are.
    pub(crate) binaries: PathBuf,
    /// The time that everything is dated to, in seconds of Unix time.
    pub(crate) epoch: u64,
    /// As Debian calls it.
    pub(crate) architecture: String,
    /// How Debian packages are compressed, as `dpkg-deb -Z` takes it.
    pub(crate) compression: &'static str,
    /// Where the files go.
    pub(crate) out: PathBuf,
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    ensure_tools()?;
    let binaries = timed("building the optimised binaries", || build(workspace))?;
    let release = Release {
        version: workspace.version()?,
        binaries,
        epoch: epoch(workspace)?,
        architecture: architecture()?,
        compression: "xz",
        out: (args.out.clone()).unwrap_or_else(|| workspace.target().join("dist")),
    };
    floor::check(&release)?;
    timed("packing", || pack(workspace, &release))?;
    images(workspace, &release)?;
    sums(&release.out)?;
    println!("{}", release.out.display());
    Ok(())
}

/// Installs what packs.
pub(crate) fn ensure_tools() -> Result<()> {
    ensure!(
        debian::is_debian(),
        "packages are built on Debian: debhelper lays them out and finds the libraries that they need"
    );
    debian::ensure_installed(&TOOLS)
}

/// The packages and their bills of materials.
pub(crate) fn pack(workspace: &Workspace, release: &Release) -> Result<()> {
    let out = &release.out;
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("emptying {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let tree = tree::lay_out(workspace, release)?;
    let metadata = sbom::metadata(workspace)?;
    licenses::write(&metadata, &tree.join("licenses"))?;
    deb::build(release, &tree)?;
    rpm::build(workspace, release, &tree)?;
    sbom::write(workspace, release, &metadata)
}

/// The images; they need the base of Debian's packages from the network.
pub(crate) fn images(workspace: &Workspace, release: &Release) -> Result<()> {
    timed("making the images", || oci::write(workspace, release))
}

/// `SHA256SUMS` of everything, as `sha256sum --check` takes it.
pub(crate) fn sums(out: &Path) -> Result<()> {
    let mut text = String::new();
    for name in names(out)? {
        text += &format!("{}  {name}\n", oci::sha256(&fs::read(out.join(&name))?));
    }
    fs::write(out.join("SHA256SUMS"), text).context("writing SHA256SUMS")
}

/// The files of a directory, in order.
fn names(out: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Paths of this machine are in no binary.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to| format!("--remap-path-prefix={}={to}", from.display());
    let rust = [
        remap(workspace.root(), "/speedmimi"),
        remap(&home, "/cargo"),
    ];
    let c = format!("-ffile-prefix-map={}=/cargo", home.display());
    crate::command::run(
        workspace
            .cargo()
            .args(["build", "--release", "--locked", "--bins"])
            .args([
                "-p",
                "monitor-agent",
                "-p",
                "collector",
                "-p",
                "proxy",
                "-p",
                "cli",
            ])
            .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f"))
            .env("CFLAGS", c),
    )?;
    Ok(workspace.target().join("release"))
}

/// `SOURCE_DATE_EPOCH`, or the time of the commit that is built.
pub(crate) fn epoch(workspace: &Workspace) -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(Command::new("git").current_dir(workspace.root()).args([
            "log",
            "-1",
            "--format=%ct",
        ]))?,
    };
    text.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}: give seconds of Unix time"))
}

/// This machine's, as Debian calls it.
pub(crate) fn architecture() -> Result<String> {
    output(Command::new("dpkg").arg("--print-architecture"))
}

/// Runs a tool with everything that makes its output the same each time.
fn reproducible(command: &mut Command, release: &Release) -> Result<()> {
    step(&format!("{:?}", command.get_program()));
    command
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    output(command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_every_file_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        fs::write(dir.path().join("a"), "a\n").unwrap();
        fs::create_dir(dir.path().join("build")).unwrap();
        sums(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join("SHA256SUMS")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7  a",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b",
            ]
        );
    }
}
