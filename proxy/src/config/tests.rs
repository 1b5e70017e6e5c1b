use super::*;

/// Its keys are those of the proxy that this one takes the place of.
const ORIGINAL: &str = include_str!("example.yaml");

#[test]
fn the_originals_file_loads_with_every_meaning() {
    let config = Config::parse(ORIGINAL).unwrap();
    assert_eq!(config.listen, ("0.0.0.0".to_owned(), 8080));
    assert_eq!(config.connections_max, Some(10_000));
    assert_eq!(config.trusted_proxies.len(), 2);
    assert!(config.tls.is_none());
    let backend = &config.upstreams[0].backends[0];
    assert_eq!(
        (backend.id.as_str(), backend.port, backend.max_conn),
        ("backend1", 8081, 1000)
    );
    assert_eq!(
        backend.health_check.as_ref().unwrap().interval.0,
        Duration::from_secs(30)
    );
    assert_eq!(
        config.routes[0].protocols.websocket,
        Some(Algorithm::IpHash)
    );
    assert_eq!(config.admin, Some(("127.0.0.1".to_owned(), 9091)));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
    let error = Config::parse("server:\n  host: a\n  prot: 1\n")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "line 3, column 3: server: unknown key \"prot\", did you mean \"port\"?; allowed here: \
         host, ignore_client_abort, max_conn, port, read_timeout, real_ip_header, \
         trusted_proxies, write_timeout"
    );
    for (text, told) in [
        (
            "backend: {}",
            "line 1, column 1: unknown key \"backend\", did you mean \"backends\"?; allowed here: \
             access_log, ",
        ),
        (
            "backends: {a: []}\nrouting:\n  r:\n    upstream: a\n    load_balancer: ip-hash",
            "line 5, column 20: routing.r.load_balancer: \"ip-hash\", did you mean \"ip_hash\"?: \
             write ip_hash, least_connections, ",
        ),
        (
            "backends: {a: []}\nrouting: {r: {upstream: a, load_balancer: round_robin}}",
            "routing.r.load_balancer: \"round_robin\": write ip_hash, ",
        ),
        (
            "timeouts: {prot: 1s}",
            "timeouts: unknown key \"prot\"; allowed here: body_stall, ",
        ),
        (
            "port: 80",
            "unknown key \"port\"; there is admin.port, server.port; allowed here: ",
        ),
        (
            "backends: {u: [{id: a, port: 1}]}",
            "backends.u[0]: \"host\" is missing: write a text",
        ),
        (
            "backends: {u: {id: a}}",
            "backends.u: is a table of keys: write a list of tables",
        ),
        (
            "backends: []",
            "backends: is a list: write names, each with its own keys",
        ),
        (
            "server: [1]",
            "line 1, column 9: server: is a list: write keys: host, ",
        ),
        ("server: 5", "server: is a text: write keys: host, "),
        (
            "server: {port: 65536}",
            "server.port: \"65536\": write a whole number from 0 to 65535",
        ),
        (
            "server: {port: x}",
            "server.port: \"x\": write a whole number from 0 to 65535",
        ),
        (
            "server: {port: }",
            "server.port: is empty: write a whole number from 0 to 65535",
        ),
        (
            "server: {host: {a: b}}",
            "server.host: is a table of keys: write a text",
        ),
        (
            "server: {host: a, host: b}",
            "line 1, column 19: \"host\" is already set in line 1: keep",
        ),
        (
            "admin: {port: 1}\ngrpc: {port: 2}",
            "grpc: is the older name of \"admin\", which is set",
        ),
        (
            "limits: {head_bytes: 5parsecs}",
            "limits.head_bytes: `5parsecs` is not a size",
        ),
        (
            "access_log: {format: jsno}",
            "\"jsno\", did you mean \"json\"?: write json or combined",
        ),
        (
            "retries: {attempts: -1}",
            "retries.attempts: \"-1\": write a whole number from 0 to",
        ),
        ("", "the file is empty"),
        ("# a comment", "the file is empty"),
        ("[a]", "is a list: write keys: access_log, "),
        ("a: 1\n---\nb: 2", "write one document alone"),
    ] {
        let error = Config::parse(text).unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
        for word in ["invalid type", "u16", "u32", "variant", "Policy"] {
            assert!(!error.contains(word), "{text}: {error}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let missing = dir.path().join("missing.yaml");
    for (path, told) in [
        (path("bytes.yaml", b"server: \xff"), "byte 9 is not UTF-8"),
        (
            path("huge.yaml", &vec![b'#'; (1 << 20) + 1]),
            "is larger than 1048576 bytes",
        ),
        (dir.path().to_owned(), "is not a regular file"),
        (missing, "No such file"),
        (
            path("a.yaml", b"server:\n  prot: 1"),
            "a.yaml:2:3: server: unknown key \"prot\"",
        ),
        (
            path("b.conf", b"timeouts:\n  connect: 0s"),
            "b.conf:2:3: timeouts.connect: a timeout",
        ),
    ] {
        let overrides = Overrides::default();
        let error = Origin { path, overrides }.load().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_flag_counts_more_than_the_environment_and_that_more_than_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.yaml");
    let text = "server: {host: 127.0.0.1, port: 1, max_conn: 5}\ngrpc: {token: a-secret}\n\
                backends: {u: [{id: a, host: h, port: 7}]}\n";
    std::fs::write(&path, text).unwrap();
    let variable = |name: &str, value: &str| (name.into(), value.into());
    let environment = vec![
        variable("SPEEDMIMI_PROXY_SERVER_PORT", "2"),
        variable("SPEEDMIMI_PROXY_SERVER_MAX_CONN", "6"),
        variable(
            "SPEEDMIMI_PROXY_SERVER_TRUSTED_PROXIES",
            "10.0.0.0/8, 127.0.0.1",
        ),
        variable("SPEEDMIMI_PROXY_DNS_INTERVAL", ""),
    ];
    let set = vec!["server.port=3".to_owned()];
    let mut origin = Origin {
        path: path.clone(),
        overrides: Overrides { environment, set },
    };
    let (config, settings) = origin.settings().unwrap();
    assert_eq!((config.listen.1, config.connections_max), (3, Some(6)));
    assert_eq!(config.trusted_proxies.len(), 2);
    let shown = settings::shown(&settings, false);
    assert!(!shown.contains("a-secret"), "{shown}");
    let file = path.display();
    for (key, value, source) in [
        ("server.port", "3", "flag".to_owned()),
        (
            "server.max_conn",
            "6",
            "env SPEEDMIMI_PROXY_SERVER_MAX_CONN".to_owned(),
        ),
        ("server.host", "127.0.0.1", format!("{file}:1:10")),
        ("admin.token", "(secret)", format!("{file}:2:8")),
        ("backends.u[0].port", "7", format!("{file}:3:33")),
        ("backends.u[0].weight", "100", "default".to_owned()),
        ("dns.interval", "30s", "default".to_owned()),
    ] {
        let line = shown
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")));
        let words: Vec<_> = line.unwrap().split_whitespace().skip(1).collect();
        assert_eq!(words.join(" "), format!("{value} {source}"));
    }
    for (set, told) in [
        (
            "server.prot=1",
            "--set: unknown key \"server.prot\", did you mean \"server.port\"?",
        ),
        ("server.port", "--set: \"server.port\": write KEY=VALUE"),
        (
            "server.port=x",
            "--set: server.port: \"x\": write a whole number",
        ),
        ("server.host=*", "flag: server.host: write \"0.0.0.0\""),
    ] {
        origin.overrides.set = vec![set.to_owned()];
        let error = origin.load().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    origin.overrides.set.clear();
    origin.overrides.environment = vec![variable("SPEEDMIMI_PROXY_ADMIN_PORT", "-1")];
    let error = origin.load().unwrap_err().to_string();
    assert!(
        error.starts_with("SPEEDMIMI_PROXY_ADMIN_PORT: \"-1\": write"),
        "{error}"
    );
}

#[test]
fn the_example_has_every_default() {
    let text = crate::cli::example();
    let config = Config::parse(&text).unwrap();
    let mut raw = config.raw.clone();
    assert_eq!(
        raw.backends.remove("default").map(|list| list.len()),
        Some(1)
    );
    assert!(raw.routing.remove("default").is_some());
    assert_eq!(raw, RawConfig::default(), "{text}");
}

#[test]
fn bad_values_say_what_to_write() {
    let error = |text: &str| Config::parse(text).unwrap_err().to_string();
    assert!(
        error("server: {read_timeout: 30}").contains("30s"),
        "{}",
        error("server: {read_timeout: 30}")
    );
    assert!(error("server: {trusted_proxies: [x]}").contains("10.0.0.0/8"));
    assert!(error("server: {host: \"*\"}").contains("0.0.0.0"));
    assert!(error("admin: {host: \"*\"}").contains(": admin.host: "));
    for host in ["*", "", "a b", "http://a", "a:1", ".a", "a..b", "[::1"] {
        let error = error(&format!(
            "backends: {{u: [{{id: a, host: \"{host}\", port: 1}}]}}"
        ));
        assert!(error.contains(": backends.u"), "{host}: {error}");
    }
    for host in ["a", "a.b-c.example.", "a_b", "::1", "[::1]", "127.1"] {
        let text = format!("backends: {{u: [{{id: a, host: \"{host}\", port: 1}}]}}");
        assert!(Config::parse(&text).is_ok(), "{host}");
    }
    assert!(error("routing: {r: {upstream: nope}}").contains("upstream \"nope\" is not defined"));
    assert!(error("upstreams: {v: {queue: 1}}").contains("upstream \"v\" is not defined"));
    let never = error("backends: {u: []}\nupstreams: {u: {queue: 1, queue_timeout: 0s}}");
    assert!(never.contains(": upstreams.u.queue_timeout: "), "{never}");
    assert!(error("timeouts: {connect: 0s}").contains("more than zero"));
    assert!(error("limits: {head_bytes: 1MiB}").contains("32KiB"));
    let connect = |rest: &str| {
        error(&format!(
            "backends: {{u: [{{id: a, host: h, port: 1, scheme: https}}]}}\nconnect: {{{rest}}}"
        ))
    };
    assert!(connect("h: {upstream: u}").contains("HOST:PORT"));
    assert!(connect("\"h:1\": {upstream: v}").contains("upstream \"v\" is not defined"));
    assert!(connect("\"h:1\": {upstream: u}").contains("scheme http"));
    let twice = "backends: {u: []}\nconnect: {\"h:1\": {upstream: u}, \"H:1\": {upstream: u}}";
    assert!(error(twice).contains("case-insensitive"));
    let twice = "backends: {u: [{id: a, host: h, port: 1}, {id: a, host: h, port: 2}]}";
    assert!(error(twice).contains("duplicate"));
    assert!(error("ssl: {enabled: true}").contains("PEM"));
    assert!(
        error("server: [").starts_with("line 1, column "),
        "{}",
        error("server: [")
    );
}

#[test]
fn a_health_check_asks_for_a_path_that_can_be_sent() {
    let parse = |path: &str| {
        let path = serde_json::to_string(path).unwrap();
        Config::parse(&format!(
            "backends:\n  u:\n    - id: a\n      host: h\n      port: 1\n      health_check:\n        path: {path}\n"
        ))
    };
    for path in ["/", "/health", "/a%20b?c=d&e", "//x", "/a:1/{b}"] {
        assert!(parse(path).is_ok(), "{path}");
    }
    let long = format!("/{}", "x".repeat(1 << 16));
    for path in [
        "",
        "health",
        "*",
        "http://h/",
        "/a b",
        "/\u{e9}",
        "/a\n",
        "/a<b>",
        "/`",
        "/a#b",
        &long,
    ] {
        let Err(error) = parse(path) else {
            panic!("{path}: taken");
        };
        let error = error.to_string();
        assert!(
            error.starts_with("line 7, column 9: backends.u[0].health_check.path: "),
            "{path}: {error}"
        );
        assert!(error.contains("write one that begins with /"), "{error}");
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn the_admin_api_has_an_address_of_its_own() {
    let parse = |server: &str, admin: &str| {
        Config::parse(&format!(
            "server: {{host: \"{server}\", port: 9091}}\nadmin: {{enabled: true, {admin}}}"
        ))
    };
    for (server, admin) in [
        ("127.0.0.1", "host: 127.0.0.1"),
        ("0.0.0.0", "host: 127.0.0.1"),
        ("127.0.0.1", "host: \"[::]\""),
        ("0.0.0.0", "host: localhost"),
        ("Localhost", "host: localhost"),
    ] {
        let error = parse(server, admin).unwrap_err().to_string();
        let named = error.contains("admin.port: ") && error.contains("server.port");
        assert!(named && error.contains("write another port"), "{error}");
    }
    for (server, admin) in [
        ("127.0.0.1", "host: 127.0.0.2"),
        ("0.0.0.0", "port: 9092"),
        ("0.0.0.0", "port: 0"),
    ] {
        assert!(parse(server, admin).is_ok(), "{server} {admin}");
    }
    let text = "server: {port: 9091}\nadmin: {enabled: false}";
    assert!(Config::parse(text).is_ok());
    let text = "server: {port: 0}\nadmin: {enabled: true, port: 0}";
    assert!(Config::parse(text).is_ok());
}

#[test]
fn active_defaults_to_true_and_the_longest_prefix_comes_first() {
    let text = "backends: {u: [{id: a, host: h, port: 1}]}\n\
                routing: {a: {path: /, upstream: u}, b: {path: /api, upstream: u}}\n\
                admin: {enabled: true}\n";
    let config = Config::parse(text).unwrap();
    assert!(config.upstreams[0].backends[0].active);
    assert_eq!(config.routes[0].prefix, "/api");
    let json = serde_json::to_string(&config.raw).unwrap();
    assert_eq!(Config::parse(&json).unwrap().raw, config.raw);
}
