//! Debian packages, by debhelper.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{PACKAGES, Release, reproducible};

/// Builds them from a tree; it leaves what each package holds below `debian/`.
pub(super) fn build(release: &Release, tree: &Path) -> Result<()> {
    let mut rules = Command::new("debian/rules");
    rules.arg("binary").current_dir(tree);
    rules.env("DEB_COMPRESSION", release.compression);
    // The tree has the rights that they are to have; the owner is root's.
    rules.env("DEB_RULES_REQUIRES_ROOT", "no");
    reproducible(&mut rules, release)?;
    for package in PACKAGES {
        let name = file_name(package, release);
        let beside = tree.with_file_name(&name);
        ensure!(beside.exists(), "debian/rules made no {name}");
        std::fs::rename(beside, release.out.join(name))?;
    }
    Ok(())
}

/// As dpkg calls the file.
pub(crate) fn file_name(package: &str, release: &Release) -> String {
    let Release {
        version,
        architecture,
        ..
    } = release;
    format!("{package}_{version}_{architecture}.deb")
}
