//! The binary as a user meets it, without privileges and without a kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command, Output},
};

use libtest_mimic::{Arguments, Completion, Trial};
use monitor_agent::control;
use rustix::process::{Pid, Signal};
use testkit::wait_until as eventually;

macro_rules! trials {
    ($($test:ident, $missing:expr;)*) => {
        vec![$(trial(stringify!($test), $test, $missing)),*]
    };
}

fn trial(name: &str, test: fn(), missing: fn() -> Option<String>) -> Trial {
    Trial::ignorable_test(name, move || match missing() {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => {
            test();
            Ok(Completion::Completed)
        }
    })
}

fn nothing() -> Option<String> {
    None
}

fn missing_cgroup2() -> Option<String> {
    bpf::cgroup2_mount()
        .is_none()
        .then(|| "no cgroup2 is mounted here".to_owned())
}

/// Programs and pins, which need rights and a kernel.
fn missing_kernel() -> Option<String> {
    let doctor = agent(&["doctor", "--output", "json"]);
    let refused = || String::from_utf8_lossy(&doctor.stdout).into_owned();
    (!doctor.status.success())
        .then(refused)
        .or_else(missing_cgroup2)
}

fn main() {
    let trials = trials![
        bad_usage_and_bad_configuration_exit_with_64, nothing;
        a_start_that_fails_leaves_nothing_that_it_made, missing_kernel;
        what_is_missing_is_waited_for_and_a_hangup_reloads, missing_kernel;
        containers_are_watched_as_they_come_and_go, missing_kernel;
        a_second_agent_is_told_what_to_do, missing_kernel;
        the_socket_for_balancers_belongs_to_its_group, missing_kernel;
        names_of_a_target_that_is_not_watched_are_refused_before_anything_is_attached, missing_cgroup2;
        a_token_file_that_is_not_there_yet_is_told, missing_cgroup2;
        without_a_target_the_candidates_are_listed, missing_cgroup2;
        help_version_completions_and_the_manual_go_to_stdout, nothing;
        the_help_says_which_flags_may_be_repeated, nothing;
        what_is_not_there_is_told_with_what_to_do, nothing;
        the_configuration_is_checked_shown_and_explained, nothing;
        the_doctor_says_the_same_in_both_forms, nothing;
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn agent(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"));
    command.args(args).env_remove("SPEEDMIMI_TOKEN");
    command.output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    agent(args).status.code().unwrap()
}

fn stderr(args: &[&str]) -> String {
    String::from_utf8(agent(args).stderr).unwrap()
}

fn bad_usage_and_bad_configuration_exit_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, "colector = \"x\"\n").unwrap();
    let file = file.to_str().unwrap();
    let bad: [&[&str]; 11] = [
        &["top"],
        &["top", "--once", "--interval", "1ms"],
        &[],
        &["run", "--nonsense"],
        &["run", "--level", "udp"],
        &["run", "--config", file],
        &["run", "--config", "/nonexistent.toml"],
        &["run", "--whole-host", "--sample-interval", "1ms"],
        &["run", "--whole-host", "--collector", "ftp://x"],
        &["run", "--whole-host", "--token-file", "/"],
        &["run", "--cgroup", "/"],
    ];
    for args in bad {
        assert_eq!(code(args), 64, "{args:?}");
    }
    assert!(stderr(&["run", "--config", file]).contains("colector"));
}

fn a_start_that_fails_leaves_nothing_that_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let busy = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let metrics = busy.local_addr().unwrap().to_string();
    let pins = format!("/sys/fs/bpf/speedmimi-test-{}-busy", std::process::id());
    let socket = dir.path().join("control.sock");
    let args = [
        "run",
        "--whole-host",
        "--spool-dir",
        dir.path().to_str().unwrap(),
        "--control-socket",
        socket.to_str().unwrap(),
        "--pin-dir",
        &pins,
        "--metrics-listen",
        &metrics,
    ];
    let said = stderr(&args);
    assert!(said.contains("--metrics-listen"), "{said}");
    assert!(!socket.exists() && !std::path::Path::new(&pins).exists());
}

/// A cgroup of this test's own.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Self {
        let dir = bpf::cgroup2_mount().unwrap().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// Ends the agent and removes what it pinned, also where the test fails.
struct Agent {
    child: Child,
    pins: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        agent(&["uninstall", "--pin-dir", &self.pins]);
        fs::remove_dir(&self.pins).ok();
    }
}

impl Agent {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// A group that the agent is not in takes a right that it gives up at its start.
fn the_socket_for_balancers_belongs_to_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("speedmimi-test-{}-group", std::process::id());
    let _cgroup = Cgroup::make(&name);
    let pins = format!("/sys/fs/bpf/{name}");
    let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    let (socket, log) = (path("backends.sock"), path("log"));
    let child = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(["run", "--cgroup", &name, "--pin-dir", &pins])
        .args(["--spool-dir", &path("spool")])
        .args(["--control-socket", &path("control.sock")])
        .args(["--backends-socket", &socket])
        .args(["--backends-socket-group", "54321"])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut agent = Agent { child, pins };
    let logged = || fs::read_to_string(&log).unwrap();
    eventually("it is ready", || {
        assert_eq!(agent.child.try_wait().unwrap(), None, "{}", logged());
        logged().contains("ready")
    });
    let there = fs::metadata(&socket).unwrap();
    assert_eq!((there.gid(), there.mode() & 0o777), (54_321, 0o660));
    agent.signal(Signal::TERM);
    assert!(agent.child.wait().unwrap().success());
    assert!(!std::path::Path::new(&socket).exists());
}

/// Whether it is the target or the spool that another agent holds.
fn a_second_agent_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let id = std::process::id();
    let name = format!("speedmimi-test-{id}-twice");
    let _cgroup = Cgroup::make(&name);
    let pins = format!("/sys/fs/bpf/speedmimi-test-{id}-twice");
    let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    let (spool, control) = (path("spool"), path("control.sock"));
    let first = ["run", "--cgroup", &name, "--pin-dir", &pins];
    let child = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(first)
        .args(["--spool-dir", &spool, "--control-socket", &control])
        .stderr(fs::File::create(path("log")).unwrap())
        .spawn()
        .unwrap();
    let _agent = Agent {
        child,
        pins: pins.clone(),
    };
    eventually("the first one is ready", || {
        fs::read_to_string(path("log")).unwrap().contains("ready")
    });
    let (other, socket) = (path("other"), path("other.sock"));
    let own = ["--control-socket", &socket, "--spool-dir"];
    for (spool, busy) in [(&other, "another agent watches"), (&spool, "spool")] {
        let second = [&first[..], &own, &[spool]].concat();
        let text = stderr(&second);
        assert_eq!(code(&second), 1, "{text}");
        let advised = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(advised(busy) < advised("configuration of that one"));
        assert!(advised("configuration of that one") < advised("own --pin-dir"));
        for own in ["--spool-dir", "--control-socket", "host id"] {
            advised(own);
        }
    }
}

/// What is there is watched at once, and what comes later then; a SIGHUP is no end,
/// however early it comes.
fn what_is_missing_is_waited_for_and_a_hangup_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let id = std::process::id();
    let names = ["there", "late"].map(|name| format!("speedmimi-test-{id}-{name}"));
    let _there = Cgroup::make(&names[0]);
    let pins = format!("/sys/fs/bpf/speedmimi-test-{id}-wait");
    let (file, log) = (dir.path().join("agent.toml"), dir.path().join("log"));
    let written = |collector: &str, spool: &str| {
        let text = format!(
            "cgroup = [\"{}\", \"{}\"]\nunit = \"speedmimi-nonexistent\"\ncollector = \"{collector}\"\n\
             spool-dir = \"{}\"\n",
            names[0],
            names[1],
            dir.path().join(spool).display()
        );
        fs::write(&file, text).unwrap();
    };
    written("http://127.0.0.1:9", "spool");
    let socket = dir.path().join("control.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(["run", "--report-interval", "100ms", "--pin-dir", &pins])
        .arg("--config")
        .arg(&file)
        .arg("--control-socket")
        .arg(&socket)
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut agent = Agent { child, pins };
    // Once its handler is there, and long before it is ready.
    let hangup_is_caught = |id| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status
            .lines()
            .find_map(|l| l.strip_prefix("SigCgt:"))
            .unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
    };
    eventually("it catches SIGHUP", || hangup_is_caught(agent.child.id()));
    agent.signal(Signal::HUP);
    let status = || control::ask(&socket, "status").unwrap_or_default();
    let list = |key: &str| status()[key].as_array().map_or(0, Vec::len);
    eventually("one is watched", || list("targets") == 1);
    assert_eq!(list("waiting_for"), 2);
    let logged = |text: &str| fs::read_to_string(&log).unwrap().contains(text);
    eventually("the early one is served", || logged("reloaded"));
    let _late = Cgroup::make(&names[1]);
    eventually("the other one is watched too", || list("targets") == 2);
    assert_eq!(list("waiting_for"), 1);
    eventually("its programs are attached", || {
        logged("it is counted from now on")
    });

    written("http://127.0.0.1:10", "elsewhere");
    agent.signal(Signal::HUP);
    eventually("what needs a restart is named", || logged("spool-dir"));
    fs::write(&file, "colector = 1\n").unwrap();
    agent.signal(Signal::HUP);
    eventually("what is wrong is told", || logged("colector"));
    assert_eq!(agent.child.try_wait().unwrap(), None, "it runs on");
    agent.signal(Signal::TERM);
    assert!(agent.child.wait().unwrap().success());
}

/// Containers come and go while the agent runs; a name that fits none is waited for.
fn containers_are_watched_as_they_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let id = std::process::id();
    let digits = format!("{id:064x}");
    // As the driver cgroupfs of Docker and containers within make them.
    let parent = Cgroup::make(&format!("speedmimi-test-{id}-docker"));
    let scope = format!("speedmimi-test-{id}-docker/docker-{digits}.scope");
    let pins = format!("/sys/fs/bpf/speedmimi-test-{id}-containers");
    let (log, socket) = (dir.path().join("log"), dir.path().join("control.sock"));
    let child = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(["run", "--report-interval", "100ms", "--pin-dir", &pins])
        .args(["--container", &digits, "--collector", "http://127.0.0.1:9"])
        .arg("--control-socket")
        .arg(&socket)
        .arg("--spool-dir")
        .arg(dir.path().join("spool"))
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut agent = Agent { child, pins };
    let status = || control::ask(&socket, "status").unwrap_or_default();
    let list = |key: &str| status()[key].as_array().map_or(0, Vec::len);
    let logged = |text: &str| fs::read_to_string(&log).unwrap().contains(text);
    eventually("it is waited for", || list("waiting_for") == 1);
    assert_eq!(list("targets"), 0);
    assert!(logged(&format!(
        "no container {digits} runs here: it is waited for"
    )));
    let container = Cgroup::make(&scope);
    eventually("it is watched", || list("targets") == 1);
    assert_eq!(list("waiting_for"), 0);
    eventually("its programs are attached", || {
        logged("it is counted from now on")
    });
    drop(container);
    eventually("it is waited for again", || list("waiting_for") == 1);
    agent.signal(Signal::TERM);
    assert!(agent.child.wait().unwrap().success());
    drop(parent);
}

fn names_of_a_target_that_is_not_watched_are_refused_before_anything_is_attached() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nginx.conf");
    fs::write(&file, "http { upstream a { server 127.0.0.1:1; } }\n").unwrap();
    let names = format!("web.slice={}", file.display());
    let output = agent(&["run", "--whole-host", "--names-from", &names]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(
        text.contains("/web.slice is not watched; watched are: /"),
        "{text}"
    );
}

fn a_token_file_that_is_not_there_yet_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, "token-file = \"/nonexistent/token\"\n").unwrap();
    let file = file.to_str().unwrap();
    let check = agent(&["config", "check", file]);
    assert!(check.status.success());
    let checked = String::from_utf8(check.stderr).unwrap();
    // It ends for want of a target.
    let run = stderr(&["run", "--config", file]);
    for said in [checked, run] {
        for part in ["/nonexistent/token", "there is no token yet: none is sent"] {
            assert!(said.contains(part), "{said}");
        }
    }
}

fn without_a_target_the_candidates_are_listed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = agent(&["run"]);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--whole-host"), "{text}");
    assert!(text.contains(&address), "{text}");
}

fn help_version_completions_and_the_manual_go_to_stdout() {
    let asked: [(&[&str], &str); 6] = [
        (&["--help"], "Examples:"),
        (&["run", "--help"], "--spool-bytes"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "fish"], "speedmimi-agent"),
        (&["man"], ".TH speedmimi-agent"),
    ];
    for (args, expected) in asked {
        let output = agent(args);
        assert!(output.status.success(), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

fn the_help_says_which_flags_may_be_repeated() {
    let help = String::from_utf8(agent(&["run", "--help"]).stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for flag in ["--cgroup <", "--pid <", "--unit <", "--names-from <"] {
        let (_, told) = words.split_once(flag).unwrap();
        let (own, _) = told.split_once(" --").unwrap();
        assert!(own.contains("may be repeated"), "{flag}: {own}");
    }
}

fn the_configuration_is_checked_shown_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, agent(&["config", "example"]).stdout).unwrap();
    let path = file.to_str().unwrap();
    let check = agent(&["config", "check", path]);
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success(), "{said}");
    assert!(
        said.starts_with("the configuration is valid: 0 of "),
        "{said}"
    );

    fs::write(&file, "level = \"tcp\"\nspool-dir = \"/f\"\npin-dir = \"/f\"\notlp = \"http://h/?token=secret\"\n").unwrap();
    let show = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(["config", "show", "--output", "json", "--pin-dir", "/g"])
        .env("SPEEDMIMI_AGENT_CONFIG", path)
        .env("SPEEDMIMI_AGENT_SPOOL_DIR", "/e")
        .env("SPEEDMIMI_AGENT_PIN_DIR", "/e")
        .env("SPEEDMIMI_TOKEN", "a-secret-of-its-own")
        .output()
        .unwrap();
    let text = String::from_utf8(show.stdout).unwrap();
    assert!(show.status.success() && !text.contains("secret"), "{text}");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| {
        let all = shown.as_array().unwrap();
        let setting = all.iter().find(|setting| setting["key"] == key).unwrap();
        let text = |part: &str| setting[part].as_str().unwrap_or("–").to_owned();
        (text("value"), text("source"))
    };
    for (key, value, source) in [
        ("pin-dir", "/g", "flag"),
        ("spool-dir", "/e", "env SPEEDMIMI_AGENT_SPOOL_DIR"),
        ("level", "tcp", &format!("{path}:1:1")),
        ("otlp", "http://h/?…", &format!("{path}:4:1")),
        ("report-interval", "5s", "default"),
        ("ca-cert", "–", "default"),
    ] {
        assert_eq!(of(key), (value.to_owned(), source.to_owned()), "{key}");
    }

    let wrong = Command::new(env!("CARGO_BIN_EXE_speedmimi-agent"))
        .args(["config", "check"])
        .env("SPEEDMIMI_AGENT_LEVEL", "udp")
        .output()
        .unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(said.contains("SPEEDMIMI_AGENT_LEVEL: \"udp\""), "{said}");
}

fn what_is_not_there_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().to_str().unwrap();
    let snapshot = ["snapshot", "--pin-dir", nothing];
    assert_eq!(code(&snapshot), 1);
    assert!(stderr(&snapshot).contains("speedmimi-agent run"));
    let top = ["top", "--once", "--pin-dir", nothing];
    assert_eq!(code(&top), 1);
    let socket = dir.path().join("none.sock");
    let status = ["status", "--control-socket", socket.to_str().unwrap()];
    assert_eq!(code(&status), 1);
    assert!(stderr(&status).contains("is one running?"));
}

fn the_doctor_says_the_same_in_both_forms() {
    let json = agent(&["doctor", "--output", "json"]);
    let doctor: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let ok = doctor["ok"].as_bool().unwrap();
    assert_eq!(json.status.code(), Some(i32::from(!ok)));
    let table = String::from_utf8(agent(&["doctor"]).stdout).unwrap();
    for check in doctor["checks"].as_array().unwrap() {
        assert!(table.contains(check["name"].as_str().unwrap()), "{table}");
        let advised = !check["advice"].as_str().unwrap().is_empty();
        assert_eq!(advised, !check["ok"].as_bool().unwrap(), "{check}");
    }
}
