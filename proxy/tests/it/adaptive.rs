//! The balancer `adaptive` against an agent's socket, slow start and panic.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use backend_load::{Totals, feed};
use serde_json::Value;

use super::backends::{config, named};
use super::support::{Backend, Proxy, eventually};

/// Stands in for an agent: what it has counted so far.
struct Agent {
    listener: UnixListener,
    backends: BTreeMap<u16, Totals>,
}

impl Agent {
    fn new(path: &std::path::Path, ports: &[u16]) -> Self {
        let totals = Totals {
            since_unix_ns: 1,
            exchanges: Some(0),
            exchange_ns: Some(0),
            ..Totals::default()
        };
        Self {
            listener: UnixListener::bind(path).unwrap(),
            backends: ports.iter().map(|port| (*port, totals)).collect(),
        }
    }

    /// Ten more exchanges of so many milliseconds, of which so many fail.
    fn exchange(&mut self, port: u16, ms: u64, failed: u64) {
        let totals = self.backends.get_mut(&port).unwrap();
        totals.attempts += 10;
        totals.failures += failed;
        *totals.exchanges.as_mut().unwrap() += 10;
        *totals.exchange_ns.as_mut().unwrap() += 10 * ms * 1_000_000;
    }

    fn write(&self, stream: &mut UnixStream) {
        let backends = self.backends.iter().map(|(port, totals)| feed::Backend {
            target: "/proxy".to_owned(),
            address: ([127, 0, 0, 1], *port).into(),
            upstream: String::new(),
            backend: String::new(),
            connections_active: 0,
            totals: *totals,
        });
        let sample = feed::Sample {
            unix_ms: 1,
            interval_ms: 100,
            backends: backends.collect(),
            omitted: 0,
        };
        stream
            .write_all(sample.to_line().unwrap().as_bytes())
            .unwrap();
    }
}

fn costs(proxy: &Proxy) -> Vec<Value> {
    let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
    let backends = list["backends"].as_array().unwrap();
    backends
        .iter()
        .map(|backend| backend["cost"].clone())
        .collect()
}

fn served(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut client = proxy.client();
    for _ in 0..requests {
        *counts.entry(client.get("/").text()).or_default() += 1;
    }
    counts
}

#[test]
fn requests_follow_what_the_agent_measured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backends.sock");
    let (a, b) = (named("a"), named("b"));
    let [at_a, at_b] = [&a, &b].map(|backend| backend.address.port());
    let mut agent = Agent::new(&path, &[at_a, at_b]);
    let text = config(
        &[("a", at_a, ""), ("b", at_b, "")],
        &format!(
            "routing: {{r: {{upstream: u, load_balancer: adaptive}}}}\nadmin: {{enabled: true, port: 0}}\n\
             agent: {{socket: {}, expiry: 2s, decay: 100ms}}",
            path.display()
        ),
    );
    let proxy = Proxy::with(&text);
    let (mut stream, _) = agent.listener.accept().unwrap();
    agent.write(&mut stream);
    // The counters so far are a beginning, and no measurement.
    eventually("the first sample", || {
        costs(&proxy)[0]["age_seconds"].as_f64()
    });
    assert_eq!(costs(&proxy)[0]["exchange_seconds"], Value::Null);
    let mut settle =
        |agent: &mut Agent, ms: [u64; 2], failed: [u64; 2], done: &dyn Fn(f64, f64) -> bool| {
            eventually("the costs", || {
                for ((port, ms), failed) in [at_a, at_b].into_iter().zip(ms).zip(failed) {
                    agent.exchange(port, ms, failed);
                }
                agent.write(&mut stream);
                let costs = costs(&proxy);
                let [a, b] = [&costs[0], &costs[1]].map(|cost| cost["seconds"].as_f64());
                a.zip(b).filter(|(a, b)| done(*a, *b))
            });
        };
    settle(&mut agent, [2, 50], [0, 0], &|a, b| a * 10.0 < b);
    assert_eq!(served(&proxy, 30), [("a".to_owned(), 30)].into());
    settle(&mut agent, [80, 2], [0, 0], &|a, b| b * 10.0 < a);
    assert_eq!(served(&proxy, 30), [("b".to_owned(), 30)].into());
    settle(&mut agent, [80, 2], [0, 5], &|a, b| a < b);
    assert_eq!(
        served(&proxy, 30),
        [("a".to_owned(), 30)].into(),
        "b fails fast"
    );
    // The agent goes: what it said expires, and nothing else changes.
    drop(stream);
    drop(agent);
    std::fs::remove_file(&path).unwrap();
    proxy.wait_for_line("balancing without them");
    eventually("the figures to expire", || {
        costs(&proxy)
            .iter()
            .all(|cost| cost["exchange_seconds"].is_null())
            .then_some(())
    });
    let counts = served(&proxy, 60);
    assert_eq!(counts.values().sum::<usize>(), 60);
    assert_eq!(counts.len(), 2, "{counts:?}");
}

#[test]
fn explain_shows_a_running_proxys_costs() {
    let backend = named("a");
    let admin = super::support::unused_port();
    let text = config(
        &[("a", backend.address.port(), "")],
        &format!(
            "routing: {{r: {{upstream: u, load_balancer: adaptive}}}}\n\
             admin: {{enabled: true, host: 127.0.0.1, port: {admin}}}"
        ),
    );
    let _proxy = Proxy::with(&text);
    let dir = tempfile::tempdir().unwrap();
    let explain = |text: &str, more: &[&str]| {
        let file = dir.path().join("proxy.yaml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi-proxy"));
        let output = command
            .arg("explain")
            .arg("--config")
            .arg(&file)
            .args(more)
            .output()
            .unwrap();
        let text = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, table) = explain(&text, &[]);
    assert_eq!(code, Some(0), "{table}");
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["u", "a", "up", "0", "100"]);
    let (_, json) = explain(&text, &["--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["upstreams"]["u"][0]["cost"]["pressure"], 1.0);
    let (code, error) = explain(&text.replace(&admin.to_string(), "1"), &[]);
    assert!(
        code == Some(1) && error.contains("is the proxy running"),
        "{error}"
    );
    let (code, error) = explain(&text.replace("enabled: true", "enabled: false"), &[]);
    assert!(code == Some(1) && error.contains("enable it"), "{error}");
}

#[test]
fn with_too_few_usable_backends_all_are_used() {
    // Of three that answer, two fail their checks.
    let failing = |name: &'static str| {
        Backend::new(move |request, peer| {
            let status = if request.head.starts_with("GET /health") {
                "503 No"
            } else {
                "200 OK"
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            );
            peer.send(answer.as_bytes());
        })
    };
    let (a, b, c) = (named("a"), failing("b"), failing("c"));
    let check = ", health_check: {path: /health, interval: 50ms, failures: 1}";
    let backends = [
        ("a", a.address.port(), ""),
        ("b", b.address.port(), check),
        ("c", c.address.port(), check),
    ];
    let proxy = |percent: u32| {
        let more = format!(
            "routing: {{r: {{upstream: u, load_balancer: weight}}}}\nadmin: {{enabled: true, port: 0}}\n\
             upstreams: {{u: {{panic_percent: {percent}}}}}"
        );
        let proxy = Proxy::with(&config(&backends, &more));
        eventually("both to be unhealthy", || {
            let (_, list) = proxy.admin("GET", "/api/v1/backends?upstream=u", "");
            let unhealthy = |id: usize| list["backends"][id]["healthy"] == false;
            (unhealthy(1) && unhealthy(2)).then_some(())
        });
        proxy
    };
    for (percent, expected) in [(0, 1), (33, 1), (34, 3)] {
        let counts = served(&proxy(percent), 60);
        assert_eq!(counts.len(), expected, "{percent} %: {counts:?}");
    }
}
