//! `HAProxy` says what its servers are called and where they are.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
};

use monitor_common::endpoint::Role;
use tempfile::TempDir;

use super::{Case, Running, TIMEOUT, called, eventually, free_port, kept, names, run};

pub(crate) const CASES: &[Case] = &[
    ("haproxy_takes_the_configurations_of_the_tests", takes),
    (
        "haproxy_calls_its_servers_and_listeners_by_their_names",
        servers,
    ),
];

fn takes() {
    let directory = TempDir::new().unwrap();
    for name in ["haproxy.cfg", "comment_with_colon.cfg"] {
        let file = directory.path().join(name);
        fs::write(&file, kept(name)).unwrap();
        let output = run("haproxy", &["-c", "-f", file.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
    }
}

fn ask(socket: &Path, question: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn servers() {
    let directory = TempDir::new().unwrap();
    let (file, socket) = (directory.path().join("h.cfg"), directory.path().join("s"));
    let (port, second) = (free_port(), free_port());
    let text = format!(
        r#"global # of {{ all; }}
 stats socket "{}" mode 600
defaults # quotes: "
 mode http
 timeout connect 1s
 timeout client 1s
 timeout server 1s
frontend "do\x6fr"
 bind 127.0.0.1:{port} name 'it''s'
 default_backend first
backend first # a comment
 server a 127.0.0.1:31 check disabled # more
 server "b-\x42" ipv4@127.0.0.1:32
 server 'c' [::1]:33
 server d.d localhost:34
 server-template e 2 127.0.0.1:35
listen sec\x6fnd
 bind 127.0.0.1:{second}
 server a tcp@127.0.0.2:36 weight 1
"#,
        socket.display()
    );
    fs::write(&file, text).unwrap();
    let _haproxy = Running::start("haproxy", &["-W", "-db", "-f", file.to_str().unwrap()]);
    let state = eventually("HAProxy answers", || ask(&socket, "show servers state\n"));
    let names = names(&file);
    let mut seen = 0;
    // be_id be_name srv_id srv_name srv_addr … srv_port in place 19.
    for line in state.lines().skip(2).filter(|line| !line.is_empty()) {
        let fields: Vec<_> = line.split(' ').collect();
        let ip: IpAddr = fields[4].parse().unwrap();
        let address = SocketAddr::new(ip, fields[18].parse().unwrap());
        let name = called(&names, Role::Upstream, address);
        // Which of a template's servers it is nobody can tell by the address.
        let own = if fields[3].starts_with('e') {
            "e1-2"
        } else {
            fields[3]
        };
        let (upstream, backend) = (name.upstream.as_str(), name.backend.as_str());
        assert_eq!((upstream, backend), (fields[1], own), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 7, "{state}");
    let frontends = ask(&socket, "show stat -1 1 -1\n").unwrap();
    let own = frontends.lines().nth(1).unwrap().split(',').next().unwrap();
    let listener = called(&names, Role::Downstream, ([127, 0, 0, 1], port).into());
    assert_eq!(listener.name, own, "{frontends}");
}
