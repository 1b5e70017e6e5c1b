//! The proxy beside nginx and `HAProxy`: what several accept, all must understand
//! alike.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::support::{Backend, Proxy, eventually, unused_port};

/// A peer, killed when dropped.
struct Peer {
    address: SocketAddr,
    child: Child,
    backend: Backend,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Why there is no comparison with this one.
pub(crate) fn missing(name: &str) -> Option<String> {
    let mut command = Command::new(name);
    command
        .arg("-v")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let missing = command.status().is_err();
    missing.then(|| format!("{name} is not installed"))
}

fn start(name: &'static str, directory: &Path) -> Peer {
    let backend = backend();
    let address: SocketAddr = ([127, 0, 0, 1], unused_port()).into();
    let path = directory.join(format!("{name}.conf"));
    let directory = directory.display();
    let text = if name == "nginx" {
        format!(
            "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;\n\
             fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n\
             server {{ listen {address}; location / {{ proxy_pass http://{}; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; }} }} }}\n",
            backend.address
        )
    } else {
        format!(
            "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n timeout http-request 5s\n\
             frontend f\n bind {address}\n default_backend b\nbackend b\n server s {}\n",
            backend.address
        )
    };
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(name);
    match name {
        "nginx" => command
            .arg("-c")
            .arg(&path)
            .args(["-p", &directory.to_string()]),
        _ => command.arg("-db").arg("-f").arg(&path),
    };
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let peer = Peer {
        address,
        child,
        backend,
    };
    eventually("the start of the peer", || TcpStream::connect(address).ok());
    peer
}

/// What became of a stream of bytes: the first status, and what the backend
/// understood.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    requests: Vec<(String, Vec<u8>)>,
}

impl Outcome {
    fn is_accepted(&self) -> bool {
        self.status == 200
    }
}

fn outcome(address: SocketAddr, backend: &Backend, bytes: &[u8]) -> Outcome {
    let before = backend.received().len();
    let mut stream = TcpStream::connect(address).unwrap();
    // Nearly every stream ends by a close; one that does not is given up on.
    stream
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..read]);
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    let received = backend.received().split_off(before);
    let request = |request: super::support::Received| {
        let line: Vec<&str> = request
            .head
            .lines()
            .next()
            .unwrap_or("")
            .split(' ')
            .take(2)
            .collect();
        // HAProxy passes absolute-form on, which means the same.
        (line.join(" ").replace("http://h/", "/"), request.body)
    };
    Outcome {
        status,
        requests: received.into_iter().map(request).collect(),
    }
}

/// Requests in which every part that implementations disagree on is varied.
fn streams() -> Vec<Vec<u8>> {
    let framings = [
        ("", ""),
        ("Content-Length: 5\r\n", "hello"),
        ("content-length:5\r\n", "hello"),
        ("Content-Length: 05\r\n", "hello"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 5, 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        ("Content-Length: 0x5\r\n", "hello"),
        ("Content-Length: 99999999999999999999\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked\r\n",
            "5;x=y\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5 ;x=y\r\nhello\r\n0\t; z\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "005\r\nhello\r\n00\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n", "5\nhello\n0\n\n"),
        ("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
        ),
        ("Transfer-Encoding : chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding:\tchunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: identity\r\n", ""),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: \x0bchunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        ("X: a\r\n Transfer-Encoding: chunked\r\n", ""),
        ("X: a\rTransfer-Encoding: chunked\r\n", ""),
    ];
    let lines = [
        "POST /p HTTP/1.1\r\nHost: h\r\n",
        "POST /p HTTP/1.0\r\nHost: h\r\n",
        "POST http://h/p HTTP/1.1\r\nHost: h\r\n",
        "POST http://h:80/p HTTP/1.1\r\nHost: h\r\n",
        "POST  /p HTTP/1.1\r\nHost: h\r\n",
        "POST /p HTTP/1.1\nHost: h\n",
        "\r\nPOST /p HTTP/1.1\r\nHost: h\r\n",
    ];
    let mut streams = Vec::new();
    for line in lines {
        for (fields, body) in framings {
            // What follows shows where each thought that the request ended.
            let next = "GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            streams.push(format!("{line}{fields}\r\n{body}{next}").into_bytes());
        }
    }
    streams
}

/// What is refused with 400 here, and by which peers.
const REFUSED: [(&str, &[&str]); 3] = [
    (
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        &["nginx", "haproxy"],
    ),
    // nginx has 501 for every coding that it does not know.
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        &["haproxy"],
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        &["haproxy"],
    ),
];

/// Requests whose answers have more behind them than they say, or less to say.
const STRAY: [&str; 4] = [
    "HEAD /stray/200",
    "GET /stray/200",
    "GET /stray/204",
    "GET /stray/304",
];

/// Echoes, and sends stray bytes behind the answers of [`STRAY`].
fn backend() -> Backend {
    Backend::new(|request, peer| {
        let line = request.head.lines().next().unwrap_or("");
        let answer = match line.split(' ').nth(1).unwrap_or("") {
            "/stray/204" => "HTTP/1.1 204 No Content\r\n\r\nstray".to_owned(),
            "/stray/304" => {
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nstray".to_owned()
            }
            "/stray/200" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokstray".to_owned(),
            "/silent" => String::new(),
            _ => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
                line.len()
            ),
        };
        peer.send(answer.as_bytes());
    })
}

/// Status and body of what a client is told.
fn answer(address: SocketAddr, bytes: &[u8]) -> (u16, Vec<u8>) {
    let mut client = super::support::Client::connect(address);
    client.send(bytes);
    let head = client.try_head().unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, client.rest())
}

/// What both refuse, both refuse alike, and what is behind an answer reaches
/// nobody here or there.
pub(crate) fn answers_like(name: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let peer = start(name, directory.path());
    let backend = backend();
    let proxy = Proxy::before(&backend, "");
    for (request, peers) in REFUSED {
        assert_eq!(
            answer(proxy.address, request.as_bytes()).0,
            400,
            "{request:?}"
        );
        if peers.contains(&name) {
            assert_eq!(
                answer(peer.address, request.as_bytes()).0,
                400,
                "{name} {request:?}"
            );
        }
    }
    for line in STRAY {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let ours = answer(proxy.address, request.as_bytes());
        assert_eq!(
            ours,
            answer(peer.address, request.as_bytes()),
            "{name} {line}"
        );
    }
    // Who ends only its own side has given up, as nginx sees it.
    if name == "nginx" {
        for address in [proxy.address, peer.address] {
            let mut client = super::support::Client::connect(address);
            client.send("GET /silent HTTP/1.1\r\nHost: h\r\n\r\n");
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(client.try_head().is_none());
        }
    }
}

/// What both accept, both must have understood alike.
pub(crate) fn agrees_with(name: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let peer = start(name, directory.path());
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "");
    let (mut accepted, mut compared) = (0, 0);
    for stream in streams() {
        let ours = outcome(proxy.address, &backend, &stream);
        if !ours.is_accepted() {
            assert!(
                ours.requests.is_empty(),
                "refused but passed on: {ours:?} for {stream:?}"
            );
            continue;
        }
        accepted += 1;
        let theirs = outcome(peer.address, &peer.backend, &stream);
        if theirs.is_accepted() {
            compared += 1;
            let text = String::from_utf8_lossy(&stream);
            assert_eq!(ours.requests, theirs.requests, "{name} differs on {text:?}");
        }
    }
    assert!(
        accepted >= 20,
        "only {accepted} of the requests were accepted"
    );
    assert!(compared >= 15, "only {compared} outcomes could be compared");
}
