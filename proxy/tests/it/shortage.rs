//! Who waits and who gives way where places or descriptors run out.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::support::{Backend, Client, Proxy, eventually};

/// A backend that answers `/slow` once it is told to.
fn slow() -> (Backend, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait: Mutex<Receiver<()>> = Mutex::new(wait);
    let backend = Backend::new(move |request, peer| {
        if request.head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    (backend, go)
}

fn config(backend: &Backend, server: &str, of_backend: &str, more: &str) -> String {
    format!(
        "server: {{host: 127.0.0.1, port: 0{server}}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {}{of_backend}}}]}}\n\
         routing: {{r: {{upstream: u}}}}\n{more}\n",
        backend.address.port()
    )
}

/// A client whose request has reached the backend.
fn asking(proxy: &Proxy, backend: &Backend) -> Client {
    let before = backend.received().len();
    let mut client = proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("the request", || {
        (backend.received().len() > before).then_some(())
    });
    client
}

#[test]
fn at_max_conn_an_idle_client_gives_way_to_a_new_one() {
    let (backend, go) = slow();
    let proxy = Proxy::with(&config(&backend, ", max_conn: 2", "", ""));
    let mut busy = asking(&proxy, &backend);
    let mut idle = proxy.client();
    assert_eq!(idle.get("/").status(), 200);
    let mut next = proxy.client();
    assert_eq!(next.get("/").status(), 200);
    assert!(idle.ends());
    go.send(()).unwrap();
    assert_eq!(busy.response().status(), 200);
}

#[test]
fn a_client_that_gives_way_with_a_request_on_its_way_gets_its_last_answer() {
    let (backend, _go) = slow();
    let text = config(&backend, ", max_conn: 1", "", "");
    let proxy = Proxy::with_arguments(&text, &["--workers", "1"]);
    let mut idle = proxy.client();
    assert_eq!(idle.get("/").status(), 200);
    proxy.signal("STOP");
    eventually("the stop of all threads", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
        let mut stats =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        stats.all(|stat| stat.contains(") T ")).then_some(())
    });
    // The new one is seen first, and the request of the other right behind it.
    let mut next = proxy.client();
    next.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    proxy.signal("CONT");
    let response = idle.response();
    assert_eq!(response.status(), 200);
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert!(idle.ends());
    assert_eq!(next.response().status(), 200);
}

#[test]
fn at_max_conn_the_idle_clients_of_all_workers_give_way() {
    let (backend, _go) = slow();
    let text = config(&backend, ", max_conn: 4", "", "");
    let proxy = Proxy::with_arguments(&text, &["--workers", "4"]);
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 200);
        clients.push(client);
    }
}

/// A proxy that may have `limit` open files.
fn limited(limit: u32, config: &str, workers: &str) -> Proxy {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
        .arg(super::support::BINARY);
    Proxy::by(command, config, &["--workers", workers])
}

#[test]
fn with_few_descriptors_idle_connections_give_way_to_new_clients() {
    let (backend, _go) = slow();
    for workers in ["1", "2"] {
        let proxy = limited(60, &config(&backend, "", "", ""), workers);
        let mut clients = Vec::new();
        for _ in 0..80 {
            let mut client = proxy.client();
            assert_eq!(client.get("/").status(), 200);
            clients.push(client);
        }
    }
}

#[test]
fn what_is_missing_here_is_no_fault_of_the_backends() {
    let (backend, go) = slow();
    let check = ", health_check: {path: /health, interval: 100ms, timeout: 5s, failures: 1}";
    let more = "admin: {enabled: true, port: 0}\npassive_health: {failures: 1, eject_for: 1h}";
    let proxy = limited(60, &config(&backend, "", check, more), "1");
    let mut clients: Vec<Client> = (0..80)
        .map(|_| {
            let mut client = proxy.client();
            client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
            client
        })
        .collect();
    proxy.wait_for_line("no file descriptor is free");
    // The admin API and the checks have descriptors of their own.
    let checks = || {
        let received = backend.received();
        let checks = received
            .iter()
            .filter(|one| one.head.starts_with("GET /health"));
        checks.count()
    };
    let before = checks();
    eventually("further checks", || (checks() > before + 1).then_some(()));
    let (status, table) = proxy.admin("GET", "/api/v1/backends", "");
    assert_eq!(status, 200);
    let text = table.to_string();
    assert!(
        text.contains("\"healthy\":true") && text.contains("\"ejected\":false"),
        "{text}"
    );
    for _ in 0..1000 {
        go.send(()).unwrap();
    }
    // Each is answered in its turn, or told that it is the proxy's fault.
    for client in &mut clients {
        let response = client.response();
        if response.status() != 200 {
            let told = response.field("proxy-status").unwrap();
            assert!(
                response.status() == 503 && told.contains("internal: "),
                "{told}"
            );
        }
    }
    assert_eq!(proxy.client().get("/").status(), 200);
}

#[test]
fn a_check_that_cannot_be_made_says_nothing_about_its_backend() {
    let (backend, _go) = slow();
    let check = ", health_check: {path: /health, interval: 50ms, timeout: 5s, failures: 1}";
    let proxy = Proxy::with(&config(&backend, "", check, ""));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current: Option<u64>| {
        let pid = i32::try_from(proxy.pid()).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current, maximum };
        let before = prlimit(pid, Resource::Nofile, limit).unwrap();
        assert_eq!(before.maximum, maximum);
    };
    // What is open stays open, and nothing further can be.
    limit(Some(1));
    let line = proxy.wait_for_line("the backend");
    assert!(line.contains("cannot run the health check"), "{line}");
    limit(maximum);
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn requests_wait_for_a_place_first_come_first_served() {
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, current) = (Arc::clone(&most), Arc::clone(&now));
    let backend = Backend::new(move |_, peer| {
        seen.fetch_max(current.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        current.fetch_sub(1, Ordering::SeqCst);
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let text = config(
        &backend,
        "",
        ", max_conn: 1",
        "upstreams: {u: {queue: 32, queue_timeout: 10s}}",
    );
    let proxy = Proxy::with_arguments(&text, &["--workers", "3"]);
    std::thread::scope(|scope| {
        for mut client in (0..32).map(|_| proxy.client()).collect::<Vec<_>>() {
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(client.get("/").status(), 200);
                }
            });
        }
    });
    assert_eq!(
        most.load(Ordering::SeqCst),
        1,
        "requests at the backend at once"
    );
    assert_eq!(backend.received().len(), 640);
}

#[test]
fn who_waits_goes_on_once_a_backend_may_be_used_again() {
    let (backend, go) = slow();
    let other = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let second = format!(
        ", max_conn: 1}}, {{id: c, host: 127.0.0.1, port: {}",
        other.address.port()
    );
    let more = "admin: {enabled: true, port: 0}\nupstreams: {u: {queue: 2, queue_timeout: 1h}}";
    let proxy = Proxy::with(&config(&backend, "", &second, more));
    let which = r#"{"upstream": "u", "backend_id": "c"}"#;
    let set = |change: &str| {
        let path = format!("/api/v1/backends/{change}");
        assert_eq!(proxy.admin("POST", &path, which).0, 200);
    };
    set("disconnect");
    let mut busy = asking(&proxy, &backend);
    let (answered, statuses) = channel();
    std::thread::scope(|scope| {
        for mut client in [proxy.client(), proxy.client(), proxy.client()] {
            let answered = answered.clone();
            scope.spawn(move || answered.send(client.get("/").status()).unwrap());
        }
        // The one that finds the queue full; then the other two wait.
        assert_eq!(statuses.recv().unwrap(), 503);
        set("reconnect");
        assert_eq!(statuses.recv().unwrap(), 200);
        assert_eq!(statuses.recv().unwrap(), 200);
    });
    assert_eq!(other.received().len(), 2);
    go.send(()).unwrap();
    assert_eq!(busy.response().status(), 200);
}

#[test]
fn who_waits_goes_on_once_a_reload_makes_room() {
    let (backend, go) = slow();
    let text = config(
        &backend,
        "",
        ", max_conn: 1",
        "upstreams: {u: {queue: 2, queue_timeout: 1h}}",
    );
    let proxy = Proxy::with(&text);
    let mut busy = asking(&proxy, &backend);
    let mut waiting = [proxy.client(), proxy.client()];
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // Another upstream before it, so that its place is another one, too.
    let port = super::support::unused_port();
    let text = text.replace("max_conn: 1", "max_conn: 3").replace(
        "backends: {",
        &format!("backends: {{a: [{{id: a, host: 127.0.0.1, port: {port}}}], "),
    );
    std::fs::write(&proxy.config_path, text).unwrap();
    for client in &mut waiting {
        assert_eq!(client.response().status(), 200);
    }
    go.send(()).unwrap();
    assert_eq!(busy.response().status(), 200);
}

#[test]
fn the_queue_is_bounded_in_length_and_time_and_left_with_its_client() {
    let (backend, go) = slow();
    let proxy = Proxy::with(&config(
        &backend,
        "",
        ", max_conn: 1",
        "upstreams: {u: {queue: 1, queue_timeout: 300ms}}",
    ));
    let refused = |client: &mut Client| {
        let response = client.response();
        assert_eq!(response.status(), 503);
        response.field("proxy-status").unwrap()
    };
    let mut busy = asking(&proxy, &backend);
    let mut waiting = proxy.client();
    waiting.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab");
    // Of two, one waits, and the other is told so.
    let mut third = proxy.client();
    third.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let told = [refused(&mut waiting), refused(&mut third)];
    assert!(
        told.iter().any(|told| told.contains("is at its max_conn")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|told| told.contains("until the queue timeout")),
        "{told:?}"
    );
    // One that leaves makes its place free.
    let mut leaving = proxy.client();
    leaving.send("GET /left HTTP/1.1\r\nHost: h\r\n\r\n");
    drop(leaving);
    go.send(()).unwrap();
    assert_eq!(busy.response().status(), 200);
    assert_eq!(waiting.get("/").status(), 200);
    assert_eq!(third.get("/").status(), 200);
}
