//! Starting, stopping, and the command line.

use std::fs::File;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use super::support::{Backend, Client, Proxy, eventually, unused_port};

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_speedmimi-proxy"))
}

#[test]
fn a_stop_lets_what_is_in_flight_end() {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let backend = Backend::new(move |request, peer| {
        if request.head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut proxy = Proxy::before(&backend, "");
    let mut idle = proxy.client();
    assert_eq!(idle.get("/").text(), "ok");
    let mut slow = proxy.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the slow request", || {
        (backend.received().len() == 2).then_some(())
    });
    proxy.signal("TERM");
    assert!(idle.ends(), "an idle connection is closed");
    eventually("the end of listening", || {
        std::net::TcpStream::connect(proxy.address).err()
    });
    go.send(()).unwrap();
    let response = slow.response();
    assert_eq!(response.text(), "ok");
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(slow.ends());
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_the_rest_of_a_head() {
    let backend = Backend::echo();
    let mut proxy = Proxy::before(&backend, "");
    let (mut first, mut next) = (proxy.client(), proxy.client());
    assert_eq!(next.get("/").status(), 200);
    first.send("GET / HTTP/1.1\r\nHost:");
    next.send("GET / HTTP/1.1\r\nHost:");
    // Both parts have been read once a later one is answered.
    assert_eq!(proxy.client().get("/").status(), 200);
    proxy.signal("TERM");
    for client in [&mut first, &mut next] {
        assert_eq!(client.response().status(), 408);
        assert!(client.ends());
    }
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

#[test]
fn the_drain_deadline_cuts_what_does_not_end() {
    let backend = Backend::new(|_, _| {});
    let mut proxy = Proxy::before(&backend, "timeouts: {drain: 100ms}");
    let mut stuck = proxy.client();
    stuck.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request", || {
        (backend.received().len() == 1).then_some(())
    });
    proxy.signal("INT");
    assert!(stuck.ends());
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

#[test]
fn what_is_cut_at_the_drain_deadline_is_not_taken_for_a_whole() {
    let backend = Backend::new(|_, peer| peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf"));
    let mut proxy = Proxy::before(&backend, "timeouts: {drain: 100ms}");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.try_head().is_some());
    assert_eq!(client.exactly(4), b"half");
    proxy.signal("TERM");
    let end = std::io::Read::read(&mut client.stream, &mut [0]);
    assert_eq!(
        end.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionReset)
    );
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

#[test]
fn all_workers_share_the_port_that_the_kernel_chose() {
    let backend = Backend::echo();
    let config = format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    );
    let proxy = Proxy::with_arguments(&config, &["--workers", "4"]);
    let mut clients: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    let connections = backend
        .received()
        .iter()
        .map(|request| request.connection)
        .max();
    assert!(connections > Some(0), "one worker took everything");
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::new(move |request, peer| {
        if request.head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, max_conn: 1}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    ));
    let mut first = proxy.client();
    first.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request", || {
        (!backend.received().is_empty()).then_some(())
    });
    let response = proxy.client().get("/");
    assert_eq!(response.status(), 503);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("the server is at its max_conn")
    );
    go.send(()).unwrap();
    assert_eq!(first.response().status(), 200);
    eventually("a free place", || {
        (proxy.client().get("/").status() == 200).then_some(())
    });
}

#[test]
fn bad_usage_and_bad_configuration_exit_with_64() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "server:\n  hots: x\n").unwrap();
    for command in ["run", "check"] {
        let output = binary()
            .args([command, "--config"])
            .arg(file.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains(":2:3: server: unknown key \"hots\", did you mean \"host\"?"),
            "{text}"
        );
    }
    assert_eq!(
        binary().arg("nonsense").output().unwrap().status.code(),
        Some(64)
    );
    assert_eq!(
        binary().arg("--version").output().unwrap().status.code(),
        Some(0)
    );
}

#[test]
fn the_example_configuration_passes_its_own_check() {
    let example = binary().arg("example-config").output().unwrap().stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, example).unwrap();
    let output = binary()
        .arg("check")
        .arg("--config")
        .arg(file.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("the configuration is valid"),
        "{text}"
    );
    assert!(
        text.contains("paths beginning with / go to default"),
        "{text}"
    );
}

#[test]
fn a_start_with_two_names_of_one_address_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    // An old way to write 127.0.0.1, which the system's resolver knows.
    let port = unused_port();
    let text = format!(
        "server: {{host: \"127.1\", port: {port}}}\nadmin: {{enabled: true, host: 127.0.0.1, port: {port}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    // One that starts would not end on its own.
    let mut command = Command::new("timeout");
    command.arg("10").arg(binary().get_program());
    let output = command
        .arg("run")
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("overlaps with server.port"), "{told}");
}

/// The file is one that whoever reads it has to wait for.
#[test]
fn a_hangup_before_it_is_ready_is_a_reload_after_it() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("access.log");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let path = directory.path().join("proxy.yaml");
    let text = format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\naccess_log: {{enabled: true, file: {}}}\n",
        backend.address.port(),
        pipe.display()
    );
    std::fs::write(&path, &text).unwrap();
    let log = directory.path().join("log");
    let mut child = binary()
        .arg("run")
        .arg("--config")
        .arg(&path)
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let pid = child.id();
    // It waits for a reader of its access log, and holds its signals by then.
    eventually("its signal handlers", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & 1 << (libc::SIGHUP - 1) != 0).then_some(())
    });
    let signal = |name: &str| {
        let mut kill = Command::new("kill");
        assert!(
            kill.args(["-s", name, &pid.to_string()])
                .status()
                .unwrap()
                .success()
        );
    };
    signal("HUP");
    let told = || std::fs::read_to_string(&log).unwrap();
    assert!(!told().contains("ready listen="), "{}", told());
    let reader = File::open(&pipe).unwrap();
    eventually("a reload", || {
        let told = told();
        let (_, told) = told.split_once("ready listen=")?;
        told.contains("configuration reloaded").then_some(())
    });
    signal("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(reader);
}
