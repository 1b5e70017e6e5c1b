//! Names against the programs whose configurations they are read from: what nginx
//! passes to and what `HAProxy` calls its servers is what the agent names.
//!
//! What a machine cannot run is counted as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod haproxy;
mod nginx;
mod root;

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use kernel_sample::{EndpointAddress, EndpointId};
use libtest_mimic::{Arguments, Completion, Trial};
use monitor_agent::names::NamesFiles;
use monitor_common::endpoint::Role;
use proxy_config::Name;
use window::TargetNames;

/// Only a test that fails waits for so long.
const TIMEOUT: Duration = Duration::from_secs(60);

type Case = (&'static str, fn());

fn main() {
    let installed = |name: &str| {
        let missing = || format!("{name} is not installed");
        program(name).is_none().then(missing)
    };
    let trials = [
        (nginx::CASES, installed("nginx")),
        (haproxy::CASES, installed("haproxy")),
        (root::CASES, root::missing()),
    ];
    let trials = trials.into_iter().flat_map(|(cases, missing)| {
        cases.iter().map(move |&(name, run)| {
            let missing = missing.clone();
            Trial::ignorable_test(name, move || {
                if let Some(why) = missing {
                    return Ok(Completion::ignored_with(why));
                }
                run();
                Ok(Completion::Completed)
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A program of a distribution, which may keep it off a user's path.
fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];
    let mut paths = places.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| path.exists())
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let program = program(name).unwrap();
    Command::new(program).args(arguments).output().unwrap()
}

/// A program that ends with its test.
struct Running(Child);

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let program = program(name).unwrap();
        Self(Command::new(program).args(arguments).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's and HAProxy's workers end with their master.
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

/// A small input that is kept beside these tests.
fn kept(name: &str) -> String {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proxy-config/cases");
    fs::read_to_string(cases.join(name)).unwrap()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The names in a configuration, as an agent has them.
fn names(file: &Path) -> TargetNames {
    let files = NamesFiles::new(&[file.to_owned()], &[]).unwrap().follow();
    files.settle(TIMEOUT);
    for (_, state) in files.iter() {
        assert_eq!(state.problem, None);
    }
    files.names()
}

fn called(names: &TargetNames, role: Role, address: SocketAddr) -> Name {
    names.of(&EndpointId {
        target: "/".into(),
        role,
        address: EndpointAddress::Socket(address),
    })
}

/// Tries until it succeeds.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < end, "{what}: {error}"),
        }
        sleep(Duration::from_millis(20));
    }
}
