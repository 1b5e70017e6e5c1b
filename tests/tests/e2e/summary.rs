//! A time range summed up is what was sent in it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use serde_json::{Value, json};
use testkit::{
    fixtures::{Binaries, Collector, Level, Proxy},
    traffic::{Exchange, Load, Origin, OriginCounts},
};

use super::{
    Case,
    scene::{Scene, origin_on, send},
};

pub(crate) const CASES: &[Case] = &[
    ("a_summary_is_what_was_sent", summed_up),
    ("a_summary_by_client_is_what_each_one_sent", by_client),
];

/// Two backends behind our proxy, of which the command tells what each answered, and
/// of the listener what the clients got.
fn summed_up() {
    let origins: [Origin; 2] = std::array::from_fn(|_| origin_on("127.0.0.1"));
    let scene = Scene::watched_at(Level::Http);
    let addresses = origins.each_ref().map(Origin::address);
    let binaries = Binaries::of_this_build().unwrap();
    let proxy = Proxy::start(&binaries, &scene.cgroup, &addresses).unwrap();
    let mix = [
        Exchange::get(1_000),
        Exchange::post(500, 10),
        Exchange::status(404),
        Exchange::status(503),
    ];
    let load = Load::on(proxy.address()).connections(8).requests(2_000);
    let outcome = send(load.mix(mix));
    let listens = proxy.address();
    proxy.stop().unwrap();
    let served = origins.each_ref().map(Origin::ended);
    // Its end sends the last report.
    let left = scene.agent.stop().unwrap();

    let by_backend = ask(&binaries, &scene.collector, &["--by", "backend"]);
    assert_eq!(by_backend["rows_total"], 2);
    for (address, counts) in addresses.into_iter().zip(&served) {
        assert!(counts.requests > 0, "both were asked");
        assert_part(part_of(&by_backend, address), counts);
    }
    let [mut both, other] = served;
    both.connections += other.connections;
    both.requests += other.requests;
    both.responses += other.responses;
    both.bytes_sent += other.bytes_sent;
    both.bytes_received += other.bytes_received;
    assert_part(&by_backend["total"], &both);
    let top = ask(&binaries, &scene.collector, &["--top", "1"]);
    assert_eq!(top["rows"].as_array().unwrap().len(), 1);
    assert_eq!(top["total"], by_backend["total"]);
    let requests = |part: &Value| part["figures"]["counters"]["requests"].as_u64().unwrap();
    let all = requests(&top["rows"][0]) + requests(&top["other"]);
    assert_eq!(all, 2_000);

    let by_listener = ask(&binaries, &scene.collector, &["--by", "listener"]);
    let listener = part_of(&by_listener, listens);
    let clients = OriginCounts {
        connections: outcome.connections,
        requests: outcome.requests,
        responses: outcome.responses,
        bytes_sent: outcome.bytes_sent,
        bytes_received: outcome.bytes_received,
        ..OriginCounts::default()
    };
    assert_part(listener, &clients);
    let points = listener["sparkline"]["values"].as_array().unwrap();
    assert_eq!(points.iter().filter_map(Value::as_u64).sum::<u64>(), 2_000);
    left.uninstall().unwrap();
    scene.collector.stop().unwrap();
}

/// Clients with addresses of their own, of which each has what it sent and received.
fn by_client() {
    let origin = origin_on("127.0.0.1");
    let scene = Scene::watched_at(Level::Http);
    let binaries = Binaries::of_this_build().unwrap();
    let proxy = Proxy::start(&binaries, &scene.cgroup, &[origin.address()]).unwrap();
    let clients: Vec<Asked> = (1..=5)
        .map(|n| {
            let client = Ipv4Addr::new(127, 0, 9, n);
            let requests = 10 * u64::from(n);
            let asked = (0..requests).map(|_| ask_from(client, proxy.address()));
            let (sent, received) = asked.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            Asked {
                client,
                requests,
                sent,
                received,
            }
        })
        .collect();
    proxy.stop().unwrap();
    // Its end sends the last report.
    let left = scene.agent.stop().unwrap();

    let all = ask(&binaries, &scene.collector, &["--by", "client"]);
    assert_eq!(all["rows_total"], 5, "{all}");
    // The most bytes first.
    for (asked, row) in clients.iter().rev().zip(all["rows"].as_array().unwrap()) {
        assert_eq!(row["client"], asked.client.to_string());
        for (figure, n) in [
            ("connections_opened", asked.requests),
            ("requests", asked.requests),
            ("bytes_received", asked.sent),
            ("bytes_sent", asked.received),
            ("requests_without_response", 0),
        ] {
            assert_eq!(row[figure], n, "{figure}: {row}");
        }
    }
    assert_eq!(all["other"]["connections_opened"], 0);
    assert_eq!(all["total"]["requests"], 150);
    let listener = ask(&binaries, &scene.collector, &["--by", "listener"]);
    let counters = &listener["total"]["figures"]["counters"];
    let two = ["--by", "client", "--top", "2", "--sort", "connections"];
    let two = ask(&binaries, &scene.collector, &two);
    for figure in [
        "connections_opened",
        "requests",
        "bytes_received",
        "bytes_sent",
    ] {
        assert_eq!(all["total"][figure], counters[figure], "{figure}");
        let rows = two["rows"].as_array().unwrap().iter();
        let rows: i64 = rows.map(|row| row[figure].as_i64().unwrap()).sum();
        let sum = rows + two["other"][figure].as_i64().unwrap();
        assert_eq!(two["total"][figure], sum, "{figure}");
    }
    left.uninstall().unwrap();
    scene.collector.stop().unwrap();
}

struct Asked {
    client: Ipv4Addr,
    requests: u64,
    sent: u64,
    received: u64,
}

/// One request on a connection from this address: what was sent and received.
fn ask_from(client: Ipv4Addr, to: SocketAddr) -> (u64, u64) {
    let from = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&from, &SocketAddr::new(client.into(), 0)).unwrap();
    connect(&from, &to).unwrap();
    let mut stream = TcpStream::from(from);
    let request = b"GET /bytes/1000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"), "{response:?}");
    (request.len() as u64, response.len() as u64)
}

/// What the command prints as JSON.
fn ask(binaries: &Binaries, collector: &Collector, more: &[&str]) -> Value {
    let url = format!("http://{}", collector.http());
    let output = Command::new(binaries.find("speedmimi").unwrap())
        .args(["summary", "--output", "json", "--collector", &url])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn part_of(summary: &Value, address: SocketAddr) -> &Value {
    let address = address.to_string();
    let rows = summary["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["endpoint"] == address.as_str());
    row.unwrap_or_else(|| panic!("{address}: {summary}"))
}

/// Compares a row with what one side carried.
#[track_caller]
fn assert_part(part: &Value, counts: &OriginCounts) {
    let figures = &part["figures"];
    for (name, sent) in [
        ("requests", counts.requests),
        ("connections_opened", counts.connections),
        ("bytes_sent", counts.bytes_received),
        ("bytes_received", counts.bytes_sent),
        ("connections_failed", 0),
        ("requests_without_response", 0),
    ] {
        assert_eq!(figures["counters"][name], sent, "{name}");
    }
    assert_eq!(figures["responses"], json!(counts.responses));
    let ratio = counts.responses.server_error as f64 / counts.requests as f64;
    assert_eq!(figures["5xx_ratio"], ratio);
    let durations = &figures["exchange_duration"];
    assert_eq!(durations["count"], counts.requests);
    let quantiles = ["p50_ms", "p90_ms", "p99_ms", "p999_ms"];
    let quantiles = quantiles.map(|name| durations[name].as_f64().unwrap());
    assert!(quantiles.is_sorted(), "{quantiles:?}");
}
