//! CONNECT: tunnels to configured backends, and nowhere else.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::support::{Backend, Client, Proxy, eventually, unused_port};

/// A server that knows no HTTP: it sends everything back in capitals, and says
/// goodbye at the end.
fn shouting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    bytes.make_ascii_uppercase();
                    if stream.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
                drop(stream.write_all(b"bye"));
            });
        }
    });
    address
}

fn proxy(backends: &[(u16, &str)], more: &str) -> Proxy {
    let backends: Vec<String> = backends
        .iter()
        .map(|(port, more)| format!("{{id: b{port}, host: 127.0.0.1, port: {port}{more}}}"))
        .collect();
    Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{db: [{}]}}\n\
         routing: {{r: {{upstream: db}}}}\nconnect: {{\"db.example:5432\": {{upstream: db}}}}\n{more}\n",
        backends.join(", ")
    ))
}

fn request(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

/// The status of the answer alone: an open tunnel has no body.
fn status(client: &mut Client) -> u16 {
    client.send(request("db.example:5432"));
    let head = client.try_head().unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_tunnel_leads_to_a_backend_of_the_configuration_and_carries_any_bytes() {
    let proxy = proxy(&[(shouting().port(), "")], "");
    let mut client = proxy.client();
    // What is sent ahead is the tunnel's, even where it looks like a request.
    let ahead = "get /smuggled http/1.1\r\n\r\n";
    client.send(request("DB.example:5432") + ahead);
    let head = client.try_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{head}");
    assert_eq!(head.lines().count(), 2, "{head}");
    assert_eq!(client.exactly(ahead.len()), ahead.to_uppercase().as_bytes());
    for word in ["one", "two"] {
        client.send(word);
        assert_eq!(client.exactly(3), word.to_uppercase().as_bytes());
    }
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"bye");
}

#[test]
fn what_is_not_configured_cannot_be_reached() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let backend = shouting();
    let proxy = proxy(&[(backend.port(), "")], "");
    // Not even a backend's own address, nor the right host with another port.
    let authorities = [
        elsewhere.local_addr().unwrap().to_string(),
        backend.to_string(),
        "db.example:5433".to_owned(),
        "db.example.evil:5432".to_owned(),
    ];
    for authority in authorities {
        let mut client = proxy.client();
        client.send(request(&authority) + "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status(), 403, "{authority}");
        let field = response.field("proxy-status").unwrap();
        assert!(field.contains("http_request_denied"), "{field}");
        assert!(client.ends(), "{authority}");
    }
    let nobody = elsewhere.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(nobody, Err(ErrorKind::WouldBlock));
}

#[test]
fn a_target_has_a_port_and_is_what_host_says() {
    let proxy = proxy(&[(shouting().port(), "")], "");
    for text in [
        "CONNECT db.example HTTP/1.1\r\nHost: db.example\r\n\r\n",
        "CONNECT db.example:5432 HTTP/1.1\r\nHost: other.example:5432\r\n\r\n",
        "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\nContent-Length: 3\r\n\r\nabc",
        "CONNECT http://db.example:5432/ HTTP/1.1\r\nHost: db.example:5432\r\n\r\n",
    ] {
        let mut client = proxy.client();
        client.send(text);
        assert_eq!(client.response().status(), 400, "{text}");
        assert!(client.ends(), "{text}");
    }
}

#[test]
fn a_backend_that_is_down_is_passed_over_or_told_of() {
    let dead = unused_port();
    let both = [(dead, ", weight: 1000000"), (shouting().port(), "")];
    let one_lives = proxy(&both, "");
    assert_eq!(status(&mut one_lives.client()), 200);
    let none_lives = proxy(&both[..1], "");
    let mut client = none_lives.client();
    assert_eq!(status(&mut client), 502);
    client.rest();
}

#[test]
fn a_tunnel_takes_a_place_at_its_backend_until_it_is_idle_for_too_long() {
    let backends = [(shouting().port(), ", max_conn: 1")];
    let proxy = proxy(&backends, "timeouts: {tunnel_idle: 400ms}");
    let mut first = proxy.client();
    assert_eq!(status(&mut first), 200);
    assert_eq!(status(&mut proxy.client()), 503);
    assert!(first.ends());
    // Its place is free a moment after its end can be seen.
    eventually("a tunnel for the next", || {
        (status(&mut proxy.client()) == 200).then_some(())
    });
}

#[test]
fn tunnels_do_not_excuse_requests_that_fail() {
    let failing = Backend::new(|_, peer| peer.close());
    let good = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\n\
         backends: {{db: [{{id: a, host: 127.0.0.1, port: {}, weight: 1000000}}, \
         {{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: db, load_balancer: weight}}}}\n\
         connect: {{\"db.example:5432\": {{upstream: db, load_balancer: weight}}}}\n\
         retries: {{attempts: 0}}\npassive_health: {{failures: 3, eject_for: 1h}}\n",
        failing.address.port(),
        good.address.port()
    ));
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 502);
        assert_eq!(status(&mut proxy.client()), 200);
    }
    proxy.wait_for_line("the backend is ejected");
    assert_eq!(client.get("/").text(), "b");
}
