//! The real programs in this machine's kernel, against traffic whose every
//! byte is known.
//!
//! The test process puts itself into a cgroup of its own and has the programs
//! count its own sockets: both sides of each connection, so every connection is
//! seen as `downstream` and as `upstream` at once.  A test has listeners of its
//! own, hence endpoints of its own, so tests run side by side.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod adoption;
mod bpf;
mod callbacks;
mod cgroup;
mod clients;
mod continuity;
mod crafted;
mod ends;
mod failures;
mod handshakes;
mod http;
mod listeners;
mod lossy;
mod namespaces;
mod network;
mod protocols;
mod retirement;
mod streams;
mod tls;
mod unreadable;
mod watch;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use self::watch::Watch;

type Case = (&'static str, fn(&Watch) -> Result<(), Failed>);

fn main() {
    let arguments = Arguments::from_args();
    let watch = match Watch::start() {
        Ok(watch) => &*Box::leak(Box::new(watch)),
        Err(why) => {
            eprintln!("skipped: {why}");
            let skipped = |(name, _): Case| Trial::test(name, || Ok(())).with_ignored_flag(true);
            let all = cases().chain(special_cases().map(|(case, _)| case));
            libtest_mimic::run(&arguments, all.map(skipped).collect()).exit();
        }
    };
    let mut trials = cases()
        .map(|(name, case)| Trial::test(name, move || case(watch)))
        .collect::<Vec<_>>();
    trials.extend(special_cases().map(|((name, case), missing)| {
        Trial::ignorable_test(name, move || match missing() {
            Some(why) => Ok(Completion::ignored_with(why)),
            None => case(watch).map(|()| Completion::Completed),
        })
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    watch.stop();
    conclusion.exit();
}

/// Those that need more than the kernel's programs, each with what is missing.
fn special_cases() -> impl Iterator<Item = (Case, fn() -> Option<String>)> {
    fn with(
        cases: impl IntoIterator<Item = Case>,
        missing: fn() -> Option<String>,
    ) -> impl Iterator<Item = (Case, fn() -> Option<String>)> {
        cases.into_iter().map(move |case| (case, missing))
    }
    with(lossy::CASES, lossy::missing)
        .chain(with(crafted::CASES, crafted::missing))
        .chain(with(ends::TIMEOUTS, ends::missing))
        .chain(with(listeners::CASES, listeners::missing))
        .chain(with(tls::OPENSSL, tls::missing))
        .chain(with(unreadable::ENCAPSULATED, unreadable::missing))
        .chain(with(handshakes::MOVING, handshakes::missing_moving))
        .chain(with(handshakes::MULTIPATH, handshakes::missing_multipath))
        .chain(with(
            continuity::UNPRIVILEGED,
            continuity::missing_unprivileged,
        ))
}

fn cases() -> impl Iterator<Item = Case> {
    let cases = streams::CASES
        .into_iter()
        .chain(failures::CASES)
        .chain(handshakes::CASES)
        .chain(http::CASES)
        .chain(continuity::CASES);
    cases
        .chain(adoption::CASES)
        .chain(namespaces::CASES)
        .chain(retirement::CASES)
        .chain(callbacks::CASES)
        .chain(ends::CASES)
        .chain(clients::CASES)
        .chain(unreadable::CASES)
        .chain(tls::CASES)
        .chain(protocols::CASES)
}
