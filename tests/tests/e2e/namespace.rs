//! What the kernel turned away before any process saw it, per network namespace.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    process::Command,
    thread,
};

use rustix::{
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use testkit::{Cgroup, Process, eventually, fixtures::Level};

use super::{
    Case,
    scene::{REPORTS, Scene},
};

pub(crate) const CASES: &[Case] = &[(
    "handshakes_that_never_complete_are_those_of_nstat",
    never_complete,
)];

/// The names in the report and in the kernel's tables.
const COUNTERS: [(&str, &str); 4] = [
    ("attempt_fails", "AttemptFails"),
    ("listen_drops", "ListenDrops"),
    ("listen_overflows", "ListenOverflows"),
    ("syncookies_failed", "SyncookiesFailed"),
];

fn never_complete() {
    let cgroup = Cgroup::create("e2e").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec sleep 3600"]);
    let mut resident = Process::start("resident", command, Some(&cgroup)).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", resident.id()));
    let ours = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let id = eventually("network namespace", REPORTS, || {
        assert!(resident.is_running(), "{}", resident.log());
        let id = fs::metadata(proc.join("ns/net")).ok()?.ino();
        (id != ours && fs::read_to_string(proc.join("comm")).ok()? == "sleep\n").then_some(id)
    });
    // The agent keeps what it needs to look into namespaces that it has seen.
    let scene = Scene::watching(cgroup, Level::Tcp);
    // What a namespace counted before it was known belongs to nobody.
    eventually("report of the namespace", REPORTS, || {
        let reports = scene.collector.reports().ok()?;
        (!of(&reports, id).is_empty()).then_some(())
    });

    let namespace = File::open(proc.join("ns/net")).unwrap();
    thread::spawn(move || turn_away(&namespace)).join().unwrap();
    let tables = ["netstat", "snmp"].map(|name| {
        let table = fs::read_to_string(proc.join("net").join(name));
        table.unwrap()
    });
    let told = COUNTERS.map(|(_, name)| value(&tables, name));
    assert_eq!(told, [2, 3, 3, 0]);

    let reports = eventually("report of what was turned away", REPORTS, || {
        let reports = scene.collector.reports().ok()?;
        (sums(&reports, id) == told).then_some(reports)
    });
    assert_eq!(sums(&reports, id), told);
    resident.kill().unwrap();
    scene.end();
}

/// Two attempts that are refused, and three SYNs that a full queue drops.
fn turn_away(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = free.local_addr().unwrap();
    drop(free);
    for _ in 0..2 {
        assert!(TcpStream::connect(closed).is_err());
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let listener = stream();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    // A queue of length 0 takes one.
    let _first = TcpStream::connect(address).unwrap();
    for _ in 0..3 {
        assert!(connect(stream(), &address).is_err(), "it is under way");
    }
}

/// What the reports say of a namespace.
fn of(reports: &[serde_json::Value], id: u64) -> Vec<&serde_json::Value> {
    let all = reports.iter().flat_map(|report| {
        report["network_namespaces"]
            .as_array()
            .into_iter()
            .flatten()
    });
    all.filter(|namespace| namespace["id"] == id).collect()
}

fn sums(reports: &[serde_json::Value], id: u64) -> [u64; 4] {
    let windows = of(reports, id);
    COUNTERS.map(|(name, _)| windows.iter().map(|w| w[name].as_u64().unwrap()).sum())
}

/// A value of tables whose names stand on the line above their values.
fn value(tables: &[String], name: &str) -> u64 {
    let lines: Vec<&str> = tables.iter().flat_map(|table| table.lines()).collect();
    let found = lines.windows(2).find_map(|pair| {
        let at = pair[0].split(' ').position(|n| n == name)?;
        pair[1].split(' ').nth(at)?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("the kernel has no {name}"))
}
