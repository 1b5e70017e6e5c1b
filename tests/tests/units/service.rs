//! What systemd does with the units.

use std::fs;

use testkit::{eventually, http};

use super::{
    Case,
    traffic::http_of_the_collector,
    unit::{AGENT, ALL, COLLECTOR, PATIENCE, PROXY, run},
};

pub(crate) const CASES: &[Case] = &[
    ("a_reload_is_taken_by_the_process_that_runs", reload),
    (
        "a_wrong_configuration_is_not_tried_again",
        wrong_configuration,
    ),
    ("limits_are_in_force", limits),
    ("a_token_that_root_adds_is_taken", tokens),
];

fn reload() {
    for (unit, words) in [(AGENT, "reloaded"), (COLLECTOR, "reloaded")] {
        let process = unit.property("MainPID");
        unit.does("reload");
        unit.says(words);
        assert_eq!(unit.property("MainPID"), process);
        assert_eq!(unit.property("ActiveState"), "active");
    }
}

fn wrong_configuration() {
    let path = "/etc/speedmimi/agent.toml";
    let good = fs::read_to_string(path).unwrap();
    fs::write(path, format!("colector = \"x\"\n{good}")).unwrap();
    assert!(run("systemctl", &["restart", AGENT.0]).is_err());
    assert_eq!(AGENT.property("ActiveState"), "failed");
    assert_eq!(AGENT.property("ExecMainStatus"), "64");
    assert!(AGENT.log().contains("colector"), "{}", AGENT.log());
    fs::write(path, good).unwrap();
    AGENT.does("start");
    AGENT.is_ready();
}

/// In the kernel, not only in the unit.
fn limits() {
    let mib = |n: u64| (n << 20).to_string();
    assert_eq!(AGENT.cgroup("memory.high"), mib(384));
    assert_eq!(AGENT.cgroup("memory.max"), mib(512));
    assert_eq!(AGENT.cgroup("pids.max"), "64");
    assert_eq!(AGENT.cgroup("cpu.weight"), "20");
    assert_eq!(COLLECTOR.cgroup("memory.high"), mib(640));
    assert_eq!(COLLECTOR.cgroup("memory.max"), mib(768));
    // Shares of this machine's memory.
    let (high, max) = (PROXY.cgroup("memory.high"), PROXY.cgroup("memory.max"));
    let (high, max): (u64, u64) = (high.parse().unwrap(), max.parse().unwrap());
    assert_eq!(max.to_string(), PROXY.property("MemoryMax"));
    assert_eq!(high.to_string(), PROXY.property("MemoryHigh"));
    assert!(high < max, "{high} {max}");
    for (unit, files) in [(COLLECTOR, 65_536), (PROXY, 1_048_576)] {
        let limits = fs::read_to_string(unit.proc("limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let fields: Vec<_> = line.unwrap().split_ascii_whitespace().skip(3).collect();
        let files = files.to_string();
        assert_eq!(fields[..2], [files.as_str(), files.as_str()], "{limits}");
    }
    for unit in ALL {
        let events = unit.cgroup("memory.events");
        assert!(events.lines().any(|line| line == "oom_kill 0"), "{events}");
    }
}

/// The files of tokens belong to the collector, whoever makes them.
fn tokens() {
    let add = ["token", "add", "--read"];
    let token = run("speedmimi-collector", &add).unwrap();
    COLLECTOR.does("restart");
    COLLECTOR.is_ready();
    eventually("an answer", PATIENCE, || {
        http::get_json(http_of_the_collector(), "/api/v1/hosts").ok()
    });
    assert!(!token.is_empty());
    assert!(
        !COLLECTOR.log().contains("cannot read"),
        "{}",
        COLLECTOR.log()
    );
}
