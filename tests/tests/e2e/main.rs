//! The whole path, as a user runs it: real programs, real traffic, this
//! machine's kernel.
//!
//! Every figure is compared with `==` with what the load generator and the
//! origin carried.  Each test has its own cgroup, pins, store and ports, so
//! that they run side by side.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod balance;
mod exactness;
mod haproxy;
mod names;
mod namespace;
mod nginx;
mod outage;
mod privileges;
mod problems;
mod restart;
mod scene;
mod soak;
mod summary;
mod terminal;
mod tls;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};
use testkit::{
    ensure_bpffs,
    fixtures::{Haproxy, Nginx},
    missing_for_kernel_programs,
};

/// Tests at once: most of their time they wait for reports.
const THREADS: usize = 4;

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let missing = missing_for_kernel_programs();
    let cases = [
        balance::CASES,
        exactness::CASES,
        outage::CASES,
        privileges::CASES,
        problems::CASES,
        restart::CASES,
        soak::CASES,
        summary::CASES,
        terminal::CASES,
    ]
    .concat();
    let mut trials: Vec<Trial> = cases
        .into_iter()
        .map(|case| trial(case, missing.clone()))
        .collect();
    let installed = |program| Command::new(program).arg("-V").output().is_ok();
    let has_tls = Nginx::program().is_some() && installed("curl") && installed("openssl");
    for (program, is_there, cases) in [
        ("nginx", Nginx::program().is_some(), nginx::CASES),
        ("nginx", Nginx::program().is_some(), names::NGINX_CASES),
        ("nginx", Nginx::program().is_some(), problems::NGINX_CASES),
        (
            "haproxy",
            Haproxy::program().is_some(),
            names::HAPROXY_CASES,
        ),
        ("haproxy", Haproxy::program().is_some(), haproxy::CASES),
        (
            "haproxy",
            Haproxy::program().is_some(),
            balance::HAPROXY_CASES,
        ),
        ("ip (of iproute2)", installed("ip"), namespace::CASES),
        ("nginx, curl or openssl", has_tls, tls::CASES),
    ] {
        let absent = (!is_there).then(|| format!("{program} is not installed"));
        let missing = missing.clone().or(absent);
        trials.extend(cases.iter().map(|case| trial(*case, missing.clone())));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test, or the reason why this machine cannot run it.
fn trial((name, run): Case, missing: Option<String>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return Ok(Completion::ignored_with(reason));
        }
        // Mounted once for all, for it may not be yet.
        ensure_bpffs().map_err(|error| format!("{error:#}"))?;
        run();
        Ok(Completion::Completed)
    })
}
