//! Changing the configuration while connections are open.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::support::{Backend, Client, Proxy, address_after, eventually, unused_port};

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
    let line = proxy.wait_for_line("the configuration stays as it was");
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
    let line = proxy.wait_for_line("the configuration stays as it was");
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
