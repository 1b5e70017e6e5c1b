//! Names from the configuration of the very proxy that is watched.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use testkit::{
    Cgroup, Process, eventually,
    fixtures::{AgentPlan, Binaries, CollectorPlan, Haproxy, Nginx},
    traffic::{Exchange, Load},
};

use super::{
    Case,
    scene::{REPORTS, origin_on, send},
};

pub(crate) const NGINX_CASES: &[Case] = &[
    ("names_come_from_nginx_s_own_configuration", nginx),
    ("names_that_cannot_be_read_yet_stop_nothing", late),
];

pub(crate) const HAPROXY_CASES: &[Case] =
    &[("names_come_from_haproxy_s_own_configuration", haproxy)];

/// A proxy that is started with a configuration of a test's own.
struct Configured {
    program: &'static Path,
    file: PathBuf,
    directory: TempDir,
    listens: SocketAddr,
    origin: SocketAddr,
}

/// Who is called what: role, address, name, upstream, backend.
type Named = (String, String, String, String, String);

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn nginx() {
    named(
        |directory, listens, origin| Configured {
            program: Nginx::program().unwrap(),
            file: directory.path().join("nginx.conf"),
            directory,
            listens,
            origin,
        },
        |at, listens, origin| {
            format!(
                "daemon off; user root; pid {at}/pid; error_log stderr;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
                 fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
                 upstream shop {{ server {origin} weight=3; }}\n\
                 server {{ listen {port}; server_name shop.test; location / {{ proxy_pass http://shop; }} }} }}\n",
                port = listens.port(),
            )
        },
        ["shop.test", "shop"],
        |origin| origin.to_string(),
    );
}

fn haproxy() {
    named(
        |directory, listens, origin| Configured {
            program: Haproxy::program().unwrap(),
            file: directory.path().join("haproxy.cfg"),
            directory,
            listens,
            origin,
        },
        |_, listens, origin| {
            format!(
                "defaults\n mode http\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n\
                 frontend door\n bind :{port}\n default_backend shop\n\
                 backend shop\n server first {origin}\n",
                port = listens.port(),
            )
        },
        ["door", "shop"],
        |_| "first".to_owned(),
    );
}

/// Sends requests through the proxy, and compares what the reports call its two
/// sides.
fn named(
    describe: fn(TempDir, SocketAddr, SocketAddr) -> Configured,
    text: impl Fn(&str, SocketAddr, SocketAddr) -> String,
    [listener, upstream]: [&str; 2],
    backend: fn(SocketAddr) -> String,
) {
    let origin = origin_on("127.0.0.1");
    let directory = TempDir::new().unwrap();
    let proxy = describe(directory, free_address(), origin.address());
    let at = proxy.directory.path().to_str().unwrap();
    fs::write(&proxy.file, text(at, proxy.listens, proxy.origin)).unwrap();

    let binaries = Binaries::of_this_build().unwrap();
    let cgroup = Cgroup::create("names").unwrap();
    let collector = CollectorPlan::new(&binaries).unwrap().start().unwrap();
    let agent = AgentPlan::watching(&binaries, &cgroup).unwrap();
    let agent = agent
        .reporting_to(&collector)
        .with(["--names-from".as_ref(), proxy.file.as_os_str()])
        .start()
        .unwrap();
    let mut command = Command::new(proxy.program);
    let flag = if proxy.program.ends_with("nginx") {
        "-c"
    } else {
        "-f"
    };
    command.arg(flag).arg(&proxy.file);
    let running = Process::start("proxy", command, Some(&cgroup)).unwrap();
    eventually("the proxy", REPORTS, || {
        TcpStream::connect(proxy.listens).ok()
    });
    send(
        Load::on(proxy.listens)
            .connections(2)
            .requests(20)
            .mix([Exchange::get(10)]),
    );
    // The agent names the endpoints of its newest sample, which may be a second old.
    let seen = eventually("a sample that has the backend", REPORTS, || {
        let seen = agent.snapshot().ok()?;
        named_in(&seen)
            .last()
            .is_some_and(|last| !last.2.is_empty())
            .then_some(seen)
    });
    agent.stop().unwrap();
    drop(running);

    let reports = collector.reports().unwrap();
    let found = named_in(reports.last().unwrap());
    let none = String::new();
    let backend = backend(proxy.origin);
    let expected = [
        (
            "downstream".to_owned(),
            proxy.listens.to_string(),
            listener.to_owned(),
            none.clone(),
            none,
        ),
        (
            "upstream".to_owned(),
            proxy.origin.to_string(),
            backend.clone(),
            upstream.to_owned(),
            backend,
        ),
    ];
    assert_eq!(found, expected);
    assert_eq!(named_in(&seen), expected, "`snapshot` asks the agent");
    collector.stop().unwrap();
}

/// What a report calls its endpoints.
fn named_in(report: &serde_json::Value) -> Vec<Named> {
    let field = |endpoint: &serde_json::Value, name: &str| {
        endpoint[name].as_str().unwrap_or_default().to_owned()
    };
    let endpoints = report["endpoints"].as_array().unwrap().iter();
    let mut found: Vec<Named> = endpoints
        .map(|e| {
            let [role, address, name, upstream, backend] =
                ["role", "address", "name", "upstream", "backend"].map(|n| field(e, n));
            (role, address, name, upstream, backend)
        })
        .collect();
    found.sort();
    found
}

/// The agent starts without the file, says so in its reports, and reads it once it
/// is there.
fn late() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("nginx.conf");
    let binaries = Binaries::of_this_build().unwrap();
    let cgroup = Cgroup::create("names").unwrap();
    let origin = origin_on("127.0.0.1");
    let nginx = Nginx::start(&cgroup, origin.address()).unwrap();
    let collector = CollectorPlan::new(&binaries).unwrap().start().unwrap();
    let agent = AgentPlan::watching(&binaries, &cgroup).unwrap();
    let agent = agent
        .reporting_to(&collector)
        .with(["--names-from".as_ref(), file.as_os_str()])
        .start()
        .unwrap();
    let newest = |what: &str, fits: &dyn Fn(&serde_json::Value) -> bool| {
        eventually(what, REPORTS, || {
            let reports = collector.reports().ok()?;
            reports.last().filter(|report| fits(report)).cloned()
        })
    };
    let noted = newest("a note", &|report| report["notes"].is_array());
    let note = noted["notes"][0].as_str().unwrap();
    assert!(note.contains("nginx.conf cannot be read"), "{note}");
    let status = agent.ask(&["status"]).unwrap();
    assert!(status["names"][0]["problem"].is_string(), "{status}");
    let port = nginx.address().port();
    let text = format!("server {{ listen {port}; server_name late.test; }}");
    fs::write(&file, text).unwrap();
    send(
        Load::on(nginx.address())
            .connections(1)
            .requests(3)
            .mix([Exchange::get(10)]),
    );
    let called = |report: &serde_json::Value| {
        let named = named_in(report);
        named.iter().any(|(_, _, name, ..)| name == "late.test")
    };
    let named = newest("the name", &called);
    assert_eq!(named["notes"], serde_json::Value::Null, "{named}");
    let status = agent.ask(&["status"]).unwrap();
    assert_eq!(status["names"][0]["names"], 1, "{status}");
    agent.stop().unwrap();
    nginx.stop().unwrap();
    collector.stop().unwrap();
}
