//! TLS handshakes: scripted byte by byte, and those of OpenSSL.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use libtest_mimic::Failed;
use monitor_common::{counters::EndpointCounters, endpoint::Role};
use rustix::net::sockopt::set_socket_linger;

use crate::{Case, Watch, network::set_option, watch::fresh};

pub(crate) const CASES: [Case; 4] = [
    (
        "a_tls_hello_that_is_split_at_any_byte_begins_once",
        split_hello,
    ),
    ("tls_handshakes_end_as_their_script_says", scripts),
    (
        "a_tls_handshake_is_begun_behind_the_proxy_protocol",
        behind_the_proxy_protocol,
    ),
    ("a_tls_hello_with_the_handshake_of_tcp_begins", deferred),
];

pub(crate) const OPENSSL: [Case; 1] = [("tls_handshakes_of_openssl_are_counted", of_openssl)];

/// What keeps [`OPENSSL`] from running here.
pub(crate) fn missing() -> Option<String> {
    let found = Command::new("openssl").arg("version").output().is_ok();
    (!found).then(|| "`openssl` is not installed".to_owned())
}

const ROLES: [Role; 2] = [Role::Downstream, Role::Upstream];

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, len[0], len[1]], body].concat()
}

/// A handshake message of so many bytes in all.
fn message(kind: u8, len: u16) -> Vec<u8> {
    let [high, low] = (len - 4).to_be_bytes();
    let mut message = vec![kind, 0, high, low];
    message.resize(len.into(), 0x5a);
    record(22, &message)
}

fn sealed(kind: u8, len: usize) -> Vec<u8> {
    record(kind, &vec![0xa7; len])
}

fn hello() -> Vec<u8> {
    message(1, 60)
}

fn cipher() -> Vec<u8> {
    record(20, &[1])
}

/// The server's flight of TLS 1.3.
fn flight() -> Vec<u8> {
    let records = [23, 900, 281, 69].map(|len| sealed(23, len)).concat();
    [message(2, 122), cipher(), records].concat()
}

/// Begun, and how they ended: completed, alert, end, unknown; and the histogram's count.
type Counted = (u64, [u64; 4], u64);

fn counted(c: &EndpointCounters) -> Counted {
    (
        c.tls_handshakes,
        c.tls_handshakes_ended,
        c.tls_handshake.buckets.iter().sum(),
    )
}

struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn new(listener: &TcpListener) -> Self {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        Self { client, server }
    }

    fn ask(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        self.server.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        self.client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn close(self) {
        self.client.shutdown(Shutdown::Both).unwrap();
        self.server.shutdown(Shutdown::Both).unwrap();
    }
}

/// Compares both sides, once so many connections have ended.
#[track_caller]
fn check(watch: &Watch, address: SocketAddr, connections: u64, expected: Counted) {
    for role in ROLES {
        let c = watch.ended(role, address, connections);
        assert_eq!(counted(&c), expected, "{role:?}");
        assert_eq!(c.tls_handshake.sum_ns != 0, expected.2 != 0, "{role:?}");
        assert_eq!(c.requests.iter().sum::<u64>(), 0, "{role:?}");
    }
}

fn split_hello(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let hello = hello();
    let splits = hello.len() as u64 - 1;
    for at in 1..hello.len() {
        let mut pair = Pair::new(&listener);
        pair.ask(&hello[..at]);
        pair.ask(&hello[at..]);
        pair.answer(&flight());
        pair.ask(&cipher());
        pair.ask(&sealed(23, 53));
        pair.close();
    }
    check(
        watch,
        listener.local_addr()?,
        splits,
        (splits, [splits, 0, 0, 0], splits),
    );

    // Every byte by itself, both ways.
    let listener = TcpListener::bind(fresh())?;
    let mut pair = Pair::new(&listener);
    for byte in hello.chunks(1) {
        pair.ask(byte);
    }
    for byte in [message(2, 90), cipher(), sealed(22, 40)]
        .concat()
        .chunks(1)
    {
        pair.answer(byte);
    }
    for byte in [cipher(), sealed(22, 40)].concat().chunks(1) {
        pair.ask(byte);
    }
    pair.close();
    check(watch, listener.local_addr()?, 1, (1, [1, 0, 0, 0], 1));
    Ok(())
}

fn scripts(watch: &Watch) -> Result<(), Failed> {
    type Script = fn(&mut Pair);
    let scripts: [(Script, Counted); 8] = [
        (
            |pair| pair.answer(&record(21, &[2, 70])),
            (1, [0, 1, 0, 0], 0),
        ),
        (
            |pair| {
                pair.answer(&flight());
                pair.ask(&[cipher(), sealed(23, 19)].concat());
            },
            (1, [0, 1, 0, 0], 0),
        ),
        (|_| {}, (1, [0, 0, 1, 0], 0)),
        (|pair| pair.answer(&flight()), (1, [0, 0, 1, 0], 0)),
        (
            |pair| pair.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            (1, [0, 0, 1, 0], 0),
        ),
        // TLS 1.2, whose Finished are no application data.
        (
            |pair| {
                pair.answer(&[message(2, 90), message(11, 800), message(14, 4)].concat());
                pair.ask(&[message(16, 70), cipher(), sealed(22, 40)].concat());
                pair.answer(&[cipher(), sealed(22, 40)].concat());
            },
            (1, [1, 0, 0, 0], 1),
        ),
        // Another hello is asked for.
        (
            |pair| {
                pair.answer(&[message(2, 88), cipher()].concat());
                pair.ask(&[cipher(), message(1, 500)].concat());
                pair.answer(&flight());
            },
            (1, [0, 0, 1, 0], 0),
        ),
        // More records at once than are looked at.
        (
            |pair| pair.answer(&message(14, 4).repeat(9)),
            (1, [0, 0, 0, 1], 0),
        ),
    ];
    for (script, expected) in scripts {
        let listener = TcpListener::bind(fresh())?;
        let mut pair = Pair::new(&listener);
        pair.ask(&hello());
        for role in ROLES {
            let c = watch.counters(role, listener.local_addr()?);
            assert_eq!(counted(&c), (1, [0; 4], 0), "{role:?}");
        }
        script(&mut pair);
        pair.close();
        check(watch, listener.local_addr()?, 1, expected);
    }
    Ok(())
}

fn behind_the_proxy_protocol(watch: &Watch) -> Result<(), Failed> {
    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 1, 187],
    ]
    .concat();
    for header in [V1, &v2] {
        let listener = TcpListener::bind(fresh())?;
        for apart in [false, true] {
            let mut pair = Pair::new(&listener);
            if apart {
                pair.ask(header);
                pair.ask(&hello());
            } else {
                pair.ask(&[header, &hello()].concat());
            }
            pair.answer(&flight());
            pair.ask(&[cipher(), sealed(23, 69)].concat());
            pair.close();
        }
        // Without CAP_PERFMON one part of a segment is read.
        let begun = watch.ended(Role::Downstream, listener.local_addr()?, 2);
        let begun = begun.tls_handshakes;
        assert!((1..=2).contains(&begun));
        check(
            watch,
            listener.local_addr()?,
            2,
            (begun, [begun, 0, 0, 0], begun),
        );
    }
    Ok(())
}

/// The listener waits for data: the hello completes the handshake of TCP.
fn deferred(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5)?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(&hello())?;
    let server = listener.accept()?.0;
    let mut pair = Pair { client, server };
    pair.server.read_exact(&mut [0; 65])?;
    pair.answer(&flight());
    pair.ask(&[cipher(), sealed(23, 53)].concat());
    pair.close();
    check(watch, listener.local_addr()?, 1, (1, [1, 0, 0, 0], 1));
    Ok(())
}

/// A running `openssl s_server`.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Kept, as it would end without.
    _out: BufReader<ChildStdout>,
}

impl Server {
    fn new(dir: &Path, options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
            .arg(dir.join("cert.pem"))
            .arg("-key")
            .arg(dir.join("key.pem"))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "s_server ended");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.trim().parse().unwrap();
            }
        };
        Self {
            child,
            address,
            _out: out,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs a client to its end, and says whether it was content.
fn client(address: SocketAddr, options: &[&str]) -> bool {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-connect", &address.to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended already.
    let _written = stdin.write_all(b"GET / HTTP/1.0\r\n\r\n");
    child.wait().unwrap().success()
}

fn certificate() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(dir.path().join("key.pem"))
        .arg("-out")
        .arg(dir.path().join("cert.pem"))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let cert = dir.path().join("cert.pem");
    (dir, cert)
}

fn of_openssl(watch: &Watch) -> Result<(), Failed> {
    let (dir, cert) = certificate();
    let cert = cert.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let server = Server::new(dir.path(), &[]);
        for _ in 0..3 {
            assert!(client(server.address, &[version, "-CAfile", cert]));
        }
        check(watch, server.address, 3, (3, [3, 0, 0, 0], 3));
        // Who does not trust the certificate says so.
        assert!(!client(server.address, &[version, "-verify_return_error"]));
        check(watch, server.address, 4, (4, [3, 1, 0, 0], 3));
        // A session that both know.
        let session = dir.path().join("session");
        let session = session.to_str().unwrap();
        assert!(client(server.address, &[version, "-sess_out", session]));
        assert!(client(server.address, &[version, "-sess_in", session]));
        check(watch, server.address, 6, (6, [5, 1, 0, 0], 5));
        // Who is gone after its hello; who only closes is sent an alert.
        let mut stream = TcpStream::connect(server.address)?;
        stream.write_all(&hello()[..40])?;
        set_socket_linger(stream.as_fd(), Some(Duration::ZERO))?;
        drop(stream);
        let ends = (7, [5, 1, 1, 0], 5);
        check(watch, server.address, 7, ends);
        // Who does not speak TLS begins no handshake.
        let mut stream = TcpStream::connect(server.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let _end_or_reset = stream.read_to_end(&mut Vec::new());
        drop(stream);
        for role in ROLES {
            let c = watch.ended(role, server.address, 8);
            assert_eq!(counted(&c), ends, "{role:?}");
        }
    }
    // No version in common, and another group than the client guessed.
    let server = Server::new(dir.path(), &["-tls1_3", "-groups", "P-384"]);
    assert!(!client(server.address, &["-tls1_2"]));
    check(watch, server.address, 1, (1, [0, 1, 0, 0], 0));
    let retried = ["-groups", "X25519:P-384", "-CAfile", cert];
    assert!(client(server.address, &retried));
    check(watch, server.address, 2, (2, [1, 1, 0, 0], 1));
    Ok(())
}
