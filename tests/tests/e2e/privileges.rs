//! The agent with as few privileges as it can do with, and what it finds that
//! it cannot count.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::chown},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use testkit::{
    Cgroup, Process, eventually,
    fixtures::{Agent, AgentPlan, Binaries},
};

use super::Case;

pub(crate) const CASES: &[Case] = &[
    (
        "an_agent_keeps_three_capabilities_and_works_with_them",
        three_capabilities,
    ),
    (
        "an_agent_with_a_spool_of_somebody_else_may_write_it",
        spool_of_another,
    ),
    (
        "an_agent_that_watches_another_network_namespace_may_enter_it",
        other_namespace,
    ),
    (
        "a_network_namespace_that_comes_later_is_looked_at_where_that_is_wanted",
        later_namespace,
    ),
    (
        "listeners_that_were_made_in_another_cgroup_are_named",
        foreign_listener,
    ),
    ("targets_within_each_other_are_refused", nested_targets),
];

const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const DAC_OVERRIDE: u64 = 1 << 1;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;

const SOON: Duration = Duration::from_secs(30);

/// Nobody listens there: what is reported waits.
const NOBODY: [&str; 2] = ["--collector", "http://127.0.0.1:9"];

fn plan(cgroup: &Cgroup) -> AgentPlan {
    let binaries = Binaries::of_this_build().unwrap();
    let plan = AgentPlan::watching(&binaries, cgroup).unwrap();
    plan.every(Duration::from_millis(200)).with(NOBODY)
}

/// Kept where this process has it, too.
fn perfmon() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let permitted = status.lines().find_map(|l| l.strip_prefix("CapPrm:"));
    u64::from_str_radix(permitted.unwrap().trim(), 16).unwrap() & PERFMON
}

/// The capabilities of every thread; each must have the same, and no way to get
/// others.
fn capabilities(agent: &mut Agent) -> u64 {
    let tasks = Path::new("/proc").join(agent.process().id().to_string());
    let threads = fs::read_dir(tasks.join("task")).unwrap();
    let mut found = Vec::new();
    for thread in threads {
        // One that looked a name up may have ended meanwhile.
        let Ok(status) = fs::read_to_string(thread.unwrap().path().join("status")) else {
            continue;
        };
        let value = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}"))
                .trim()
                .to_owned()
        };
        let set = |name| u64::from_str_radix(&value(name), 16).unwrap();
        assert_eq!(set("CapInh:"), 0);
        assert_eq!(set("CapAmb:"), 0);
        assert_eq!(set("CapEff:"), set("CapPrm:"));
        assert_eq!(set("CapBnd:"), set("CapPrm:"));
        assert_eq!(value("NoNewPrivs:"), "1");
        found.push(set("CapEff:"));
    }
    assert!(found.len() > 1, "the sampler has a thread of its own");
    found.dedup();
    assert_eq!(found.len(), 1, "{found:x?}");
    found[0]
}

/// Reports are written now, and not only those of the start.
fn assert_it_reports(agent: &Agent) {
    let next = || {
        agent.ask(&["status"]).unwrap()["next_sequence"]
            .as_u64()
            .unwrap()
    };
    let first = next();
    eventually("two more reports", SOON, || {
        (next() > first + 1).then_some(())
    });
}

/// One connection from within the cgroup.
fn connect(cgroup: &Cgroup, to: SocketAddr) {
    let mut command = Command::new("bash");
    let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    command.args(["-c", &script]);
    let mut client = Process::start("client", command, Some(cgroup)).unwrap();
    eventually("the client's end", SOON, || {
        (!client.is_running()).then_some(())
    });
}

fn opened(agent: &Agent, to: SocketAddr) -> u64 {
    let report = agent.snapshot().unwrap();
    let endpoints = report["endpoints"].as_array().unwrap();
    let to = Value::from(to.to_string());
    let one = endpoints.iter().find(|e| e["address"] == to);
    one.map_or(0, |e| e["totals"]["connections_opened"].as_u64().unwrap())
}

fn three_capabilities() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let cgroup = Cgroup::create("capabilities").unwrap();
    let mut agent = plan(&cgroup).start().unwrap();
    assert_eq!(capabilities(&mut agent), BPF | NET_ADMIN | perfmon());
    let log = agent.process().log();
    assert!(log.contains("kept=\"CAP_BPF,CAP_NET_ADMIN"), "{log}");
    assert_it_reports(&agent);

    // Programs can still be detached and attached.
    for level in ["tcp", "http"] {
        let answer = agent.ask(&["level", level]).unwrap();
        assert_eq!(answer["level"], level);
    }
    connect(&cgroup, to);
    eventually("the first connection", SOON, || {
        (opened(&agent, to) == 1).then_some(())
    });

    // And anew, to a cgroup that was made again.
    fs::remove_dir(cgroup.path()).unwrap();
    fs::create_dir(cgroup.path()).unwrap();
    eventually("the agent's attention", SOON, || {
        let log = agent.process().log();
        log.contains("has come; it is counted").then_some(())
    });
    connect(&cgroup, to);
    eventually("the second connection", SOON, || {
        (opened(&agent, to) == 2).then_some(())
    });
    assert_it_reports(&agent);
    assert_eq!(capabilities(&mut agent), BPF | NET_ADMIN | perfmon());
    agent.stop().unwrap();
}

fn spool_of_another() {
    let nobody = Some(65_534);
    let cgroup = Cgroup::create("spool").unwrap();
    let plan = plan(&cgroup);
    fs::create_dir(plan.spool()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(plan.spool(), private).unwrap();
    chown(plan.spool(), nobody, nobody).unwrap();
    let mut agent = plan.start().unwrap();
    assert_eq!(
        capabilities(&mut agent),
        BPF | NET_ADMIN | perfmon() | DAC_OVERRIDE
    );
    assert_it_reports(&agent);
    agent.stop().unwrap();
}

/// A process with a network namespace of its own.
fn isolated(cgroup: &Cgroup) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "1000"]);
    let other = Process::start("sleep", command, Some(cgroup)).unwrap();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    eventually("its namespace", SOON, || {
        (namespace(&other.id().to_string()) != namespace("self")).then_some(())
    });
    other
}

fn other_namespace() {
    let cgroup = Cgroup::create("namespace").unwrap();
    let _other = isolated(&cgroup);
    let mut agent = plan(&cgroup).start().unwrap();
    let expected = BPF | NET_ADMIN | perfmon() | SYS_ADMIN | SYS_PTRACE;
    assert_eq!(capabilities(&mut agent), expected);
    agent.stop().unwrap();
}

fn later_namespace() {
    let advice = "with --network-namespaces for those that come later";
    let cgroup = Cgroup::create("later").unwrap();
    let mut agent = plan(&cgroup).start().unwrap();
    assert_it_reports(&agent);
    assert!(!agent.process().log().contains(advice));
    let other = isolated(&cgroup);
    eventually("what to do", SOON, || {
        agent.process().log().contains(advice).then_some(())
    });
    agent.stop().unwrap();
    drop(other);

    let flag = ["--network-namespaces"];
    let mut agent = plan(&cgroup).with(flag).start().unwrap();
    let expected = BPF | NET_ADMIN | perfmon() | SYS_ADMIN | SYS_PTRACE;
    assert_eq!(capabilities(&mut agent), expected);
    assert_it_reports(&agent);
    let _other = isolated(&cgroup);
    assert_it_reports(&agent);
    assert_it_reports(&agent);
    assert!(!agent.process().log().contains(advice));
    agent.stop().unwrap();
}

/// A process that has a listener for its standard input.
struct Inheritor(Child);

impl Inheritor {
    fn of(listener: &TcpListener, cgroup: &Cgroup) -> Self {
        let handed = OwnedFd::from(listener.try_clone().unwrap());
        let mut command = Command::new("sleep");
        let child = command.arg("1000").stdin(Stdio::from(handed)).spawn();
        let one = Self(child.unwrap());
        let procs = cgroup.path().join("cgroup.procs");
        fs::write(procs, one.0.id().to_string()).unwrap();
        one
    }
}

impl Drop for Inheritor {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn foreign_listener() {
    let handed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = handed.local_addr().unwrap();
    let cgroup = Cgroup::create("inheritor").unwrap();
    let _inheritor = Inheritor::of(&handed, &cgroup);
    let mut agent = plan(&cgroup).start().unwrap();
    let log = agent.process().log();
    let label = cgroup.path().file_name().unwrap().to_str().unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap();
    let named = format!("{address} of sleep in /{label}: its socket was made in the cgroup {own};");
    assert!(log.contains(&named), "{log}");

    let doctor = |arguments: &[&str]| {
        let program = Binaries::of_this_build().unwrap().find("speedmimi-agent");
        let mut command = Command::new(program.unwrap());
        command.args(["doctor", "--output", "json"]).args(arguments);
        let output = command.output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = all["checks"].as_array().unwrap().clone();
        let is_it = |c: &Value| c["name"] == "listeners";
        checks.into_iter().find(is_it).unwrap()
    };
    let of_pins = doctor(&["--pin-dir", agent.pins().to_str().unwrap()]);
    let of_flag = doctor(&["--cgroup", cgroup.path().to_str().unwrap()]);
    for check in [of_pins, of_flag] {
        assert_eq!(check["ok"], false, "{check}");
        let detail = check["detail"].as_str().unwrap();
        assert!(detail.contains(&address.to_string()), "{check}");
    }
    agent.stop().unwrap();

    let empty = Cgroup::create("empty").unwrap();
    let none = doctor(&["--cgroup", empty.path().to_str().unwrap()]);
    assert_eq!(none["ok"], true, "{none}");
}

fn nested_targets() {
    let outer = Cgroup::create("outer").unwrap();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let program = Binaries::of_this_build().unwrap().find("speedmimi-agent");
    let mut command = Command::new(program.unwrap());
    command.arg("run").arg("--cgroup").arg(outer.path());
    let output = command.arg("--cgroup").arg(&inner).output().unwrap();
    fs::remove_dir(&inner).unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("lies within"), "{said}");
}
