//! A request that meets the backend's end halfway, on a link so slow that both
//! are under way at once: two network namespaces with a queue between them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::support::{Proxy, TIMEOUT};

const OURS: &str = "10.255.91.1";
const THEIRS: &str = "10.255.91.2";
const SLOW: &str = "root tbf rate 16kbit burst 1600 latency 100s";

/// Why there can be no such link here.
pub(crate) fn missing() -> Option<String> {
    let script = format!("ip link add va type veth peer name vb && tc qdisc add dev va {SLOW}");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let possible = status.is_ok_and(|status| status.success());
    (!possible).then(|| "a slow link needs root, ip(8), tc(8) and the queue tbf".to_owned())
}

/// Takes this thread, and what it starts from now on, into a network of its own.
fn enter_new_network() {
    // SAFETY: the call takes no memory, and changes this thread alone.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    ip("link set lo up");
}

fn command(name: &str, arguments: &str) {
    let status = Command::new(name).args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "{name} {arguments}");
}

fn ip(arguments: &str) {
    command("ip", arguments);
}

/// Reads a request of which the body is `x`, or a head alone.
fn read_request(stream: &mut TcpStream) -> String {
    let mut request = String::new();
    while !(request.ends_with("\r\n\r\n") && request.starts_with("GET") || request.ends_with('x')) {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the request ended early: {request:?}");
        request += std::str::from_utf8(&chunk[..read]).unwrap();
    }
    request
}

/// Answers one request, closes while the next one is under way, and answers that
/// on the next connection.
fn backend(thread_id: &Sender<i32>, go: &Receiver<()>, tell: &Sender<u16>) {
    enter_new_network();
    // SAFETY: the call takes nothing and cannot fail.
    thread_id.send(unsafe { libc::gettid() }).unwrap();
    go.recv().unwrap();
    ip(&format!("addr add {THEIRS}/30 dev vb"));
    ip("link set vb up");
    let listener = TcpListener::bind((THEIRS, 0)).unwrap();
    tell.send(listener.local_addr().unwrap().port()).unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut first, _) = listener.accept().unwrap();
    read_request(&mut first);
    first.write_all(answer).unwrap();
    go.recv().unwrap();
    // What fills the queue leaves before the end of the connection does.
    command("tc", &format!("qdisc add dev vb {SLOW}"));
    let filler = UdpSocket::bind((THEIRS, 0)).unwrap();
    for _ in 0..3 {
        filler.send_to(&[0; 1400], (OURS, 9)).unwrap();
    }
    drop(first);
    tell.send(0).unwrap();
    let (mut second, _) = listener.accept().unwrap();
    assert!(read_request(&mut second).starts_with("POST /crossing"));
    second.write_all(answer).unwrap();
    go.recv().unwrap();
}

pub(crate) fn a_post_that_crosses_the_backends_end_is_sent_again() {
    thread::spawn(cross).join().unwrap();
}

fn cross() {
    enter_new_network();
    ip("link add va type veth peer name vb");
    let ((thread_id, their_thread), (go, wait)) = (channel(), channel());
    let (tell, told) = channel();
    let backend = thread::spawn(move || backend(&thread_id, &wait, &tell));
    let their_thread = their_thread.recv_timeout(TIMEOUT).unwrap();
    ip(&format!("link set vb netns {their_thread}"));
    ip(&format!("addr add {OURS}/30 dev va"));
    ip("link set va up");
    go.send(()).unwrap();
    let port = told.recv_timeout(TIMEOUT).unwrap();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\n\
         backends: {{u: [{{id: b, host: {THEIRS}, port: {port}}}]}}\nrouting: {{r: {{upstream: u}}}}\n"
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "ok");
    go.send(()).unwrap();
    told.recv_timeout(TIMEOUT).unwrap();
    client.send("POST /crossing HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    go.send(()).unwrap();
    backend.join().unwrap();
}
