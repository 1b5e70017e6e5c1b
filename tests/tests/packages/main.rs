//! The packages, installed as a user does: in a root file system of Debian, without
//! a service manager.
//!
//! `cargo xtask test --packages` builds the packages and the root file system, and
//! runs this in mount and network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod contents;
mod images;
mod life;
mod root;

use std::{env, path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};

/// A directory with `root`, and with the packages of three builds: `new`, `again`
/// of the same binaries, and `old`, of a version before.
const DIRECTORY: &str = "SPEEDMIMI_PACKAGES";

/// The daemons' packages.
const PACKAGES: [&str; 3] = ["speedmimi-agent", "speedmimi-collector", "speedmimi-proxy"];

type Case = (&'static str, fn(&Built));

/// What is tested.
struct Built {
    directory: PathBuf,
}

impl Built {
    fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They install into file systems and listen on the packages' own ports.
    arguments.test_threads = Some(1);
    let trials = [contents::CASES, images::CASES, life::CASES].concat();
    let trials = trials.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, run): Case) -> Trial {
    Trial::ignorable_test(name, move || {
        let Some(directory) = env::var_os(DIRECTORY) else {
            let why = "there are no packages: run `cargo xtask test --packages`";
            return Ok(Completion::ignored_with(why));
        };
        run(&Built {
            directory: directory.into(),
        });
        Ok(Completion::Completed)
    })
}
