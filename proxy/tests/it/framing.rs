//! Bodies: every way they can be framed, in both directions.

use std::net::Shutdown;
use std::thread;

use super::support::{Backend, Proxy, field};

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|n| u8::try_from(n * 31 % 251).unwrap())
        .collect()
}

/// Sends back the body it was given, framed as the path says.
fn mirror() -> Backend {
    Backend::new(|request, peer| {
        if request.head.starts_with("POST /chunked") {
            let mut out =
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
            for chunk in request.body.chunks(5000) {
                out.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\nX-Sum: 7\r\n\r\n");
            peer.send(&out);
        } else if request.head.starts_with("POST /close") {
            peer.send(b"HTTP/1.1 200 OK\r\n\r\n");
            peer.send(&request.body);
            peer.close();
        } else if request.head.starts_with("POST /at-once") {
            let bytes = request.body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            peer.send(&[head.as_bytes(), &request.body].concat());
        } else {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                request.body.len()
            );
            peer.send(head.as_bytes());
            peer.send(&request.body);
        }
    })
}

#[test]
fn bodies_of_every_size_and_framing_arrive_whole() {
    let backend = mirror();
    let proxy = Proxy::before(&backend, "");
    // Around what is copied, what is read with its head, and what moves within
    // the kernel.
    let sizes = [
        0, 1, 100, 4_000, 4_096, 5_000, 20_000, 36_000, 37_000, 65_535, 65_536, 130_000, 140_000,
        200_000, 3_000_000,
    ];
    for size in sizes {
        for path in ["/length", "/chunked", "/close", "/at-once"] {
            let sent = body(size);
            let mut client = proxy.client();
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
            let mut writer = client.stream.try_clone().unwrap();
            let payload = [head.as_bytes(), &sent].concat();
            let writing = thread::spawn(move || std::io::Write::write_all(&mut writer, &payload));
            let response = client.response();
            writing.join().unwrap().unwrap();
            assert_eq!(response.status(), 200);
            assert!(
                response.body == sent,
                "{path} {size}: {} bytes came back",
                response.body.len()
            );
        }
    }
}

#[test]
fn what_has_come_of_a_large_body_is_not_held_back() {
    // With the head in the pipe and before it, and with nothing behind the head.
    for (whole, early) in [
        (100_000, 60_000),
        (100_000, 0),
        (200_000, 60_000),
        (200_000, 0),
    ] {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let backend = Backend::new(move |_, peer| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n\r\n");
            peer.send(&[head.as_bytes(), &body(early)].concat());
            wait.lock().unwrap().recv().unwrap();
            peer.send(&body(whole)[early..]);
        });
        let proxy = Proxy::before(&backend, "");
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = client.try_head().unwrap();
        assert_eq!(
            field(&head, "content-length"),
            Some(whole.to_string()),
            "{head}"
        );
        assert_eq!(client.exactly(early), body(early));
        go.send(()).unwrap();
        assert_eq!(client.exactly(whole - early), body(whole)[early..]);
    }
}

#[test]
fn a_large_body_follows_a_head_of_any_size() {
    for field_bytes in [1, 3_700, 3_900, 4_000, 4_100, 6_000, 12_000] {
        let backend = Backend::new(move |_, peer| {
            let long = "x".repeat(field_bytes);
            let head =
                format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 100000\r\n\r\n");
            peer.send(&[head.as_bytes(), &body(100_000)].concat());
        });
        let proxy = Proxy::before(&backend, "");
        let mut client = proxy.client();
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let response = client.response();
            assert_eq!(response.field("x-long").unwrap().len(), field_bytes);
            assert_eq!(response.body, body(100_000));
        }
    }
}

#[test]
fn chunked_requests_and_trailers_pass() {
    let backend = mirror();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        for part in [
            "3;a=b\r\nab",
            "c\r\n1",
            "0\r\n0123456789abcdef\r\n0\r\nX-T: 1\r\n",
            "\r\n",
        ] {
            client.send(part);
        }
        let head = client.try_head().unwrap();
        assert_eq!(
            field(&head, "transfer-encoding").as_deref(),
            Some("chunked")
        );
        let (body, trailers) = client.chunks();
        assert_eq!(body, b"abc0123456789abcdef");
        assert_eq!(trailers, "X-Sum: 7\n");
    }
}

#[test]
fn http_1_0_clients_get_no_chunks_and_are_closed_unless_they_ask() {
    let backend = mirror();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("POST /chunked HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
    let response = client.response();
    assert_eq!(field(&response.head, "transfer-encoding"), None);
    assert_eq!(
        field(&response.head, "connection").as_deref(),
        Some("close")
    );
    assert_eq!(response.body, b"abc");
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc");
        let response = client.response();
        assert_eq!(
            field(&response.head, "connection").as_deref(),
            Some("keep-alive")
        );
        assert_eq!(response.body, b"abc");
    }
}

#[test]
fn head_204_and_304_have_no_body() {
    let backend = Backend::new(|request, peer| {
        let answer: &[u8] = if request.head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
        } else if request.head.starts_with("GET /204") {
            b"HTTP/1.1 204 No Content\r\n\r\n"
        } else {
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n"
        };
        peer.send(answer);
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        let response = client.response_to(true);
        assert_eq!(response.field("content-length").as_deref(), Some("1234"));
        let response = client.get("/204");
        assert_eq!(
            (response.status(), response.field("content-length")),
            (204, None)
        );
        assert_eq!(client.get("/304").status(), 304);
    }
    assert!(
        backend
            .received()
            .iter()
            .all(|request| request.connection == 0)
    );
}

#[test]
fn interim_responses_pass_and_the_body_waits_for_100() {
    let backend = Backend::new(|request, peer| {
        if field(&request.head, "x-answer-early").is_some() {
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(peer.read_some(), b"body");
        }
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().status(), 103);
    assert_eq!(client.response().text(), "ok");
    let expecting = "POST / HTTP/1.1\r\nHost: h\r\nX-Answer-Early: 1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(expecting);
    assert_eq!(client.response().status(), 100);
    client.send("body");
    assert_eq!(client.response().status(), 103);
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn an_answer_before_the_body_arrives_and_ends_the_connection() {
    let backend = Backend::new(|_, peer| {
        peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
        peer.close();
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nX-Answer-Early: 1\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (401, "no"));
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(client.ends());
}

#[test]
fn an_answer_amid_the_body_says_that_the_connection_ends() {
    let backend = Backend::new(|_, peer| {
        peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: h\r\nX-Answer-Early: 1\r\nContent-Length: 99\r\n\r\nhalf");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (401, "no"));
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(client.ends());
}

#[test]
fn an_early_answer_waits_for_a_client_that_sends_all_of_its_body_first() {
    let backend = Backend::new(|_, peer| {
        peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
        peer.close();
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    let size = 32 << 20;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Answer-Early: 1\r\nContent-Length: {size}\r\n\r\n"
    ));
    client.send(vec![b'x'; size]);
    assert_eq!(client.response().status(), 401);
    assert!(client.ends());
}

#[test]
fn a_client_that_ended_its_side_still_gets_its_answer_where_that_is_wanted() {
    let backend = Backend::echo();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, ignore_client_abort: true}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        backend.address.port()
    ));
    let mut client = proxy.client();
    client.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().text(), "GET /half HTTP/1.1");
    assert!(client.ends());
}

#[test]
fn a_body_that_is_cut_off_is_never_taken_for_a_whole() {
    let backend = Backend::new(|request, peer| {
        let head: &[u8] = if request.head.starts_with("GET /length") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        };
        peer.send(head);
        peer.close();
    });
    let proxy = Proxy::before(&backend, "");
    for path in ["/length", "/chunked"] {
        let mut client = proxy.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let head = client.try_head();
        let rest = client.rest();
        assert!(
            rest.len() < 100 && !rest.ends_with(b"0\r\n\r\n"),
            "{head:?} {rest:?}"
        );
    }
}

#[test]
fn a_backend_never_sees_an_empty_host() {
    let backend = mirror();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(
        backend.only().field("host"),
        Some(backend.address.to_string())
    );
}
