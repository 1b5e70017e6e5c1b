//! The oldest C library that the binaries run with.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{Release, tree::PROGRAMS};
use crate::command::{output, step};

/// Debian 12, Ubuntu 22.04 and RHEL 9 have it or a newer one; with older systems
/// come kernels older than those that the agent runs on.
const FLOOR: (u32, u32) = (2, 34);

/// Fails where a binary needs a newer one.
pub(super) fn check(release: &Release) -> Result<()> {
    for program in PROGRAMS {
        let symbols = output(
            Command::new("objdump")
                .arg("-T")
                .arg(release.binaries.join(program)),
        )?;
        let (major, minor) = newest(&symbols).unwrap_or_default();
        step(&format!("{program} needs glibc {major}.{minor}"));
        ensure!(
            (major, minor) <= FLOOR,
            "{program} needs glibc {major}.{minor}, newer than {}.{}: build it on Debian 12",
            FLOOR.0,
            FLOOR.1
        );
    }
    Ok(())
}

/// The newest version that a table of symbols names.
fn newest(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.lines().filter_map(|line| {
        let (_, after) = line.split_once("GLIBC_")?;
        let version = after.split([')', ' ']).next()?;
        let mut parts = version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_version_is_found_by_its_numbers() {
        let symbols = "0 DF *UND* 0 (GLIBC_2.4) a\n0 DF *UND* 0 (GLIBC_2.34) b\n\
                       0  w   D  *UND* 0  GLIBC_PRIVATE c\n0 DF *UND* 0 (GLIBC_2.2.5) d\n";
        assert_eq!(newest(symbols), Some((2, 34)));
        assert_eq!(newest("no symbols\n"), None);
    }
}
