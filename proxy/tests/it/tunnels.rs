//! WebSocket tunnels and streams of events.

use super::support::{Backend, Proxy, eventually};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Switches, then sends everything back in capitals until the end.
fn shouting() -> Backend {
    Backend::new(|request, peer| {
        if request.field("upgrade").is_none() {
            return peer.send(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
        }
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello");
        loop {
            let bytes = peer.read_some();
            if bytes.is_empty() {
                peer.send(b"bye");
                return peer.close();
            }
            peer.send(&bytes.to_ascii_uppercase());
        }
    })
}

#[test]
fn a_tunnel_carries_both_ways_until_both_end() {
    let backend = shouting();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send(HANDSHAKE);
    let head = client.try_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.exactly(5), b"hello");
    for word in ["one", "two"] {
        client.send(word);
        assert_eq!(client.exactly(3), word.to_uppercase().as_bytes());
    }
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"bye");
    let request = backend.only();
    assert_eq!(request.field("connection").as_deref(), Some("Upgrade"));
    assert_eq!(request.field("sec-websocket-key").as_deref(), Some("x"));
}

#[test]
fn bytes_after_the_handshake_wait_for_101() {
    let backend = shouting();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send(format!("{HANDSHAKE}early"));
    assert!(client.try_head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(10), b"helloEARLY");
}

#[test]
fn bytes_after_a_declined_handshake_are_no_request() {
    let backend = Backend::fixed("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send(format!(
        "{HANDSHAKE}GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!(response.status(), 403);
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(client.ends());
    assert_eq!(
        backend.only().field("upgrade").as_deref(),
        Some("websocket")
    );
}

#[test]
fn an_idle_tunnel_is_closed() {
    let backend = shouting();
    let proxy = Proxy::before(&backend, "timeouts: {tunnel_idle: 200ms}");
    let mut client = proxy.client();
    client.send(HANDSHAKE);
    assert!(client.try_head().is_some());
    assert_eq!(client.exactly(5), b"hello");
    assert!(client.ends());
}

#[test]
fn events_arrive_one_by_one() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::new(move |_, peer| {
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            wait.lock().unwrap().recv().unwrap();
            peer.send(b"9\r\ndata: 1\n\n\r\n");
        }
        peer.send(b"0\r\n\r\n");
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n");
    assert!(client.try_head().unwrap().contains("text/event-stream"));
    for _ in 0..3 {
        go.send(()).unwrap();
        assert_eq!(client.exactly(14), b"9\r\ndata: 1\n\n\r\n");
    }
    assert_eq!(client.exactly(5), b"0\r\n\r\n");
}

/// A backend that begins an answer as the path says and tells when its client is
/// gone.
fn waiting() -> (Backend, std::sync::mpsc::Receiver<String>) {
    let (gone, wait) = std::sync::mpsc::channel();
    let backend = Backend::new(move |request, peer| {
        let path = request.head.split(' ').nth(1).unwrap().to_owned();
        let chunk = "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        match path.as_str() {
            "/silent" => {}
            "/events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream";
                peer.send(format!("{head}{chunk}").as_bytes());
            }
            "/close" => peer.send(b"HTTP/1.1 200 OK\r\n\r\na"),
            _ => peer.send(format!("HTTP/1.1 200 OK{chunk}").as_bytes()),
        }
        assert_eq!(peer.read_some(), b"");
        drop(gone.send(path));
    });
    (backend, wait)
}

fn asking(proxy: &Proxy, path: &str) -> super::support::Client {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    if path != "/silent" {
        assert!(client.try_head().is_some());
    }
    client
}

#[test]
fn a_client_that_is_gone_frees_its_backend() {
    let (backend, gone) = waiting();
    let proxy = Proxy::before(&backend, "");
    for path in ["/silent", "/events", "/close", "/chunks"] {
        let before = backend.received().len();
        let client = asking(&proxy, path);
        eventually("the request", || {
            (backend.received().len() > before).then_some(())
        });
        drop(client);
        assert_eq!(gone.recv_timeout(super::support::TIMEOUT).unwrap(), path);
    }
    // Also where it has sent more before.
    let mut client = asking(&proxy, "/silent");
    client.send("GET /silent HTTP/1.1\r\nHost: h\r\n\r\n");
    drop(client);
    assert_eq!(
        gone.recv_timeout(super::support::TIMEOUT).unwrap(),
        "/silent"
    );
}

#[test]
fn streams_end_with_their_client_even_where_its_end_is_ignored() {
    let (backend, gone) = waiting();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, ignore_client_abort: true}}\n\
         timeouts: {{body_stall: 1h}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    ));
    let half = asking(&proxy, "/chunks");
    half.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for path in ["/events", "/close"] {
        drop(asking(&proxy, path));
        assert_eq!(gone.recv_timeout(super::support::TIMEOUT).unwrap(), path);
    }
    assert!(gone.try_recv().is_err(), "who still reads is not gone");
}
