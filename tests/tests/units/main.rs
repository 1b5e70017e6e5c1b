//! The units under a real systemd, on a machine where the packages are installed.
//!
//! `cargo xtask test --units` makes such a machine under qemu and runs this in it.
//! The tests change its configuration, so they run one after another.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod rights;
mod service;
mod traffic;
mod unit;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};

/// Set on the machine that was made for this.
const HERE: &str = "SPEEDMIMI_UNITS";

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let cases = [traffic::CASES, service::CASES, rights::CASES].concat();
    let trials = cases.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, run): Case) -> Trial {
    Trial::ignorable_test(name, move || {
        if env::var_os(HERE).is_none() {
            let why = "this machine is not one for it: run `cargo xtask test --units`";
            return Ok(Completion::ignored_with(why));
        }
        run();
        Ok(Completion::Completed)
    })
}
