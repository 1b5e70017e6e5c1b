//! Changing the configuration while connections are open.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::support::{Backend, Client, Proxy, TOKEN, address_after, eventually, unused_port};

fn text(backend: &Backend, more: &str) -> String {
    format!(
        "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\n{more}\n",
        backend.address.port()
    )
}

const A: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
const B: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb";

#[test]
fn a_changed_file_is_used_without_a_signal_and_without_dropping_a_connection() {
    let (a, b) = (Backend::fixed(A), Backend::fixed(B));
    let proxy = Proxy::with(&text(&a, ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "a");
    std::fs::write(&proxy.config_path, text(&b, "")).unwrap();
    eventually("the new backend", || {
        (client.get("/").text() == "b").then_some(())
    });
}

#[test]
fn sighup_reads_the_file_and_a_bad_file_changes_nothing() {
    let a = Backend::fixed(A);
    let proxy = Proxy::with(&text(&a, ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "a");
    std::fs::write(&proxy.config_path, "server: {hots: 1}").unwrap();
    proxy.signal("HUP");
    let line = proxy.wait_for_line("cannot reload the configuration, keeping the previous one");
    assert!(line.contains("did you mean \"host\"?"), "{line}");
    assert_eq!(client.get("/").text(), "a");
    std::fs::write(&proxy.config_path, text(&a, "limits: {body_bytes: 1}")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_line("configuration reloaded");
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxx");
    assert_eq!(client.response().status(), 413);
}

#[test]
fn requests_in_flight_end_where_they_began() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let a = Backend::new(move |_, peer| {
        wait.lock().unwrap().recv().unwrap();
        peer.send(A.as_bytes());
    });
    let b = Backend::fixed(B);
    let proxy = Proxy::with(&text(&a, ""));
    let mut waiting = proxy.client();
    waiting.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request", || (a.received().len() == 1).then_some(()));
    std::fs::write(&proxy.config_path, text(&b, "")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_line("configuration reloaded");
    assert_eq!(proxy.client().get("/").text(), "b");
    go.send(()).unwrap();
    assert_eq!(waiting.response().text(), "a");
    assert_eq!(waiting.get("/").text(), "b");
}

#[test]
fn the_listener_moves_without_dropping_a_connection() {
    let a = Backend::fixed(A);
    let proxy = Proxy::with_arguments(&text(&a, ""), &["--workers", "2"]);
    let mut open = proxy.client();
    assert_eq!(open.get("/").text(), "a");
    // What cannot be listened on changes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let moved_to = |port: u16| text(&a, "").replace("port: 0", &format!("port: {port}"));
    let port = taken.local_addr().unwrap().port();
    std::fs::write(&proxy.config_path, moved_to(port)).unwrap();
    let line = proxy.wait_for_line("cannot reload the configuration, keeping the previous one");
    assert!(line.contains("cannot listen on"), "{line}");
    assert_eq!(proxy.client().get("/").text(), "a");
    // Clients that connect all the while always get an answer, at the one
    // address or at the other.
    let port = unused_port();
    let new = SocketAddr::from(([127, 0, 0, 1], port));
    std::fs::write(&proxy.config_path, moved_to(port)).unwrap();
    let line = proxy.wait_for_line("listening at a new address");
    assert_eq!(address_after(&line, "listen="), Some(new));
    let mut refused = 0;
    eventually("the end of the old listeners", || {
        assert_eq!(Client::connect(new).get("/").text(), "a");
        refused += usize::from(TcpStream::connect(proxy.address).is_err());
        (refused > 3).then_some(())
    });
    assert_eq!(open.get("/").text(), "a");
}

#[test]
fn a_stop_after_a_move_ends_in_order() {
    let a = Backend::fixed(A);
    let mut proxy = Proxy::with(&text(&a, ""));
    let port = unused_port();
    let moved = text(&a, "").replace("port: 0", &format!("port: {port}"));
    std::fs::write(&proxy.config_path, moved).unwrap();
    proxy.wait_for_line("listening at a new address");
    let mut open = Client::connect(([127, 0, 0, 1], port).into());
    assert_eq!(open.get("/").text(), "a");
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    assert!(open.ends());
}

/// The status of a GET of the configuration with this token, if there is an
/// answer.
fn read_config(admin: SocketAddr, token: Option<&str>) -> Option<u16> {
    let mut client = Client::new(TcpStream::connect(admin).ok()?);
    let shown = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    client.send(format!(
        "GET /api/v1/config HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n"
    ));
    client.try_head()?.split(' ').nth(1)?.parse().ok()
}

#[test]
fn the_admin_api_moves_closes_and_opens() {
    let a = Backend::fixed(A);
    let admin = |more: &str| text(&a, &format!("admin: {{{more}}}"));
    let proxy = Proxy::with(&admin("enabled: true, port: 0"));
    let old = proxy.admin.unwrap();
    let mut open = Client::connect(old);
    let ask = "GET /api/v1/config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    open.send(ask);
    assert_eq!(open.response().status(), 200);
    let mut client = proxy.client();
    assert_eq!(client.get("/").text(), "a");
    // To an address that others can reach, where reading needs the token.
    let port = unused_port();
    let wide = format!("enabled: true, host: 0.0.0.0, port: {port}");
    std::fs::write(&proxy.config_path, admin(&wide)).unwrap();
    let line = proxy.wait_for_line("admin API listening at a new address");
    let new = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(
        address_after(&line, "admin="),
        Some(([0, 0, 0, 0], port).into())
    );
    assert_eq!(read_config(new, None), Some(401));
    assert_eq!(read_config(new, Some(TOKEN)), Some(200));
    // The old one answers nobody any more, not even who was there before.
    eventually("the end of the old listener", || {
        TcpStream::connect(old).is_err().then_some(())
    });
    open.send(ask);
    assert!(open.ends());
    std::fs::write(&proxy.config_path, admin("enabled: false")).unwrap();
    proxy.wait_for_line("admin API closed");
    eventually("the end of the API", || {
        TcpStream::connect(new).is_err().then_some(())
    });
    std::fs::write(&proxy.config_path, admin("enabled: true, port: 0")).unwrap();
    let line = proxy.wait_for_line("admin API listening at a new address");
    let again = address_after(&line, "admin=").unwrap();
    assert_eq!(read_config(again, None), Some(200));
    assert_eq!(client.get("/").text(), "a");
}

#[test]
fn who_moves_the_admin_api_through_itself_is_answered_and_its_token_is_read_anew() {
    let a = Backend::fixed(A);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let arguments = ["--workers", "1", "--token-file", file.to_str().unwrap()];
    let config = text(&a, "admin: {enabled: true, port: 0}");
    let proxy = Proxy::with_arguments(&config, &arguments);
    let (_, mut shown) = proxy.admin("GET", "/api/v1/config", "");
    let port = unused_port();
    shown["admin"]["port"] = port.into();
    shown["admin"]["host"] = "0.0.0.0".into();
    // Without a token nobody gets in, so then it stays where it is.
    std::fs::write(&file, "").unwrap();
    let moved = shown.to_string();
    assert_eq!(proxy.admin("PUT", "/api/v1/config", &moved).0, 422);
    std::fs::write(&file, "another-0123456789").unwrap();
    assert_eq!(proxy.admin("PUT", "/api/v1/config", &moved).0, 200);
    let new = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(read_config(new, Some(TOKEN)), Some(401));
    assert_eq!(read_config(new, Some("another-0123456789")), Some(200));
}

#[test]
fn a_new_token_in_the_admin_apis_file_is_used_and_the_old_one_is_not() {
    let a = Backend::fixed(A);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let arguments = ["--workers", "1", "--token-file", file.to_str().unwrap()];
    let config = text(&a, "admin: {enabled: true, port: 0, host: 0.0.0.0}");
    let proxy = Proxy::with_arguments(&config, &arguments);
    let at = SocketAddr::from(([127, 0, 0, 1], proxy.admin.unwrap().port()));
    assert_eq!(read_config(at, Some(TOKEN)), Some(200));
    // One that cannot be used takes nothing away.
    std::fs::write(&file, "short").unwrap();
    proxy.wait_for_line("keeping the admin API's previous token");
    assert_eq!(read_config(at, Some(TOKEN)), Some(200));
    std::fs::write(&file, "another-0123456789").unwrap();
    eventually("the new token", || {
        (read_config(at, Some("another-0123456789")) == Some(200)).then_some(())
    });
    assert_eq!(read_config(at, Some(TOKEN)), Some(401));
}

#[test]
fn a_collectors_new_token_is_used_and_an_unreadable_one_holds_nothing_up() {
    let collector = Backend::new(|request, peer| {
        let (status, body) = match request.field("authorization").as_deref() {
            Some("Bearer reads-second") => ("200 OK", r#"{"stats": {"cpu_usage": 7}}"#),
            _ => ("401 Unauthorized", "{}"),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        peer.send((head + "\r\n" + body).as_bytes());
    });
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "reads-1").unwrap();
    let more = format!(
        "admin: {{enabled: true, port: 0}}\n\
         collector: {{url: \"http://{}\", host_id: h, token_file: {}}}",
        collector.address,
        token.display()
    );
    let (a, b) = (Backend::fixed(A), Backend::fixed(B));
    let proxy = Proxy::with(&text(&a, &more));
    let asked = || proxy.admin("GET", "/api/v1/stats/server", "").0;
    assert_eq!(asked(), 502);
    std::fs::write(&token, "reads-second").unwrap();
    eventually("the new token", || (asked() == 200).then_some(()));
    std::fs::remove_file(&token).unwrap();
    proxy.wait_for_line("keeping the previous access to the collector");
    std::fs::write(&proxy.config_path, text(&b, &more)).unwrap();
    proxy.wait_for_line("configuration reloaded");
    assert_eq!(proxy.client().get("/").text(), "b");
    assert_eq!(asked(), 200);
}

#[test]
fn the_admin_api_and_the_traffic_never_share_an_address() {
    let a = Backend::fixed(A);
    let admin = |port: u16| text(&a, &format!("admin: {{enabled: true, port: {port}}}"));
    let proxy = Proxy::with(&admin(0));
    let refused = || {
        let line = proxy.wait_for_line("cannot reload the configuration, keeping the previous one");
        assert!(
            line.contains("admin.port") && line.contains("server.port"),
            "{line}"
        );
        for _ in 0..20 {
            assert_eq!(proxy.client().get("/").text(), "a");
            assert_eq!(read_config(proxy.admin.unwrap(), None), Some(200));
        }
    };
    // Each to the port that the kernel chose for the other.
    std::fs::write(&proxy.config_path, admin(proxy.address.port())).unwrap();
    refused();
    let port = proxy.admin.unwrap().port();
    let moved = admin(0).replacen("port: 0", &format!("port: {port}"), 1);
    std::fs::write(&proxy.config_path, moved).unwrap();
    refused();
}
