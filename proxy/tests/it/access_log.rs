//! The access log.

use super::support::{Backend, Proxy, eventually};

#[test]
fn every_answer_is_one_line_and_none_is_written_by_default() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = format!(
        "access_log: {{enabled: true, file: {}, format: json}}",
        path.display()
    );
    let proxy = Proxy::before(&backend, &log);
    let mut client = proxy.client();
    assert_eq!(client.get("/a?b").status(), 200);
    client.send("nonsense\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    let lines = eventually("two lines", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(lines[0]["method"], "GET");
    assert_eq!(lines[0]["target"], "/a?b");
    assert_eq!(
        (&lines[0]["status"], &lines[0]["backend"]),
        (&200.into(), &"b".into())
    );
    assert_eq!(
        (&lines[1]["status"], &lines[1]["backend"]),
        (&400.into(), &serde_json::Value::Null)
    );
}

#[test]
fn the_real_client_is_named_beside_its_proxy() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let proxy = Proxy::with(&format!(
        "server: {{host: 127.0.0.1, port: 0, real_ip_header: X-Real-IP, trusted_proxies: [127.0.0.1/32]}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n\
         access_log: {{enabled: true, file: {}, format: json}}\n",
        backend.address.port(),
        path.display()
    ));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 192.0.2.7\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let line = eventually("a line", || {
        let text = std::fs::read_to_string(&path).ok()?;
        serde_json::from_str::<serde_json::Value>(text.lines().next()?).ok()
    });
    assert_eq!(
        (&line["client"], &line["peer"]),
        (&"192.0.2.7".into(), &"127.0.0.1".into())
    );
}
