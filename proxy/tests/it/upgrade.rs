//! A newer process takes over the port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::support::{Backend, Client, Proxy, eventually};

#[test]
fn a_newer_process_takes_over_without_a_lost_connection() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = |port: u16| {
        format!(
            "server: {{host: 127.0.0.1, port: {port}}}\n\
             backends: {{u: [{{id: b, host: 127.0.0.1, port: {}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
            backend.address.port()
        )
    };
    let mut old = Proxy::with_arguments(&config(0), &["--workers", "2"]);
    let address = old.address;
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let response = Client::connect(address).get("/");
                    assert_eq!(response.status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let before = served.load(Ordering::Relaxed);
        eventually("more answers", || {
            (served.load(Ordering::Relaxed) >= before + count).then_some(())
        });
    };
    more(100);
    let new = Proxy::with_arguments(&config(address.port()), &["--workers", "2"]);
    more(100);
    old.signal("TERM");
    assert_eq!(old.wait_for_exit().code(), Some(0));
    more(200);
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no request fails during the upgrade");
    }
    drop(new);
}

/// A listener on the port would get its share of the clients, and reset them.
#[test]
fn a_second_process_that_cannot_start_takes_no_client() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let running = Proxy::before(&backend, "");
    let address = running.address;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(Client::connect(address).get("/").status(), 200);
                }
            })
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.yaml");
    let missing = directory.path().join("missing").join("file");
    let faults = [
        "backends: {u: [{id: b, host: name.invalid, port: 1}]}".to_owned(),
        format!("access_log: {{enabled: true, file: {}}}", missing.display()),
        format!(
            "ssl: {{enabled: true, cert_file: {0}, key_file: {0}}}",
            missing.display()
        ),
        // The port of the admin API is taken.
        format!(
            "admin: {{enabled: true, host: 127.0.0.1, port: {}}}",
            backend.address.port()
        ),
    ];
    for fault in faults.iter().cycle().take(20) {
        let text = format!(
            "server: {{host: 127.0.0.1, port: {}}}\n{fault}\n",
            address.port()
        );
        std::fs::write(&path, text).unwrap();
        let mut command = std::process::Command::new("timeout");
        command.arg("10").arg(super::support::BINARY).arg("run");
        command
            .args(["--workers", "2", "--data-dir"])
            .arg(directory.path());
        let output = command.arg("--config").arg(&path).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(1 | 64)),
            "{fault}: {told}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no request fails meanwhile");
    }
    drop(running);
}
