//! `doctor`: everything that the agent needs of this machine.

use std::path::Path;

use crate::{
    kernel::doctor::{self, Check},
    target::Roots,
};

/// Checks the kernel and what the targets are named by.
#[must_use]
pub fn checks(pin_dir: &Path) -> Vec<Check> {
    let mut checks = doctor::checks(pin_dir);
    checks.push(cgroup2());
    checks
}

fn cgroup2() -> Check {
    let (ok, detail, advice) = match Roots::detect() {
        Ok(roots) => (true, format!("mounted at {}", roots.cgroup.display()), ""),
        Err(_) => (
            false,
            "not mounted".to_owned(),
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    };
    Check {
        name: "cgroup2",
        ok,
        required: true,
        detail,
        advice: advice.to_owned(),
    }
}

/// The checks for people, one a line, and below it what to do.
#[must_use]
pub fn table(checks: &[Check]) -> String {
    let mut table = String::new();
    for check in checks {
        let mark = match (check.ok, check.required) {
            (true, _) => "ok",
            (false, true) => "FAILED",
            (false, false) => "missing",
        };
        table += &format!("{mark:<8} {:<14} {}\n", check.name, check.detail);
        if !check.advice.is_empty() {
            table += &format!("{:23} {}\n", "", check.advice);
        }
    }
    table
}
