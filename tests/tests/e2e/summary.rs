//! A time range summed up is what was sent in it.

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};
use testkit::{
    fixtures::{Binaries, Collector, Level, Proxy},
    traffic::{Exchange, Load, Origin, OriginCounts},
};

use super::{
    Case,
    scene::{Scene, origin_on, send},
};

pub(crate) const CASES: &[Case] = &[("a_summary_is_what_was_sent", summed_up)];

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
    // Its end sends the last report.
    let left = scene.agent.stop().unwrap();

    let by_backend = ask(&binaries, &scene.collector, &["--by", "backend"]);
    assert_eq!(by_backend["rows_total"], 2);
    for origin in &origins {
        let counts = origin.counts();
        assert!(counts.requests > 0, "both were asked");
        assert_part(part_of(&by_backend, origin.address()), &counts);
    }
    let mut both = origins[0].counts();
    let other = origins[1].counts();
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
