//! What is refused, with which status, and that it never reaches a backend.

use super::support::{Backend, Proxy};

fn refused(proxy: &Proxy, request: &str) -> u16 {
    let mut client = proxy.client();
    client.send(request);
    let response = client.response();
    assert_eq!(
        response.field("connection").as_deref(),
        Some("close"),
        "{request:?}"
    );
    assert!(
        response.field("proxy-status").is_some(),
        "{}",
        response.head
    );
    assert!(client.ends(), "the connection lives on after {request:?}");
    response.status()
}

#[test]
fn ambiguous_requests_never_reach_a_backend() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "");
    for (status, request) in [
        (
            400,
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4, 4\r\n\r\nabcd",
        ),
        (
            400,
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        ),
        (400, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        (405, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
        (417, "GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
        ),
        (400, "\u{16}\u{3}\u{1}\r\n\r\n"),
    ] {
        assert_eq!(refused(&proxy, request), status, "{request:?}");
    }
    assert!(backend.received().is_empty(), "{:#?}", backend.received());
}

#[test]
fn a_bad_chunk_later_on_ends_the_request_and_both_connections() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("x\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    assert!(client.ends());
    assert!(
        backend
            .received()
            .iter()
            .all(|request| !request.head.contains("smuggled"))
    );
}

#[test]
fn heads_over_the_limits_are_answered_with_431() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "limits: {head_bytes: 4KiB, headers: 20}");
    let long = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n",
        "x".repeat(5000)
    );
    assert_eq!(refused(&proxy, &long), 431);
    let many: String = (0..30).map(|n| format!("A{n}: x\r\n")).collect();
    assert_eq!(
        refused(&proxy, &format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")),
        431
    );
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}", "x".repeat(5000));
    assert_eq!(refused(&proxy, &endless), 431);
}

#[test]
fn bodies_over_the_limit_are_answered_with_413() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "limits: {body_bytes: 1KiB}");
    let announced = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n";
    assert_eq!(refused(&proxy, announced), 413);
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert_eq!(refused(&proxy, &chunked), 413);
    assert!(backend.received().is_empty());
    // The coding is no part of the body.
    let whole =
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let mut client = proxy.client();
    client.send(whole);
    assert_eq!(client.response().status(), 200);
    let bytewise: String = "1\r\nx\r\n".repeat(1024);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{bytewise}0\r\n\r\n"
    ));
    assert_eq!(client.response().status(), 200);
}

#[test]
fn a_chunk_over_the_limit_is_refused_before_it_comes() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "limits: {body_bytes: 1MiB}");
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(&proxy, &format!("{head}fffffffffffff\r\n")), 413);
    // Behind one that has gone to the backend.
    let within = Backend::new(|_, _| {});
    let proxy = Proxy::before(&within, "limits: {body_bytes: 1MiB}");
    let mut client = proxy.client();
    client.send(format!("{head}1\r\na\r\n"));
    client.send("fffffffffffff\r\n");
    client.send(vec![b'x'; 64 << 10]);
    assert_eq!(client.response().status(), 413);
}

/// A head that never ends, far over the limit.
static LONG: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(40_000)));

#[test]
fn malformed_answers_are_a_bad_gateway_and_end_the_backends_connection() {
    let backend = Backend::new(|request, peer| {
        let answer: &[u8] = match request.head.split(' ').nth(1).unwrap() {
            "/both" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/junk" => b"hello\r\n\r\n",
            "/switch" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            "/chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "/long" => LONG.as_bytes(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        peer.send(answer);
    });
    let proxy = Proxy::before(&backend, "retries: {attempts: 0}");
    let mut client = proxy.client();
    for path in ["/both", "/junk", "/switch", "/chunk", "/long"] {
        let response = client.get(path);
        assert_eq!(response.status(), 502, "{path}");
        assert!(
            response.field("proxy-status").unwrap().contains("upstream"),
            "{path}"
        );
        assert_eq!(client.get("/fine").text(), "ok", "after {path}");
    }
    let last = backend.received().last().unwrap().connection;
    assert_eq!(last, 5, "each malformed answer must cost its connection");
}

#[test]
fn errors_are_html_where_the_client_asks_for_it() {
    let backend = Backend::echo();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{path: /x, upstream: u}}}}\n",
        backend.address.port()
    ));
    let mut client = proxy.client();
    let response = client.get("/nowhere");
    let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(json["status"], 404);
    client.send("GET /nowhere HTTP/1.1\r\nHost: h\r\nAccept: text/html,*/*\r\n\r\n");
    let response = client.response();
    assert!(
        response.text().starts_with("<!doctype html>"),
        "{}",
        response.text()
    );
    client.send("HEAD /nowhere HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to(true).status(), 404);
    assert_eq!(client.get("/x").status(), 200, "the connection lives on");
}

#[test]
fn requests_sent_ahead_are_bounded() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "limits: {pipeline_depth: 3}");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5));
    for last in [false, false, true] {
        let close = client.response().field("connection");
        assert_eq!(close.as_deref(), last.then_some("close"));
    }
    assert!(client.ends());
    assert_eq!(backend.received().len(), 3);
}

#[test]
fn what_follows_a_large_body_unasked_answers_nobody() {
    let backend = Backend::new(|_, peer| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
        let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
        peer.send(format!("{head}{}{stray}", "x".repeat(100_000)).as_bytes());
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    for connection in 0..3 {
        let body = client.get("/").text();
        assert!(body.len() == 100_000 && body.bytes().all(|byte| byte == b'x'));
        assert_eq!(backend.received()[connection].connection, connection);
    }
}

#[test]
fn every_failure_says_who_failed_and_how() {
    let backend = Backend::new(|request, peer| {
        match request.head.split(' ').nth(1).unwrap() {
            "/gone" => {}
            "/long" => peer.send(LONG.as_bytes()),
            "/switch" => peer.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n"),
            _ => peer.send(b"hello\r\n\r\n"),
        }
        peer.close();
    });
    let more = "retries: {attempts: 0}\npassive_health: {failures: 0}\n\
                limits: {head_bytes: 1KiB, body_bytes: 8}\ntimeouts: {request_head: 200ms}";
    let proxy = Proxy::before(&backend, more);
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: h\r\n{fields}\r\n");
    let get = |path: &str| head(&format!("GET {path} HTTP/1.1"), "");
    let cases = [
        (get("/#"), "400 http_request_error downstream"),
        (
            "GET / HTTP/1.1\r\n".to_owned(),
            "408 http_request_error downstream",
        ),
        (
            head("POST / HTTP/1.1", "Content-Length: 9\r\n"),
            "413 http_request_error downstream",
        ),
        (
            head("GET / HTTP/1.1", "Expect: luck\r\n"),
            "417 http_request_error downstream",
        ),
        (
            get(&format!("/{}", "x".repeat(1024))),
            "431 http_request_error downstream",
        ),
        (
            head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"),
            "501 http_request_error downstream",
        ),
        (
            head("GET / HTTP/1.2", ""),
            "505 http_request_error downstream",
        ),
        (
            head("CONNECT h:1 HTTP/1.1", ""),
            "405 http_request_denied downstream",
        ),
        (get("/gone"), "502 connection_terminated upstream"),
        (get("/junk"), "502 http_protocol_error upstream"),
        (
            get("/long"),
            "502 http_response_header_section_size upstream",
        ),
        (get("/switch"), "502 http_upgrade_failed upstream"),
    ];
    for (request, expected) in cases {
        let mut client = proxy.client();
        client.send(&request);
        let response = client.response();
        let field = response.field("proxy-status").unwrap();
        let rest = field.strip_prefix("speedmimi; error=").unwrap();
        let (token, rest) = rest.split_once("; details=\"").unwrap();
        let (side, _) = rest.split_once(": ").unwrap();
        let found = format!("{} {token} {side}", response.status());
        assert_eq!(found, expected, "{request:?}");
    }
}

#[test]
fn what_follows_an_answer_unasked_is_dropped_with_its_connection_however_it_is_read() {
    let (written, stray) = std::sync::mpsc::channel();
    let backend = Backend::new(move |request, peer| {
        let line = request.head.lines().next().unwrap().to_owned();
        let (status, length) = match line.split([' ', '/']).nth(2).unwrap() {
            "204" => ("204 No Content", ""),
            "304" => ("304 Not Modified", "Content-Length: 2\r\n"),
            _ => ("200 OK", "Content-Length: 2\r\n"),
        };
        let head = format!("HTTP/1.1 {status}\r\n{length}\r\n");
        let body = if line.starts_with("GET /200") {
            "ok"
        } else {
            ""
        };
        let more = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
        if line.contains("/at-once") {
            peer.send((head + body + more).as_bytes());
        } else {
            peer.send((head + body).as_bytes());
            peer.send(more.as_bytes());
        }
        written.send(()).unwrap();
    });
    let proxy = Proxy::before(&backend, "retries: {attempts: 0}");
    let mut client = proxy.client();
    let mut connections = 0;
    for how in ["at-once", "in-two"] {
        for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 200)] {
            client.send(format!(
                "{method} /{status}/{how} HTTP/1.1\r\nHost: h\r\n\r\n"
            ));
            let response = client.response_to(method == "HEAD");
            assert_eq!(response.status(), status, "{method} {how}");
            let body = if (method, status) == ("GET", 200) {
                "ok"
            } else {
                ""
            };
            assert_eq!(response.text(), body, "{method} {status} {how}");
            stray.recv().unwrap();
            let received = backend.received();
            assert_eq!(received.last().unwrap().connection, connections);
            connections += 1;
        }
    }
}
