//! Host names whose addresses change, in a mount namespace with an `/etc/hosts`
//! of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::{BINARY, Backend, Proxy, TIMEOUT, eventually};

const NAME: &str = "backend.test";

/// Why names cannot be changed for one process here.
pub(crate) fn missing() -> Option<String> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let possible =
        status.is_ok_and(|status| status.success()) && Path::new("/etc/nsswitch.conf").exists();
    (!possible).then(|| {
        "an /etc/hosts for one process needs root, unshare(1) and /etc/nsswitch.conf".to_owned()
    })
}

pub(crate) fn backends_are_followed_to_new_addresses_and_kept_where_a_name_fails() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let [a, b] = [(first, "a"), (second, "b")].map(|(listener, text)| {
        Backend::on(listener, move |_, peer| {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}").as_bytes());
        })
    });
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let names = directory.path().join("nsswitch.conf");
    std::fs::write(&hosts, format!("127.0.0.1 {NAME}\n")).unwrap();
    std::fs::write(&names, "hosts: files\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]).arg(
        "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"",
    );
    command.arg(&hosts).arg(&names).arg(BINARY);
    let config = format!(
        "server: {{host: 127.0.0.1, port: 0}}\ndns: {{interval: 1s}}\n\
         backends: {{u: [{{id: b, host: {NAME}, port: {port}}}]}}\nrouting: {{r: {{upstream: u}}}}\n"
    );
    let proxy = Proxy::by(command, &config, &["--workers", "1"]);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "a");
    std::fs::write(&hosts, format!("127.0.0.2 {NAME}\n")).unwrap();
    eventually("the new address", || {
        (client.get("/").text() == "b").then_some(())
    });
    std::fs::write(&hosts, "").unwrap();
    proxy.signal("HUP");
    proxy.wait_for_line("keeping its previous addresses");
    assert_eq!(client.get("/").text(), "b");
    assert!(!a.received().is_empty() && !b.received().is_empty());
}

/// A name server of the test's own, and a command that becomes the proxy where
/// that is the only one.
fn name_server(host: u8, directory: &Path) -> (UdpSocket, Command) {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let server = UdpSocket::bind((Ipv4Addr::new(127, host, high, low), 53)).unwrap();
    server.set_read_timeout(Some(TIMEOUT)).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let address = server.local_addr().unwrap().ip();
    let resolver = file(
        "resolv.conf",
        format!("nameserver {address}\noptions timeout:4 attempts:1\n"),
    );
    let names = file("nsswitch.conf", "hosts: dns\n".to_owned());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]).arg(
        "mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"",
    );
    command.arg(&resolver).arg(&names).arg(BINARY);
    (server, command)
}

/// A resolver's questions for the two kinds of addresses of one name, not answered
/// yet.
struct Questions([(Vec<u8>, SocketAddr); 2]);

impl Questions {
    fn receive(server: &UdpSocket) -> Self {
        Self([(); 2].map(|()| {
            let mut question = vec![0; 512];
            let (bytes, from) = server.recv_from(&mut question).expect("a question");
            question.truncate(bytes);
            (question, from)
        }))
    }

    /// Answers with one IPv4 address (RFC 1035, section 4).
    fn answer(self, server: &UdpSocket, address: [u8; 4]) {
        const NAME_BEGINS: usize = 12;
        for (question, from) in self.0 {
            let name_bytes = question[NAME_BEGINS..].iter().position(|byte| *byte == 0);
            let type_begins = NAME_BEGINS + name_bytes.unwrap() + 1;
            let is_ipv4 = question[type_begins..type_begins + 2] == [0, 1];
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
            answer.extend(&question[NAME_BEGINS..type_begins + 4]);
            if is_ipv4 {
                answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(address);
            }
            server.send_to(&answer, from).unwrap();
        }
    }
}

pub(crate) fn a_reload_while_names_are_looked_up_has_them_looked_up_again() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let backend = |listener, text: &'static str| {
        Backend::on(listener, move |_, peer| {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}").as_bytes());
        })
    };
    let (_a, _b) = (backend(first, "a"), backend(second, "b"));
    let directory = tempfile::tempdir().unwrap();
    let (server, command) = name_server(78, directory.path());
    let config = format!(
        "server: {{host: 127.0.0.1, port: 0}}\ndns: {{interval: 0s}}\n\
         backends: {{u: [{{id: b, host: moving.test, port: {port}}}]}}\nrouting: {{r: {{upstream: u}}}}\n"
    );
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| Questions::receive(&server).answer(&server, [127, 0, 0, 1]));
        let proxy = Proxy::by(command, &config, &["--workers", "1"]);
        asked.join().unwrap();
        assert_eq!(proxy.client().get("/").text(), "a");
        proxy.signal("HUP");
        proxy.wait_for_line("configuration reloaded");
        let early = Questions::receive(&server);
        proxy.signal("HUP");
        proxy.wait_for_line("configuration reloaded");
        // What this says is older than the second reload.
        early.answer(&server, [127, 0, 0, 1]);
        Questions::receive(&server).answer(&server, [127, 0, 0, 2]);
        eventually("the new address", || {
            (proxy.client().get("/").text() == "b").then_some(())
        });
    });
}

/// A name server that takes questions and keeps silent.
pub(crate) fn a_silent_resolver_holds_up_no_other_change() {
    let directory = tempfile::tempdir().unwrap();
    let (silent, command) = name_server(77, directory.path());
    let config = "server: {host: 127.0.0.1, port: 0}\nadmin: {enabled: true, host: 127.0.0.1, port: 0}\n\
                  backends: {u: [{id: a, host: 127.0.0.1, port: 1}]}\nrouting: {r: {upstream: u}}\n";
    let proxy = Proxy::by(command, config, &["--workers", "1"]);
    let add = |id: &str, host: &str| {
        let body =
            serde_json::json!({"upstream": "u", "backend": {"id": id, "host": host, "port": 1}});
        proxy
            .admin("POST", "/api/v1/backends/add", &body.to_string())
            .0
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| add("slow", "silent.test"));
        silent.recv(&mut [0; 512]).unwrap();
        assert_eq!(add("b", "127.0.0.2"), 200);
        assert!(
            !slow.is_finished(),
            "the other change waits for its name alone"
        );
        assert_ne!(slow.join().unwrap(), 200);
    });
}

/// A second process on the port of one that runs gets no client while it waits for
/// its backends' names.
pub(crate) fn a_process_that_waits_for_names_takes_no_client() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let running = Proxy::before(&backend, "");
    let directory = tempfile::tempdir().unwrap();
    let (server, mut command) = name_server(79, directory.path());
    let path = directory.path().join("proxy.yaml");
    let text = format!(
        "server: {{host: 127.0.0.1, port: {}}}\nrouting: {{r: {{upstream: u}}}}\n\
         backends: {{u: [{{id: b, host: silent.test, port: 1}}]}}\n",
        running.address.port()
    );
    std::fs::write(&path, text).unwrap();
    command
        .args(["run", "--workers", "8", "--config"])
        .arg(&path);
    let mut waiting = command.stderr(Stdio::null()).spawn().unwrap();
    let _questions = Questions::receive(&server);
    // The kernel would give the other's listeners eight of nine.
    for _ in 0..50 {
        assert_eq!(running.client().get("/").status(), 200);
    }
    let still_waits = waiting.try_wait().unwrap().is_none();
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(
        still_waits,
        "the other process has ended before the clients came"
    );
}
