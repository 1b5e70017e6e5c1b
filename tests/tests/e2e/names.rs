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
    fixtures::{AgentPlan, Binaries, CollectorPlan},
    traffic::{Exchange, Load},
};

use super::{
    Case,
    scene::{REPORTS, origin_on, send},
};

pub(crate) const CASES: &[Case] = &[
    ("names_come_from_nginx_s_own_configuration", nginx),
    ("names_come_from_haproxy_s_own_configuration", haproxy),
];

/// A proxy that is started with a configuration of a test's own.
struct Configured {
    program: &'static str,
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
            program: "/usr/sbin/nginx",
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
            program: "/usr/sbin/haproxy",
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
    if !Path::new(proxy.program).exists() {
        eprintln!("skipped: {} is not installed", proxy.program);
        return;
    }
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
    agent.stop().unwrap();
    drop(running);

    let reports = collector.reports().unwrap();
    let last = reports.last().unwrap();
    let field = |endpoint: &serde_json::Value, name: &str| {
        endpoint[name].as_str().unwrap_or_default().to_owned()
    };
    let mut found: Vec<Named> = last["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            let [role, address, name, upstream, backend] =
                ["role", "address", "name", "upstream", "backend"].map(|n| field(e, n));
            (role, address, name, upstream, backend)
        })
        .collect();
    found.sort();
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
    collector.stop().unwrap();
}
