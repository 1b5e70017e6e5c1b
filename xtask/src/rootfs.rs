//! A root file system of this Debian release, by debootstrap.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{output, run, timed},
    debian,
    workspace::Workspace,
};

/// What the packages need, and what looks at them.
const INCLUDED: &str = "dbus,init-system-helpers,iproute2,kmod,man-db,systemd,systemd-sysv";

/// Makes it, unless it is there, and says where; `Err` with the reason where it cannot
/// be had on this machine.
pub(crate) fn of_debian(workspace: &Workspace) -> Result<Result<PathBuf, String>> {
    if !debian::is_debian() {
        return Ok(Err("this is no Debian".to_owned()));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Err("debootstrap needs root".to_owned()));
    }
    if let Err(error) = debian::ensure_installed(&["debootstrap"]) {
        return Ok(Err(format!("debootstrap cannot be installed: {error:#}")));
    }
    let (codename, mirror) = release()?;
    let directory = workspace.target().join("rootfs").join(&codename);
    if !directory.exists() {
        let partial = directory.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        timed("making a root file system", || {
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.args(["--variant=minbase", "--include", INCLUDED]);
            run(debootstrap.arg(&codename).arg(&partial).arg(&mirror))
        })?;
        strip(&partial)?;
        fs::rename(&partial, &directory)?;
    }
    Ok(Ok(directory))
}

/// Takes away what only a package manager on the network needs.
fn strip(root: &Path) -> Result<()> {
    for path in ["var/cache/apt", "var/lib/apt/lists"] {
        fs::remove_dir_all(root.join(path)).with_context(|| format!("removing {path}"))?;
    }
    Ok(())
}

/// The codename of this release, and where apt has its packages from.
fn release() -> Result<(String, String)> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(CODENAME) $(SITE)"]);
    targets.args(["Created-By: Packages", "Component: main"]);
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let codename = codename(&text).context("/etc/os-release has no VERSION_CODENAME")?;
    let targets = output(&mut targets)?;
    let mirror = mirror(&targets, codename);
    let mirror = mirror.with_context(|| format!("apt has no source of {codename}"))?;
    Ok((codename.to_owned(), mirror.to_owned()))
}

fn codename(os_release: &str) -> Option<&str> {
    let mut lines = os_release.lines();
    let value = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"'))
}

fn mirror<'a>(targets: &'a str, codename: &str) -> Option<&'a str> {
    let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
    lines.find_map(|(of, site)| (of == codename).then_some(site))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_and_its_mirror_are_read() {
        let os_release = "NAME=\"Debian\"\nVERSION_CODENAME=bookworm\n";
        assert_eq!(codename(os_release), Some("bookworm"));
        let targets = "bookworm-security https://a/security\nbookworm https://a/debian\n";
        assert_eq!(mirror(targets, "bookworm"), Some("https://a/debian"));
        assert_eq!(mirror(targets, "trixie"), None);
    }
}
