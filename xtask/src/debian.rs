//! Packages of Debian, installed when a command needs them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::command::{output, run, step};

/// Whether packages can be installed by apt-get.
pub(crate) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Whether apt knows of a package by this name.
pub(crate) fn offers(package: &str) -> bool {
    output(Command::new("apt-cache").args(["policy", package]))
        .is_ok_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
}

/// Installs what is missing of these packages.
///
/// Fails with the command to type where this process may not install.
pub(crate) fn ensure_installed(packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these packages are missing: {list}; run `sudo apt-get install --no-install-recommends {list}`"
        );
    }
    step(&format!("installing {list}"));
    update_lists_once()?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
        .args(&missing))
}

/// Installs a daemon's package for its program alone: what apt-get would start
/// on this machine is not started, or stopped again.
pub(crate) fn install_without_starting(package: &str, unit: &str) -> Result<()> {
    if missing(&[package]).is_empty() {
        return Ok(());
    }
    step(&format!("installing {package}"));
    update_lists_once()?;
    // Where there is no systemd, run level 1 starts nothing.
    run(apt_get().env("RUNLEVEL", "1").args([
        "install",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
        package,
    ]))?;
    if Path::new("/run/systemd/system").exists() {
        run(Command::new("systemctl").args(["disable", "--now", unit]))?;
    }
    Ok(())
}

/// Unpacks packages into a directory, and nowhere else: nothing of the system
/// changes, and what could not stand beside installed packages can be used.  What
/// dpkg would keep of each package goes to `described`, as scanners of images read it.
pub(crate) fn unpack(
    packages: &[String],
    directory: &Path,
    described: Option<&Path>,
) -> Result<()> {
    step(&format!("unpacking {}", packages.join(" ")));
    let archives = directory.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("making {}", archives.display()))?;
    run(apt_get()
        .current_dir(&archives)
        .arg("download")
        .args(packages))?;
    for archive in fs::read_dir(&archives)? {
        let archive = archive?.path();
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(directory))?;
        if let Some(described) = described {
            fs::create_dir_all(described)?;
            let control = output(Command::new("dpkg-deb").arg("--field").arg(&archive))?;
            let name = control
                .lines()
                .find_map(|line| line.strip_prefix("Package: "));
            let name = name.with_context(|| format!("{} has no name", archive.display()))?;
            fs::write(described.join(name), format!("{control}\n"))?;
        }
    }
    fs::remove_dir_all(&archives).with_context(|| format!("removing {}", archives.display()))
}

/// These packages and those that they need and that are not installed, as apt-get
/// takes them.
pub(crate) fn with_dependencies(packages: &[&str]) -> Result<Vec<String>> {
    update_lists_once()?;
    let mut simulation = apt_get();
    simulation
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages);
    let mut all = to_install(&output(&mut simulation)?);
    // Those that are installed already are wanted too.
    for package in packages {
        if !all
            .iter()
            .any(|one| one.starts_with(&format!("{package}=")))
        {
            all.push((*package).to_owned());
        }
    }
    Ok(all)
}

/// The packages that apt-get says it would install, with their versions; not those
/// that it would only upgrade.
fn to_install(simulation: &str) -> Vec<String> {
    let lines = simulation.lines();
    let installs = lines.filter_map(|line| line.strip_prefix("Inst "));
    installs
        .filter_map(|install| {
            // Of an upgrade the version before comes first, in brackets.
            let (name, version) = install.split_once(" (")?;
            let version = version.split(' ').next()?;
            (!name.contains(' ')).then(|| format!("{name}={version}"))
        })
        .collect()
}

/// Refreshes the package lists, unless this process has done so already.
pub(crate) fn update_lists_once() -> Result<()> {
    static DONE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if DONE.swap(true, std::sync::atomic::Ordering::Relaxed) {
        return Ok(());
    }
    run(apt_get().arg("update"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "Dpkg::Use-Pty=0"]);
    command
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let status = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
    let installed = installed(&status);
    packages
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect()
}

/// The packages that dpkg's status file calls installed.
fn installed(status: &str) -> std::collections::HashSet<&str> {
    status
        .split("\n\n")
        .filter(|paragraph| {
            paragraph
                .lines()
                .any(|line| line == "Status: install ok installed")
        })
        .filter_map(|paragraph| paragraph.lines().find_map(|l| l.strip_prefix("Package: ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{installed, to_install};

    #[test]
    fn what_would_be_installed_is_read_from_a_simulation() {
        let simulation = "Remv other [1]\nInst a (1:2.0+b1 Debian:12/stable [amd64])\n\
                          Inst b [1.0] (1.1 Debian:12/stable [all]) []\nConf a (1:2.0+b1)\n";
        assert_eq!(to_install(simulation), ["a=1:2.0+b1"]);
    }

    #[test]
    fn removed_packages_do_not_count_as_installed() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
                      Package: b\nStatus: deinstall ok config-files\n";
        let set = installed(status);
        assert!(set.contains("a"));
        assert!(!set.contains("b"));
    }
}
