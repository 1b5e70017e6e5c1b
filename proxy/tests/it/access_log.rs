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
