//! Heads that are rewritten, connections that are used again, routes.

use super::support::{Backend, Proxy};

#[test]
fn a_request_and_its_answer_pass() {
    let backend = Backend::fixed("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi");
    let proxy = Proxy::before(&backend, "");
    let response = proxy.client().get("/path?query");
    assert_eq!((response.status(), response.text().as_str()), (200, "hi"));
    assert!(
        response.head.starts_with("HTTP/1.1 200 Fine\r\n"),
        "{}",
        response.head
    );
    assert_eq!(response.field("x-a").as_deref(), Some("b"));
    assert!(response.field("date").is_some(), "{}", response.head);
    let request = backend.only();
    assert!(
        request.head.starts_with("GET /path?query HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    assert_eq!(request.field("host").as_deref(), Some("test"));
    assert_eq!(
        request.field("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(request.field("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(request.field("x-forwarded-host").as_deref(), Some("test"));
}

#[test]
fn backend_connections_are_used_again() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "");
    for path in ["/1", "/2", "/3"] {
        assert_eq!(
            proxy.client().get(path).text(),
            format!("GET {path} HTTP/1.1")
        );
    }
    let mut client = proxy.client();
    for path in ["/4", "/5"] {
        assert_eq!(client.get(path).text(), format!("GET {path} HTTP/1.1"));
    }
    assert!(
        backend
            .received()
            .iter()
            .all(|request| request.connection == 0)
    );
}

#[test]
fn the_lines_of_a_trusted_list_are_read_from_the_last_to_the_first() {
    let backend = Backend::echo();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], real_ip_header: X-Forwarded-For}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default}}}}\n",
        backend.address.port()
    ));
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.100.9, 203.0.113.7\r\n\
         X-Forwarded-For: 10.0.0.2\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    let request = backend.only();
    assert_eq!(request.field("x-real-ip").as_deref(), Some("203.0.113.7"));
    assert_eq!(
        request.field("x-forwarded-for").as_deref(),
        Some("198.51.100.9, 203.0.113.7, 10.0.0.2, 10.0.0.1, 127.0.0.1")
    );
}

#[test]
fn no_other_spelling_and_no_trailer_says_who_the_client_is() {
    let backend = Backend::echo();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, real_ip_header: X-The-Address-Of-The-Client}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default}}}}\n",
        backend.address.port()
    ));
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nX_Forwarded_For: 203.0.113.7\r\nX_Real-IP: 203.0.113.7\r\n\
         X_The_Address_Of_The_Client: 203.0.113.7\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    let head = backend.only().head;
    assert!(
        head.contains("X-Kept") && !head.contains("203.0.113.7"),
        "{head}"
    );
    for name in ["X-Forwarded-For", "X-The-Address-Of-The-Client"] {
        let mut client = proxy.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n{name}: 203.0.113.7\r\n\r\n"
        ));
        assert_eq!(client.response().status(), 400, "{name}");
    }
}

#[test]
fn only_trusted_proxies_are_believed() {
    let backend = Backend::echo();
    let claims = "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    let stranger = Proxy::before(&backend, "");
    let mut client = stranger.client();
    client.send(claims);
    assert_eq!(client.response().status(), 200);
    let trusting = format!(
        "server: {{host: 127.0.0.1, port: 0, trusted_proxies: [127.0.0.0/8]}}\n\
         backends: {{default: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{default: {{upstream: default}}}}\n",
        backend.address.port()
    );
    let trusting = Proxy::with(&trusting);
    let mut client = trusting.client();
    client.send(claims);
    assert_eq!(client.response().status(), 200);
    let seen = backend.received();
    assert_eq!(seen[0].field("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(
        seen[0].field("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(seen[1].field("x-real-ip").as_deref(), Some("203.0.113.7"));
    assert_eq!(
        seen[1].field("x-forwarded-for").as_deref(),
        Some("203.0.113.7, 127.0.0.1")
    );
}

#[test]
fn the_longest_prefix_decides_and_nothing_else_is_reached() {
    let (root, api) = (Backend::fixed(OK_ROOT), Backend::fixed(OK_API));
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\n\
         backends:\n  web: [{{id: w, host: 127.0.0.1, port: {}}}]\n  api: [{{id: a, host: localhost, port: {}}}]\n\
         routing:\n  web: {{path: /web, upstream: web}}\n  api: {{path: /web/api, upstream: api}}\n",
        root.address.port(),
        api.address.port()
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/web/x").text(), "root");
    assert_eq!(client.get("/web/api/x").text(), "api");
    // The Host field and an absolute target never choose the destination.
    client.send(format!(
        "GET http://{0}/other HTTP/1.1\r\nHost: {0}\r\n\r\n",
        root.address
    ));
    let response = client.response();
    assert_eq!(response.status(), 404);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("destination_not_found")
    );
    assert_eq!(client.get("/web/x").text(), "root");
}

const OK_ROOT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nroot";
const OK_API: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napi";

#[test]
fn hop_by_hop_fields_stay_on_their_side() {
    let backend = Backend::fixed(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 9\r\n\r\n",
    );
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\
         Proxy-Connection: x\r\nX-Kept: 1\r\n\r\n",
    );
    let response = client.response();
    for gone in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(response.field(gone), None, "{}", response.head);
    }
    let request = backend.only();
    for gone in ["connection", "x-mine", "te", "upgrade", "proxy-connection"] {
        assert_eq!(request.field(gone), None, "{}", request.head);
    }
    assert_eq!(request.field("x-kept").as_deref(), Some("1"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo();
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    let all: String = (0..50)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .collect();
    client.send(all);
    for n in 0..50 {
        assert_eq!(client.response().text(), format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn a_backend_that_is_gone_is_a_bad_gateway() {
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\n",
        super::support::unused_port()
    ));
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!(response.status(), 502);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("connection_refused")
    );
    assert_eq!(client.get("/").status(), 502, "the connection lives on");
}

#[test]
fn a_stale_pooled_connection_is_not_the_clients_problem() {
    let backend = Backend::new(|request, peer| {
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if request.head.starts_with("GET /last") {
            peer.close();
        }
    });
    let proxy = Proxy::before(&backend, "");
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/last").text(), "ok");
    }
}
