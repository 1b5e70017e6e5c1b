//! `cargo xtask tidy`: the rules of the tree that no compiler checks.
//!
//! A rule is a function from the tree to what it found.  Each has its own file
//! and a test that shows it can fail.

mod architecture;
mod changelog;
mod directions;
mod faults;
mod generated;
mod length;
mod lints;
mod machine_paths;
mod tree;
mod unfinished;

use anyhow::{Result, bail};

pub(crate) use self::tree::Tree;
use crate::{command::step, ebpf, workspace::Workspace};

/// A fault: where it is, what it is and what to do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    place: String,
    message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [(&str, Rule); 9] = [
    ("architecture", architecture::check),
    ("changelog", changelog::check),
    ("directions", directions::check),
    ("faults", faults::check),
    ("generated", generated::check),
    ("length", length::check),
    ("lints", lints::check),
    ("machine-paths", machine_paths::check),
    ("unfinished", unfinished::check),
];

/// Runs every rule; fails where one found something.
pub(crate) fn main(workspace: &Workspace) -> Result<()> {
    step("tidy");
    let tree = Tree::read(workspace)?;
    let mut found = 0;
    for (name, rule) in RULES {
        for finding in rule(&tree) {
            eprintln!("{}: {} [{name}]", finding.place, finding.message);
            found += 1;
        }
    }
    if let Err(error) = ebpf::check(workspace.root()) {
        eprintln!("monitor-ebpf/prebuilt: {error} [prebuilt]");
        found += 1;
    }
    if found > 0 {
        bail!("tidy found {found} faults");
    }
    Ok(())
}
