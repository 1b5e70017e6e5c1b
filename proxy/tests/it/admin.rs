//! The admin API.

use super::support::{Backend, Client, Proxy, TOKEN, eventually};

fn named(name: &'static str) -> Backend {
    Backend::new(move |_, peer| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
            name.len()
        );
        peer.send(head.as_bytes());
    })
}

fn config(backends: &[(&str, &Backend)], more: &str) -> String {
    let list: Vec<String> = backends
        .iter()
        .map(|(id, one)| {
            format!(
                "{{id: {id}, host: 127.0.0.1, port: {}}}",
                one.address.port()
            )
        })
        .collect();
    format!(
        "server: {{host: 127.0.0.1, port: 0}}\nadmin: {{enabled: true, port: 0, token: 0123456789abcdef-test}}\n\
         backends: {{u: [{}]}}\nrouting: {{r: {{upstream: u}}}}\n{more}\n",
        list.join(", ")
    )
}

fn texts(proxy: &Proxy) -> Vec<String> {
    let mut client = proxy.client();
    let mut texts: Vec<String> = (0..20).map(|_| client.get("/").text()).collect();
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn backends_can_be_added_changed_drained_and_removed() {
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    assert_eq!(texts(&proxy), ["a"]);
    let port = b.address.port();
    let add = format!(
        r#"{{"upstream": "u", "backend": {{"id": "b", "host": "127.0.0.1", "port": {port}}}}}"#
    );
    assert_eq!(proxy.admin("POST", "/api/v1/backends/add", &add).0, 200);
    assert_eq!(proxy.admin("POST", "/api/v1/backends/add", &add).0, 409);
    eventually("both backends", || {
        (texts(&proxy) == ["a", "b"]).then_some(())
    });
    let which = r#"{"upstream": "u", "backend_id": "a"}"#;
    let (status, reply) = proxy.admin("POST", "/api/v1/backends/disconnect", which);
    assert_eq!(
        (status, &reply["status"]),
        (200, &serde_json::json!("draining"))
    );
    assert_eq!(texts(&proxy), ["b"]);
    let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
    assert_eq!(list["backends"][0]["disconnected"], true);
    assert_eq!(list["backends"][1]["healthy"], true);
    assert_eq!(
        proxy.admin("POST", "/api/v1/backends/reconnect", which).0,
        200
    );
    assert_eq!(texts(&proxy), ["a", "b"]);
    let off = add.replace("\"id\"", "\"active\": false, \"id\"");
    assert_eq!(proxy.admin("PUT", "/api/v1/backends/update", &off).0, 200);
    eventually("the one that is left", || {
        (texts(&proxy) == ["a"]).then_some(())
    });
    assert_eq!(
        proxy
            .admin(
                "DELETE",
                "/api/v1/backends/remove?upstream=u&backend_id=b",
                ""
            )
            .0,
        200
    );
    let (_, list) = proxy.admin("GET", "/api/v1/backends", "");
    assert_eq!(list["upstreams"]["u"].as_array().unwrap().len(), 1);
    assert_eq!(
        proxy.admin("DELETE", "/api/v1/backends/remove", which).0,
        200
    );
    eventually("no backend", || {
        (proxy.client().get("/").status() == 503).then_some(())
    });
}

#[test]
fn nothing_is_written_without_the_token_or_for_another_site() {
    let a = named("a");
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    let ask = |head: &str, body: &str| {
        let mut client = Client::connect(proxy.admin.unwrap());
        client.send(format!(
            "{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.response().status()
    };
    let path = "POST /api/v1/backends/disconnect HTTP/1.1";
    let body = r#"{"upstream": "u", "backend_id": "a"}"#;
    let json = "Content-Type: application/json";
    let bearer = "Authorization: Bearer 0123456789abcdef-test";
    assert_eq!(
        ask(&format!("{path}\r\nHost: localhost\r\n{json}"), body),
        401
    );
    assert_eq!(
        ask(
            &format!("{path}\r\nHost: localhost\r\n{json}\r\n{bearer}x"),
            body
        ),
        401
    );
    assert_eq!(
        ask(&format!("{path}\r\nHost: localhost\r\n{bearer}"), body),
        415
    );
    assert_eq!(
        ask(
            &format!("{path}\r\nHost: evil.example\r\n{json}\r\n{bearer}"),
            body
        ),
        403
    );
    assert_eq!(texts(&proxy), ["a"], "none of them had an effect");
    assert_eq!(
        ask("GET /api/v1/backends HTTP/1.1\r\nHost: 127.0.0.1", ""),
        200
    );
    assert_eq!(
        ask(
            &format!("{path}\r\nHost: localhost\r\n{json}\r\n{bearer}"),
            body
        ),
        200
    );
    assert_eq!(ask("GET /nowhere HTTP/1.1\r\nHost: localhost", ""), 404);
    let wrong = format!("GET /api/v1/report HTTP/1.1\r\nHost: localhost\r\n{bearer}");
    assert_eq!(ask(&wrong, ""), 405);
}

#[test]
fn changes_at_the_same_time_are_all_made() {
    let a = named("a");
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    let mut clients: Vec<Client> = (0..8)
        .map(|id| {
            // A name, so that each has to wait for the resolver.
            let body = format!(
                r#"{{"upstream": "u", "backend": {{"id": "{id}", "host": "localhost", "port": 1}}}}"#
            );
            let mut client = Client::connect(proxy.admin.unwrap());
            client.send(format!(
                "POST /api/v1/backends/add HTTP/1.1\r\nHost: localhost\r\n\
                 Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    let (_, all) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
    assert_eq!(all["backends"].as_array().unwrap().len(), 9, "{all}");
}

#[test]
fn the_configuration_is_shown_without_secrets_and_replaced_whole_or_not_at_all() {
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    let (_, mut shown) = proxy.admin("GET", "/api/v1/config", "");
    assert_eq!(shown["admin"]["token"], "[redacted]");
    assert_eq!(shown["timeouts"]["connect"], "5s");
    let mut wrong = shown.clone();
    wrong["routing"]["r"]["upstream"] = "nope".into();
    let (status, reply) = proxy.admin("PUT", "/api/v1/config", &wrong.to_string());
    assert_eq!(status, 422);
    assert!(
        reply["detail"]
            .as_str()
            .unwrap()
            .contains("upstream \"nope\" is not defined"),
        "{reply}"
    );
    wrong["routnig"] = 1.into();
    let (status, reply) = proxy.admin("PUT", "/api/v1/config", &wrong.to_string());
    assert_eq!(status, 422);
    assert!(
        reply["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean \"routing\""),
        "{reply}"
    );
    assert_eq!(texts(&proxy), ["a"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut moved = shown.clone();
    moved["admin"]["port"] = taken.local_addr().unwrap().port().into();
    assert_eq!(
        proxy.admin("PUT", "/api/v1/config", &moved.to_string()).0,
        409
    );
    shown["backends"]["u"][0]["port"] = b.address.port().into();
    assert_eq!(
        proxy.admin("PUT", "/api/v1/config", &shown.to_string()).0,
        200
    );
    eventually("the new backend", || (texts(&proxy) == ["b"]).then_some(()));
    assert_eq!(
        proxy.admin("GET", "/api/v1/config", "").1["admin"]["token"],
        "[redacted]"
    );
}

#[test]
fn what_is_to_last_is_written_to_the_file_in_one_step() {
    use std::os::unix::fs::PermissionsExt as _;
    let (a, b) = (named("a"), named("b"));
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    let file = || std::fs::read_to_string(&proxy.config_path).unwrap();
    let before = file();
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&proxy.config_path, mode).unwrap();
    // As it was sent, comments too.
    let text = format!("# by hand\n{}", config(&[("b", &b)], ""));
    let put = |path: &str, text: &str| proxy.admin("PUT", path, text);
    assert_eq!(put("/api/v1/config?persist=maybe", &text).0, 400);
    let (status, reply) = put("/api/v1/config", &text);
    assert_eq!((status, &reply["persisted"]), (200, &false.into()));
    assert_eq!(file(), before);
    let (status, reply) = put("/api/v1/config?persist=true", &text);
    assert_eq!((status, &reply["persisted"]), (200, &true.into()));
    assert_eq!(file(), text);
    // What the API shows holds no secret, but the file must.
    let (_, shown) = proxy.admin("GET", "/api/v1/config", "");
    let kept = proxy::config::Config::parse(&text).unwrap().raw;
    let (status, _) = put("/api/v1/config?persist=true", &shown.to_string());
    assert_eq!(status, 200);
    assert_eq!(proxy::config::Config::parse(&file()).unwrap().raw, kept);
    let remove = r#"{"upstream": "u", "backend_id": "b"}"#;
    let (status, _) = proxy.admin("DELETE", "/api/v1/backends/remove?persist=true", remove);
    assert_eq!(status, 200);
    let left = proxy::config::Config::parse(&file()).unwrap().raw;
    assert_eq!(left.backends["u"], []);
    let metadata = std::fs::metadata(&proxy.config_path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    // Where it cannot be written, nothing changes.
    let beside = proxy.config_path.with_extension("yaml.new");
    std::fs::create_dir(&beside).unwrap();
    let kept = file();
    let (status, reply) = put("/api/v1/config?persist=true", &text);
    assert_eq!(status, 409, "{reply}");
    assert_eq!(file(), kept);
    let (_, shown) = proxy.admin("GET", "/api/v1/config", "");
    assert_eq!(shown["backends"]["u"], serde_json::json!([]));
    std::fs::remove_dir(&beside).unwrap();
    let directory = proxy.config_path.parent().unwrap();
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
}

#[test]
fn reported_load_moves_requests_until_it_expires() {
    let (a, b) = (named("a"), named("b"));
    let more = "collector: {report_expiry: 400ms}";
    let text = config(&[("a", &a), ("b", &b)], more).replace(
        "upstream: u}",
        "upstream: u, load_balancer: performance_least_connections_weight}",
    );
    let proxy = Proxy::with(&text);
    let report = |id: &str, cpu: u32| {
        let body = format!(
            r#"{{"upstream": "u", "backend_id": "{id}", "performance": {{"cpu_usage": {cpu}, "memory_usage": 10, "load_avg_1": 0.1, "disk_usage": 3}}}}"#
        );
        proxy.admin("POST", "/api/v1/report", &body).0
    };
    assert_eq!((report("a", 90), report("b", 10)), (202, 202));
    assert_eq!(texts(&proxy), ["b"]);
    eventually("the expiry of the reports", || {
        (texts(&proxy) == ["a", "b"]).then_some(())
    });
    assert_eq!(report("c", 1), 404);
    let bad = r#"{"upstream": "u", "backend_id": "a", "performance": {"cpu_usage": -1, "memory_usage": 0, "load_avg_1": 0}}"#;
    assert_eq!(proxy.admin("POST", "/api/v1/report", bad).0, 422);
}

#[test]
fn statistics_come_from_the_collector_or_not_at_all() {
    let a = named("a");
    let proxy = Proxy::with(&config(&[("a", &a)], ""));
    let (status, reply) = proxy.admin("GET", "/api/v1/stats/server", "");
    assert_eq!(status, 503);
    assert!(
        reply["detail"]
            .as_str()
            .unwrap()
            .contains("collector.host_id"),
        "{reply}"
    );
    let collector = Backend::new(|request, peer| {
        let known = request.head.starts_with("GET /api/v1/hosts/host-1/stats ");
        let body = r#"{"stats": {"cpu_usage": 0.12, "timestamp": 1762275204}}"#;
        let status = if known { "200 OK" } else { "404 Not Found" };
        peer.send(
            format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    });
    let more = format!(
        "collector: {{url: \"http://{}\", host_id: host-1}}",
        collector.address
    );
    let text = config(&[("a", &a)], &more).replace("id: a,", "id: a, host_id: other,");
    let proxy = Proxy::with(&text);
    let (status, reply) = proxy.admin("GET", "/api/v1/stats/server", "");
    assert_eq!(
        (status, &reply["stats"]["cpu_usage"]),
        (200, &serde_json::json!(0.12))
    );
    assert!(reply["age_seconds"].as_u64().unwrap() > 1000, "{reply}");
    let path = "/api/v1/stats/backend?upstream=u&backend_id=a";
    assert_eq!(proxy.admin("GET", path, "").0, 404);
    assert_eq!(
        proxy.admin("GET", "/api/v1/stats/backend?upstream=u", "").0,
        400
    );
}

#[test]
fn the_collectors_view_of_a_host_moves_requests() {
    let (a, b) = (named("a"), named("b"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let collector = Backend::new(move |request, peer| {
        let cpu = if request.head.contains("/hosts/busy/stats") {
            95
        } else {
            5
        };
        let body = format!(
            r#"{{"stats": {{"cpu_usage": {cpu}, "memory_usage": 5, "load_avg_1": 0.1, "timestamp": {now}}}}}"#
        );
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        peer.send((head + &body).as_bytes());
    });
    let more = format!(
        "collector: {{url: \"http://{}\", report_expiry: 1h}}",
        collector.address
    );
    let text = config(&[("a", &a), ("b", &b)], &more)
        .replace("id: a,", "id: a, host_id: busy,")
        .replace("id: b,", "id: b, host_id: calm,")
        .replace(
            "upstream: u}",
            "upstream: u, load_balancer: performance_least_connections_weight}",
        );
    let proxy = Proxy::with(&text);
    eventually("requests to the calm one alone", || {
        (texts(&proxy) == ["b"]).then_some(())
    });
    let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
    assert!(
        list["backends"][0]["utilisation"].as_f64().unwrap() > 0.3,
        "{list}"
    );
}

/// What it would cost to read is not spent on strangers.
#[test]
fn the_token_is_asked_for_before_the_body_is_read() {
    let proxy = Proxy::with(&config(&[("a", &named("a"))], ""));
    let mut client = Client::connect(proxy.admin.unwrap());
    client.send(
        "PUT /api/v1/config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.response().status(), 401);
    assert!(client.ends());
}

/// Who sends all of a body before it looks at the answer.
#[test]
fn a_refusal_reaches_who_sends_its_body_all_the_same() {
    let proxy = Proxy::with(&config(&[("a", &named("a"))], ""));
    for (token, bytes, status) in [("wrong", 200 << 10, 401), (TOKEN, (1 << 20) + 1, 413)] {
        let mut client = Client::connect(proxy.admin.unwrap());
        client.send(format!(
            "PUT /api/v1/config HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
        ));
        assert_eq!(client.response().status(), status);
        assert!(client.ends());
        // It has not looked yet: a reset would fail what it sends.
        for piece in vec![b' '; bytes].chunks(4096) {
            client.send(piece);
        }
    }
}

/// What is not HTTP, or too much of it, gets an answer and the end.
#[test]
fn malformed_and_oversized_requests_are_refused() {
    let proxy = Proxy::with(&config(&[("a", &named("a"))], ""));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json");
    let put = format!("PUT /api/v1/config HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n");
    let get = "GET /api/v1/config HTTP/1.1\r\nHost: localhost\r\n";
    let filler = "x".repeat(17 << 10);
    for (request, status) in [
        (format!("{put}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        (format!("{put}Transfer-Encoding: gzip\r\n\r\n"), 400),
        (format!("{put}Content-Length: 1, 2\r\n\r\n"), 400),
        (format!("{get}Host: localhost\r\n\r\n"), 400),
        (format!("{get}A : b\r\n\r\n"), 400),
        (format!("{get}A: {filler}\r\n\r\n"), 431),
        (format!("{get}{}\r\n", "A: b\r\n".repeat(101)), 431),
    ] {
        let mut client = Client::connect(proxy.admin.unwrap());
        client.send(&request);
        let head = client.response().head;
        let line = request.lines().last().unwrap_or_default();
        let wanted = format!("HTTP/1.1 {status} ");
        assert!(
            head.starts_with(&wanted),
            "{head}\n{}",
            &line[..line.len().min(80)]
        );
        assert!(client.ends());
    }
    assert_eq!(proxy.admin("GET", "/api/v1/config", "").0, 200);
}
