//! RPMs of the trees of the Debian packages, by rpmbuild.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Release, reproducible};
use crate::workspace::Workspace;

/// Builds them.
pub(super) fn build(workspace: &Workspace, release: &Release, tree: &Path) -> Result<()> {
    let top = tree.with_file_name("rpm");
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.arg("-bb");
    let definitions = [
        format!("_topdir {}", top.display()),
        format!("trees {}", tree.join("debian").display()),
        format!("version_ {}", release.version),
        // As Red Hat has it, also where Debian's rpm builds.
        "_prefix /usr".to_owned(),
        "_dbpath /var/lib/rpm".to_owned(),
        "_buildhost reproducible".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        format!("_binary_payload {}", payload(release)),
    ];
    for definition in definitions {
        rpmbuild.args(["--define", &definition]);
    }
    rpmbuild.arg(workspace.path("dist/rpm/speedmimi.spec"));
    reproducible(&mut rpmbuild, release)?;
    let made = top.join("RPMS");
    for architecture in
        fs::read_dir(&made).with_context(|| format!("reading {}", made.display()))?
    {
        for package in fs::read_dir(architecture?.path())? {
            let package = package?;
            fs::rename(package.path(), release.out.join(package.file_name()))?;
        }
    }
    Ok(())
}

/// Compressed as the Debian packages are.
fn payload(release: &Release) -> &'static str {
    match release.compression {
        "xz" => "w6.xzdio",
        _ => "w1.gzdio",
    }
}
