//! What the packages are made of, in one directory: binaries, what they print of
//! themselves, and the files of `dist`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{PACKAGES, Release};
use crate::{
    command::{output, run},
    workspace::Workspace,
};

/// The programs: those of the packages, and the command line.
pub(super) const PROGRAMS: [&str; 4] = [
    "speedmimi",
    "speedmimi-agent",
    "speedmimi-collector",
    "speedmimi-proxy",
];

/// How a shell calls the completions of a program.
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];

/// Lays everything out and returns where.
pub(super) fn lay_out(workspace: &Workspace, release: &Release) -> Result<PathBuf> {
    let tree = release.out.join("build/speedmimi");
    for directory in ["bin", "completions", "config"] {
        make(&tree.join(directory))?;
    }
    for program in PROGRAMS {
        let binary = tree.join("bin").join(program);
        copy(&release.binaries.join(program), &binary)?;
        let pages = tree.join("man").join(program);
        make(&pages)?;
        run(Command::new(&binary).args(["man", "--dir"]).arg(&pages))?;
        for (shell, before, after) in SHELLS {
            let script = output(Command::new(&binary).args(["completions", shell]))?;
            let file = tree.join(format!("completions/{before}{program}{after}"));
            write(&file, &format!("{script}\n"))?;
        }
    }
    let example = output(Command::new(tree.join("bin/speedmimi-proxy")).arg("example-config"))?;
    write(&tree.join("config/proxy.yaml"), &format!("{example}\n"))?;
    for name in ["config", "debian", "grafana", "prometheus"] {
        copy_directory(&workspace.path("dist").join(name), &tree.join(name))?;
    }
    // Under a name that debhelper does not take for Debian's changelog.
    copy(
        &workspace.path("CHANGELOG.md"),
        &tree.join("release-notes.md"),
    )?;
    copy(&workspace.path("docs/metrics.md"), &tree.join("metrics.md"))?;
    for package in PACKAGES {
        let unit = format!("{package}.service");
        let from = workspace.path("dist/systemd").join(&unit);
        copy(&from, &tree.join("debian").join(unit))?;
    }
    write(&tree.join("debian/changelog"), &changelog(release)?)?;
    Ok(tree)
}

/// Debian's changelog tells version and date; the changes are in the project's.
fn changelog(release: &Release) -> Result<String> {
    let at = format!("@{}", release.epoch);
    let date = output(Command::new("date").args(["--utc", "--rfc-email", "--date", &at]))?;
    Ok(format!(
        "speedmimi ({}) unstable; urgency=medium\n\n  * The changes are in \
         release-notes.md.gz beside this file.\n\n -- SpeedMimi maintainers \
         <maintainers@speedmimi.invalid>  {date}\n",
        release.version
    ))
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = fs::copy(from, to);
    copied.with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    make(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
