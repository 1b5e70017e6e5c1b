//! Every timeout and its outcome, and clients that are slow on purpose.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::support::{Backend, Proxy, TIMEOUT, eventually};

#[test]
fn a_head_that_trickles_is_answered_with_408() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "timeouts: {request_head: 300ms}");
    let mut client = proxy.client();
    let start = Instant::now();
    let mut writer = client.stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nX-Slow: "
            .iter()
            .chain(std::iter::repeat(&b'x'))
        {
            if writer.write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(5) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(client.response().status(), 408);
    assert!(client.ends());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    drop(client);
    trickle.join().unwrap();
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let backend = Backend::echo();
    let config = format!(
        "server: {{host: 127.0.0.1, port: 0, read_timeout: 200ms}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    );
    let proxy = Proxy::with(&config);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response().status(), 408);
    assert!(client.ends());
}

#[test]
fn a_backend_that_does_not_take_the_body_is_a_gateway_timeout() {
    // Nobody reads: the connection stays in the backlog.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, read_timeout: 8s}}\ntimeouts: {{body_stall: 300ms}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        listener.local_addr().unwrap().port()
    ));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        while writer.write_all(&piece).is_ok() {}
    });
    assert_eq!(client.response().status(), 504);
    drop(client.stream.shutdown(std::net::Shutdown::Both));
    writing.join().unwrap();
}

#[test]
fn connections_without_a_request_are_closed_in_silence() {
    let backend = Backend::echo();
    let proxy = Proxy::before(
        &backend,
        "timeouts: {request_head: 200ms, keep_alive: 200ms}",
    );
    assert!(proxy.client().ends());
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    assert!(client.ends());
}

#[test]
fn a_backend_that_is_silent_is_a_gateway_timeout() {
    let backend = Backend::new(|_, _| {});
    let proxy = Proxy::before(&backend, "timeouts: {response_head: 200ms}");
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!(response.status(), 504);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("http_response_timeout")
    );
}

#[test]
fn a_backend_that_does_not_accept_is_a_gateway_timeout() {
    // A full backlog: connections beyond it are not answered.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fill: Vec<socket2::Socket> = (0..4)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&address.into()));
            socket
        })
        .collect();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\ntimeouts: {{connect: 300ms}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        address.port()
    ));
    let response = proxy.client().get("/");
    assert_eq!(response.status(), 504);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("connection_timeout")
    );
    drop(fill);
}

#[test]
fn a_response_that_stalls_is_cut() {
    let backend = Backend::new(|_, peer| {
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let proxy = Proxy::before(&backend, "timeouts: {body_stall: 200ms}");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.try_head().is_some());
    assert_eq!(client.exactly(4), b"half");
    assert!(client.ends());
}

#[test]
fn a_client_that_does_not_read_is_cut_and_its_place_is_free_again() {
    let backend = Backend::new(|request, peer| {
        if request.head.starts_with("GET /big") {
            let body = vec![b'x'; 32 << 20];
            peer.send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
            );
            peer.send(&body);
        } else {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let config = format!(
        "server: {{host: 127.0.0.1, port: 0, write_timeout: 300ms}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}, max_conn: 1}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    );
    let proxy = Proxy::with(&config);
    let mut slow = proxy.client();
    slow.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(slow.try_head().is_some());
    assert_eq!(
        proxy.client().get("/").status(),
        503,
        "the only place is taken"
    );
    eventually("a free place", || {
        (proxy.client().get("/").status() == 200).then_some(())
    });
    assert!(slow.rest().len() < 32 << 20);
}

#[test]
fn a_pooled_connection_that_nobody_uses_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\ntimeouts: {{upstream_idle: 100ms}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {port}}}]}}\nrouting: {{r: {{upstream: u}}}}\n"
    ));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let (mut backend, _) = listener.accept().unwrap();
    backend.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        backend.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    backend
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
        .unwrap();
    assert_eq!(client.response().text(), "a");
    assert_eq!(
        backend.read(&mut [0]).unwrap(),
        0,
        "the end of the connection"
    );
}
