//! Who uses the listeners: clients of a range, over windows and hosts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, now_ns, report};
use monitor_proto::{
    json::{ClientFigures, Top, rfc3339},
    v1,
};

const WINDOW_NS: u64 = 5_000_000_000;

fn client(address: String, n: u64) -> v1::Client {
    v1::Client {
        address,
        connections_opened: n,
        bytes_received: 10 * n,
        bytes_sent: 100 * n,
        requests: Some(2 * n),
        exchanges: Some(0),
        requests_without_response: Some(0),
        ..v1::Client::default()
    }
}

/// A window in which the listener had so many connections, and these clients some.
fn window(host: &str, sequence: u64, end_ns: u64, all: u64, top: Vec<v1::Client>) -> v1::Report {
    let mut r = report(host, sequence);
    (r.window_start_unix_ns, r.window_end_unix_ns) = (end_ns - WINDOW_NS, end_ns);
    let listener = r.endpoints[0].window.as_mut().unwrap();
    (listener.connections_opened, listener.bytes_received) = (all, 10 * all);
    listener.bytes_sent = 100 * all;
    listener.http.as_mut().unwrap().requests = 2 * all;
    r.clients = Some(v1::Clients {
        prefix_v4: 32,
        prefix_v6: 64,
        top,
    });
    r
}

fn ask(collector: &Collector, query: &str) -> Top {
    serde_json::from_value(collector.json(&format!("/api/v1/top?{query}"))).unwrap()
}

fn of(top: &Top) -> Vec<(&str, u64, i64)> {
    let rows = top.rows.iter();
    rows.map(|row| (&*row.client, row.hosts, row.figures.connections_opened))
        .collect()
}

/// The rows and the others are all there is.
fn is_whole(top: &Top) {
    let mut sum = top.other;
    top.rows.iter().for_each(|row| sum.add(&row.figures));
    assert_eq!(sum, top.total);
}

fn ip(n: u64) -> String {
    format!("10.{}.{}.{}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff)
}

#[tokio::test]
async fn clients_are_added_up_over_windows_and_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() / WINDOW_NS * WINDOW_NS - 600_000_000_000;
    for sequence in 1..=10 {
        let end_ns = base_ns + sequence * WINDOW_NS;
        for (host, n) in [("web-1", 3), ("web-2", 1)] {
            // In the last windows one of them was not among the largest.
            let mut top = vec![client(ip(1), n)];
            top.extend((sequence <= 5).then(|| client("2001:db8::/64".into(), 2)));
            agent.export(window(host, sequence, end_ns, 10, top)).await;
        }
    }
    let older = report("old", 1);
    let older = v1::Report {
        window_start_unix_ns: base_ns,
        window_end_unix_ns: base_ns + WINDOW_NS,
        ..older
    };
    agent.export(older).await;
    let range = format!(
        "since={}&until={}",
        rfc3339(base_ns),
        rfc3339(base_ns + 10 * WINDOW_NS)
    );
    let top = ask(&collector, &format!("by=client&{range}"));
    is_whole(&top);
    assert_eq!(of(&top), [("10.0.0.1", 2, 40), ("2001:db8::/64", 2, 20)]);
    assert_eq!((top.rows_total, &*top.sort), (2, "bytes"));
    assert_eq!(
        (top.total.connections_opened, top.total.bytes_sent),
        (200, 20_000)
    );
    assert_eq!(
        (top.other.connections_opened, top.other.requests),
        (140, Some(280))
    );
    let without = top.hosts_without.iter().map(|host| &*host.id);
    assert_eq!(without.collect::<Vec<_>>(), ["id-old"]);
    // One host, one row, another order.
    let top = ask(
        &collector,
        &format!("{range}&host=web-2&limit=1&sort=connections"),
    );
    is_whole(&top);
    assert_eq!((of(&top), top.rows_total), (vec![("10.0.0.1", 1, 10)], 2));
    assert_eq!(top.other.connections_opened, 90);
    // No window ends within it.
    let none = ask(
        &collector,
        &format!("since={}&until={}", rfc3339(base_ns - 9), rfc3339(base_ns)),
    );
    assert_eq!((none.rows.len(), none.total), (0, ClientFigures::default()));
    for (query, word) in [
        ("by=site", "by="),
        ("sort=p99", "sort="),
        ("limit=0", "limit="),
        ("since=now&until=1h", "until"),
        ("nonsense=1", "nonsense"),
    ] {
        let answer = collector.get(&format!("/api/v1/top?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(word), "{}", answer.body);
    }
}

#[tokio::test]
async fn what_a_client_is_told_late_makes_nothing_negative() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let end_ns = now_ns() / WINDOW_NS * WINDOW_NS - 60_000_000_000;
    // The listener had its bytes in the window before.
    agent.export(window("web", 1, end_ns, 10, vec![])).await;
    let late = window("web", 2, end_ns + WINDOW_NS, 1, vec![client(ip(1), 4)]);
    agent.export(late).await;
    let since = |ns| format!("since={}", rfc3339(ns));
    let both = ask(&collector, &since(end_ns - WINDOW_NS));
    is_whole(&both);
    assert_eq!(
        (both.total.connections_opened, both.other.connections_opened),
        (11, 7)
    );
    let last = ask(&collector, &since(end_ns));
    is_whole(&last);
    assert_eq!(
        (last.total.connections_opened, last.other.connections_opened),
        (4, 0)
    );
    // The report itself says what happened.
    let reports = collector.json("/api/v1/reports?host=web&limit=2");
    let other = &reports["reports"][1]["clients"]["other"];
    assert_eq!(other["connections_opened"], -3, "{other}");
}

#[tokio::test]
async fn a_hundred_thousand_clients_take_bounded_room_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() - 3_000_000_000_000;
    let (windows, each) = (400, 250);
    for sequence in 1..=windows {
        // One large client in every window, and others that come once.
        let others = (0..each - 1).map(|n| client(ip(1_000 + sequence * each + n), 1));
        let top = others.chain([client(ip(1), 50)]).collect();
        let end_ns = base_ns + sequence * WINDOW_NS;
        agent
            .export(window("web", sequence, end_ns, 400, top))
            .await;
    }
    let top = ask(&collector, &format!("since={}&limit=3", rfc3339(base_ns)));
    is_whole(&top);
    assert_eq!(top.rows[0].client, ip(1));
    assert_eq!(top.rows[0].figures.connections_opened, 50 * windows as i64);
    assert_eq!(top.total.connections_opened, 400 * windows as i64);
    assert_eq!(top.rows_total, windows * (each - 1) + 1);
}
