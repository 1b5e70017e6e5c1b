//! Which backend is used: limits, health, retries.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::support::{Backend, Peer, Proxy, eventually, unused_port};

pub(crate) fn named(name: &'static str) -> Backend {
    Backend::new(move |_, peer| {
        peer.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            )
            .as_bytes(),
        );
    })
}

pub(crate) fn config(backends: &[(&str, u16, &str)], more: &str) -> String {
    let list: Vec<String> = backends
        .iter()
        .map(|(id, port, more)| format!("{{id: {id}, host: 127.0.0.1, port: {port}{more}}}"))
        .collect();
    format!(
        "server: {{host: 127.0.0.1, port: 0, trusted_proxies: [127.0.0.1]}}\n\
         backends: {{u: [{}]}}\n{more}\n",
        list.join(", ")
    )
}

#[test]
fn a_full_backend_is_told_apart_from_a_missing_one() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::new(move |_, peer| {
        wait.lock().unwrap().recv().unwrap();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let port = backend.address.port();
    let text = config(
        &[("b", port, ", max_conn: 2")],
        "routing: {r: {upstream: u}}",
    );
    let proxy = Proxy::with_arguments(&text, &["--workers", "3"]);
    let mut busy = [proxy.client(), proxy.client()];
    for client in &mut busy {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("both requests", || {
        (backend.received().len() == 2).then_some(())
    });
    for _ in 0..10 {
        let response = proxy.client().get("/");
        assert_eq!(response.status(), 503);
        let status = response.field("proxy-status").unwrap();
        assert!(
            status.contains("connection_limit_reached") && status.contains("every backend"),
            "{status}"
        );
    }
    go.send(()).unwrap();
    go.send(()).unwrap();
    for client in &mut busy {
        assert_eq!(client.response().status(), 200);
    }
    go.send(()).unwrap();
    assert_eq!(proxy.client().get("/").status(), 200);
    let off = config(
        &[("b", port, ", active: false")],
        "routing: {r: {upstream: u}}",
    );
    let response = Proxy::with(&off).client().get("/");
    assert_eq!(response.status(), 503);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("destination_unavailable")
    );
}

#[test]
fn a_request_that_is_sent_again_keeps_its_place() {
    // Each connection is closed as its second request comes.
    let used = Mutex::new(Vec::new());
    let backend = Backend::new(move |request, peer| {
        let mut used = used.lock().unwrap();
        if used.contains(&request.connection) {
            return peer.close();
        }
        used.push(request.connection);
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let list = [("b", backend.address.port(), ", max_conn: 1")];
    let proxy = Proxy::with(&config(&list, "routing: {r: {upstream: u}}"));
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(backend.received().len(), 5);
}

#[test]
fn weights_and_client_addresses_decide() {
    let (a, b) = (named("a"), named("b"));
    let list = [
        ("a", a.address.port(), ", weight: 100"),
        ("b", b.address.port(), ", weight: 300"),
    ];
    let proxy = Proxy::with(&config(
        &list,
        "routing: {w: {path: /w, upstream: u, load_balancer: weight}, i: {path: /i, upstream: u, load_balancer: ip_hash},\n\
         p: {path: /p, upstream: u, load_balancer: weight, protocols: {sse: ip_hash}}}",
    ));
    let mut client = proxy.client();
    let hits = (0..100).filter(|_| client.get("/w").text() == "b").count();
    assert!(
        (70..=80).contains(&hits),
        "{hits} of 100 went to the one with 3/4 of the weight"
    );
    let mut by_client = |path: &str, ip: u8| {
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nX-Real-IP: 203.0.113.{ip}\r\n\r\n"
        ));
        client.response().text()
    };
    let first: Vec<String> = (0..40).map(|ip| by_client("/i", ip)).collect();
    assert!(
        first.contains(&"a".to_owned()) && first.contains(&"b".to_owned()),
        "{first:?}"
    );
    let again: Vec<String> = (0..40).map(|ip| by_client("/p", ip)).collect();
    assert_eq!(
        first, again,
        "the override for event streams is the same choice"
    );
}

#[test]
fn a_backend_that_fails_its_checks_is_left_alone_until_it_passes_again() {
    let sick = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&sick);
    let a = Backend::new(move |request, peer| {
        let bad = request.head.starts_with("GET /health") && asked.load(Ordering::SeqCst);
        let status = if bad { "500 Bad" } else { "200 OK" };
        peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\na").as_bytes());
    });
    let b = named("b");
    let check = ", health_check: {path: /health, interval: 50ms, timeout: 1s, failures: 2}";
    let list = [("a", a.address.port(), check), ("b", b.address.port(), "")];
    let proxy = Proxy::with(&config(&list, "routing: {r: {upstream: u}}"));
    let mut client = proxy.client();
    let mut both = || {
        let texts: Vec<String> = (0..20).map(|_| client.get("/").text()).collect();
        (
            texts.contains(&"a".to_owned()),
            texts.contains(&"b".to_owned()),
        )
    };
    assert_eq!(both(), (true, true));
    sick.store(true, Ordering::SeqCst);
    proxy.wait_for_line("the backend is unhealthy");
    assert_eq!(both(), (false, true));
    sick.store(false, Ordering::SeqCst);
    proxy.wait_for_line("the backend is healthy again");
    assert_eq!(both(), (true, true));
}

#[test]
fn failed_checks_add_up_over_changes_of_the_configuration() {
    let a = Backend::fixed("HTTP/1.1 500 Bad\r\nContent-Length: 1\r\n\r\na");
    let text = |weight: u32| {
        let more = format!(
            ", weight: {weight}, health_check: {{path: /health, interval: 1h, timeout: 5s, failures: 2}}"
        );
        config(
            &[("a", a.address.port(), &more)],
            "routing: {r: {upstream: u}}",
        )
    };
    // A changed backend is checked at once, and then not for an hour. A change
    // may overtake the answer to a check, so there are more than it takes.
    let proxy = Proxy::with(&text(1));
    for weight in 2..5 {
        eventually("the check", || {
            (a.received().len() == weight as usize - 1).then_some(())
        });
        std::fs::write(&proxy.config_path, text(weight)).unwrap();
    }
    proxy.wait_for_line("the backend is unhealthy");
}

#[test]
fn a_check_goes_on_over_changes_that_are_not_its_backends() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let a = Backend::new(move |_, peer| {
        wait.lock().unwrap().recv().unwrap();
        peer.send(b"HTTP/1.1 500 Bad\r\nContent-Length: 1\r\n\r\na");
    });
    let check = ", health_check: {path: /health, interval: 1h, timeout: 1h, failures: 1}";
    let list = [("a", a.address.port(), check)];
    let text = config(&list, "routing: {r: {upstream: u}}");
    let proxy = Proxy::with(&text);
    eventually("the check", || (a.received().len() == 1).then_some(()));
    let changed = text.replace("{r: {", "{other: {");
    std::fs::write(&proxy.config_path, changed).unwrap();
    proxy.wait_for_line("configuration reloaded");
    go.send(()).unwrap();
    proxy.wait_for_line("the backend is unhealthy");
}

#[test]
fn a_backend_that_loses_connections_is_ejected_and_tried_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let a = Backend::new(move |_, peer| {
        if state.load(Ordering::SeqCst) {
            peer.close();
        } else {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
        }
    });
    let b = named("b");
    let list = [("a", a.address.port(), ""), ("b", b.address.port(), "")];
    let more = "routing: {r: {upstream: u}}\nretries: {attempts: 0}\n\
                passive_health: {failures: 3, eject_for: 500ms}";
    let proxy = Proxy::with(&config(&list, more));
    let mut client = proxy.client();
    let failed = (0..200).filter(|_| client.get("/").status() == 502).count();
    assert!(failed >= 3, "{failed} of 200 failed");
    proxy.wait_for_line("the backend is ejected");
    broken.store(false, Ordering::SeqCst);
    eventually("the return of the backend", || {
        (client.get("/").text() == "a").then_some(())
    });
}

/// Whoever knows a URL that fails could take the backend away from all others.
#[test]
fn what_a_client_asks_for_ejects_nobody() {
    let answer = |request: &str| {
        let status = match request.split(' ').nth(1) {
            Some("/500") => "500 Bad",
            Some("/501") => "501 Unknown",
            _ => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\nx")
    };
    let backend = || Backend::new(move |request, peer| peer.send(answer(&request.head).as_bytes()));
    let (a, b) = (backend(), backend());
    let list = [("a", a.address.port(), ""), ("b", b.address.port(), "")];
    let more = "admin: {enabled: true, host: 127.0.0.1, port: 0}\nrouting: {r: {upstream: u}}\n\
                passive_health: {failures: 3, answers_min: 50, interval: 100ms, eject_for: 1h}";
    let proxy = Proxy::with(&config(&list, more));
    let mut client = proxy.client();
    let ejected = || {
        let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
        let all = list["backends"].as_array().unwrap().clone();
        all.iter().filter(|one| one["ejected"] == true).count()
    };
    for path in ["/501", "/500"] {
        for _ in 0..400 {
            client.get(path);
        }
        assert_eq!(ejected(), 0, "{path}");
    }
}

#[test]
fn the_share_of_errors_is_looked_at_however_often_the_configuration_changes() {
    let (a, b) = (
        Backend::fixed("HTTP/1.1 500 Bad\r\nContent-Length: 1\r\n\r\na"),
        named("b"),
    );
    let list = [("a", a.address.port(), ""), ("b", b.address.port(), "")];
    let more = "admin: {enabled: true, host: 127.0.0.1, port: 0}\nrouting: {r: {upstream: u}}\n\
                passive_health: {failures: 0, answers_min: 20, interval: 3s, eject_for: 1h}";
    let proxy = Proxy::with(&config(&list, more));
    let (_, text) = proxy.admin("GET", "/api/v1/config", "");
    let text = text.to_string();
    let mut client = proxy.client();
    eventually("the ejection", || {
        for _ in 0..10 {
            client.get("/");
        }
        assert_eq!(proxy.admin("PUT", "/api/v1/config", &text).0, 200);
        let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
        (list["backends"][0]["ejected"] == true).then_some(())
    });
}

#[test]
fn a_backend_with_more_errors_than_its_siblings_is_ejected() {
    let bad = Backend::fixed("HTTP/1.1 503 Bad\r\nContent-Length: 1\r\n\r\na");
    let good = named("b");
    let list = [
        ("a", bad.address.port(), ""),
        ("b", good.address.port(), ""),
    ];
    let more = "routing: {r: {upstream: u}}\n\
                passive_health: {answers_min: 20, interval: 200ms, eject_for: 1h}";
    let proxy = Proxy::with(&config(&list, more));
    let mut client = proxy.client();
    eventually("the ejection", || {
        let bad = (0..200).filter(|_| client.get("/").status() == 503).count();
        (bad == 0).then_some(())
    });
    let line = proxy.wait_for_line("the backend is ejected");
    assert!(line.contains("answers were errors"), "{line}");
}

#[test]
fn requests_move_to_another_backend_only_where_that_is_safe() {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let closing = Backend::new(move |_, peer| {
        count.fetch_add(1, Ordering::SeqCst);
        peer.close();
    });
    let good = named("good");
    let list = [
        ("closing", closing.address.port(), ", weight: 1000000"),
        ("good", good.address.port(), ", weight: 1"),
    ];
    let more = "routing: {r: {upstream: u, load_balancer: weight}}\npassive_health: {failures: 0}";
    let proxy = Proxy::with(&config(&list, more));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "good", "a GET may be sent again");
    assert_eq!(hits.load(Ordering::SeqCst), 1);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(
        client.response().status(),
        502,
        "a POST that was sent may not"
    );
    assert_eq!(hits.load(Ordering::SeqCst), 2);
    let gone = [("gone", unused_port(), ", weight: 1000000"), list[1]];
    let proxy = Proxy::with(&config(&gone, more));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(
        client.response().text(),
        "good",
        "a POST that was never sent may"
    );
}

#[test]
fn a_request_is_sent_again_within_its_upstream_also_after_a_reload() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let closing = Backend::new(move |request, peer| {
        if request.head.starts_with("GET / ") {
            wait.lock().unwrap().recv().unwrap();
        }
        peer.close();
    });
    let (good, other) = (named("good"), named("other"));
    let list = [
        ("closing", closing.address.port(), ", weight: 1000000"),
        ("good", good.address.port(), ", weight: 1"),
    ];
    let more = "routing: {r: {upstream: u, load_balancer: weight}}";
    let text = config(&list, more);
    let proxy = Proxy::with(&text);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request", || {
        (!closing.received().is_empty()).then_some(())
    });
    // It has the place that the request's upstream had.
    let first = format!(
        "backends: {{a: [{{id: other, host: 127.0.0.1, port: {}}}], ",
        other.address.port()
    );
    let text = text.replace("backends: {", &first);
    let text = text.replace("routing: {", "routing: {o: {path: /other, upstream: a}, ");
    std::fs::write(&proxy.config_path, text).unwrap();
    proxy.wait_for_line("configuration reloaded");
    eventually("the new table", || {
        (proxy.client().get("/other").text() == "other").then_some(())
    });
    go.send(()).unwrap();
    assert_eq!(client.response().text(), "good");
}

#[test]
fn retries_have_a_budget() {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let closing = Backend::new(move |_, peer| {
        count.fetch_add(1, Ordering::SeqCst);
        peer.close();
    });
    let port = closing.address.port();
    let more = "routing: {r: {upstream: u}}\npassive_health: {failures: 0}\nretries: {attempts: 1, budget_percent: 20}";
    let proxy = Proxy::with(&config(&[("a", port, ""), ("b", port, "")], more));
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").status(), 502);
    }
    let retries = hits.load(Ordering::SeqCst) - 200;
    assert!(
        (40..=52).contains(&retries),
        "{retries} retries of 200 requests"
    );
}

#[test]
fn a_request_is_sent_again_where_its_first_backend_reset_the_connection() {
    let resetting = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = resetting.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in resetting.incoming().map_while(Result::ok) {
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let good = named("good");
    let list = [
        ("resetting", port, ", weight: 1000000"),
        ("good", good.address.port(), ", weight: 1"),
    ];
    let more = "routing: {r: {upstream: u, load_balancer: weight}}\npassive_health: {failures: 0}\n\
                retries: {attempts: 1, budget_percent: 100}";
    let proxy = Proxy::with(&config(&list, more));
    let mut client = proxy.client();
    // The reset comes before the request is written or after, as it happens.
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "good");
    }
}

#[test]
fn a_backends_keep_alive_bounds_how_long_its_connection_is_used() {
    let backend = Backend::new(|request, peer| {
        let seconds = request.head.split([' ', '/']).nth(2).unwrap();
        peer.send(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout={seconds}, max=9\r\n\r\n")
                .as_bytes(),
        );
    });
    let proxy = Proxy::before(&backend, "timeouts: {upstream_idle: 1h}");
    let mut client = proxy.client();
    // One second is less than what the next request may need to get there.
    for path in ["/60", "/1", "/60", "/0", "/60"] {
        let response = client.get(path);
        assert_eq!(
            (response.status(), response.field("keep-alive")),
            (200, None)
        );
    }
    let used: Vec<usize> = backend
        .received()
        .iter()
        .map(|one| one.connection)
        .collect();
    assert_eq!(used, [0, 0, 1, 1, 2]);
}

#[test]
fn pooling_is_switched_off_for_one_upstream() {
    let backend = Backend::echo();
    let port = backend.address.port();
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0}}\nupstreams: {{once: {{idle_timeout: 0s}}}}\n\
         backends: {{once: [{{id: b, host: 127.0.0.1, port: {port}}}], more: [{{id: b, host: 127.0.0.1, port: {port}}}]}}\n\
         routing: {{o: {{path: /once, upstream: once}}, m: {{path: /more, upstream: more}}}}\n"
    ));
    let mut client = proxy.client();
    for path in ["/once", "/more", "/once", "/more", "/once"] {
        assert_eq!(client.get(path).status(), 200);
    }
    let received = backend.received();
    let used: Vec<usize> = received.iter().map(|one| one.connection).collect();
    assert_eq!(used, [0, 1, 2, 1, 3]);
    let said = received[0].field("connection");
    assert_eq!(
        (said.as_deref(), received[1].field("connection")),
        (Some("close"), None)
    );
}

/// Answers the first request of a connection, and ends it by `end` once it has read
/// a second one.
fn ending_after_the_first(end: fn(&Peer)) -> Backend {
    let served = Mutex::new(std::collections::HashSet::new());
    Backend::new(move |request, peer| {
        if served.lock().unwrap().insert(request.connection) {
            let body = format!("{} {}", request.body.len(), request.connection);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            peer.send((head + &body).as_bytes());
        } else {
            end(peer);
        }
    })
}

fn closing_after_the_first() -> Backend {
    ending_after_the_first(Peer::close)
}

/// A kernel without the connection answers the same to a request that nobody read,
/// and nothing tells both apart.
#[test]
fn what_met_a_reset_is_sent_again_only_where_it_is_idempotent() {
    let backend = ending_after_the_first(Peer::reset);
    let proxy = Proxy::before(&backend, "passive_health: {failures: 0}");
    for (method, status, times) in [("GET", 200, 2), ("PUT", 200, 2), ("POST", 502, 1)] {
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 200);
        let before = backend.received().len();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
        ));
        assert_eq!(client.response().status(), status, "{method}");
        assert_eq!(backend.received().len(), before + times, "{method}");
    }
}

#[test]
fn what_was_read_and_not_answered_is_sent_again_only_where_it_is_idempotent() {
    let backend = closing_after_the_first();
    let proxy = Proxy::before(&backend, "passive_health: {failures: 0}");
    let put = |bytes: usize| {
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 200);
        let head = format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
        client.send(head + &"x".repeat(bytes));
        let response = client.response();
        (response.status(), response.text())
    };
    let (status, text) = put(1000);
    assert_eq!((status, text.as_str()), (200, "1000 1"));
    let (status, text) = put(30_000);
    assert!(status == 200 && text.starts_with("30000 "), "{text}");
    assert_eq!(put(100_000).0, 502, "more than is kept");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let before = backend.received().len();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.response().status(), 502);
    assert_eq!(backend.received().len(), before + 1);
}

#[test]
fn a_body_in_pieces_is_sent_again_from_its_beginning() {
    let backend = closing_after_the_first();
    let proxy = Proxy::before(&backend, "passive_health: {failures: 0}");
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["3\r\nabc\r\n", "2\r\nde\r\n", "0\r\n\r\n"] {
        client.send(piece);
    }
    assert_eq!(client.response().text(), "5 1");
    assert_eq!(backend.received()[2].body, b"abcde");
}
