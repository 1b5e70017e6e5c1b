//! A time range summed up, from reports and from roll-ups.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, eventually, get, now_ns, report};
use monitor_proto::{json::Summary, v1};

const MINUTE_NS: u64 = 60_000_000_000;
const WINDOW_NS: u64 = 5_000_000_000;
const BACKENDS: u64 = 4;

/// The report of a host whose window ends then: a listener, and backends of which each
/// answers another number of requests.
fn window(host: &str, sequence: u64, end_ns: u64) -> v1::Report {
    let mut r = report(host, sequence);
    (r.window_start_unix_ns, r.window_end_unix_ns) = (end_ns - WINDOW_NS, end_ns);
    let backend = r.endpoints.pop().unwrap();
    for n in 1..=BACKENDS {
        let mut one = backend.clone();
        one.address = format!("10.0.0.{n}:80");
        (one.upstream, one.backend) = ("api".into(), format!("api-{n}"));
        let window = one.window.as_mut().unwrap();
        (window.bytes_sent, window.bytes_received) = (n * 1000, sequence);
        let http = window.http.as_mut().unwrap();
        http.requests = n * sequence;
        http.responses_by_code = [("200".to_owned(), n * sequence)].into();
        r.endpoints.push(one);
    }
    r
}

fn ask(collector: &Collector, query: &str) -> Summary {
    serde_json::from_value(collector.json(&format!("/api/v1/summary?{query}"))).unwrap()
}

fn requests(summary: &Summary) -> Vec<Option<u64>> {
    let of = |figures: &Option<monitor_proto::json::SummaryFigures>| {
        figures.as_ref().and_then(|f| f.counter("requests"))
    };
    let rows = summary.rows.iter().map(|row| of(&row.part.figures));
    let other = summary.other.iter().map(|other| of(&other.figures));
    rows.chain(other)
        .chain([of(&summary.total.figures)])
        .collect()
}

fn time(ns: u64) -> String {
    monitor_proto::json::rfc3339(ns)
}

#[tokio::test]
async fn figures_are_those_of_the_reports_in_every_tier() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    // Aligned, so that 12 windows fill a minute; two hosts with the same backends.
    let base_ns = now_ns() / MINUTE_NS * MINUTE_NS - 10 * MINUTE_NS;
    for host in ["web-1", "web-2"] {
        for sequence in 1..=12 {
            let end_ns = base_ns + sequence * WINDOW_NS;
            agent.export(window(host, sequence, end_ns)).await;
        }
    }
    let sent: u64 = 2 * (1..=12u64).sum::<u64>();
    let expected = [4 * sent, 3 * sent, 3 * sent, 10 * sent].map(Some);
    let until = time(base_ns + MINUTE_NS);
    for (since_ns, tier) in [
        (base_ns, "raw"),
        (base_ns - 12 * 60 * MINUTE_NS, "1m"),
        (base_ns - 4 * 24 * 60 * MINUTE_NS, "1h"),
    ] {
        let query = format!("by=backend&limit=2&since={}&until={until}", time(since_ns));
        eventually("it is rolled up", || {
            requests(&ask(&collector, &query)) == expected
        });
        let summary = ask(&collector, &query);
        assert_eq!(summary.range.tier, tier);
        assert_eq!((summary.rows_total, summary.rows[0].hosts), (BACKENDS, 2));
        let key = &summary.rows[0].key;
        assert_eq!(
            (&*key.upstream, &*key.backend, &*key.endpoint),
            ("api", "api-4", "10.0.0.4:80")
        );
        assert_eq!(key.host, None);
        let part = &summary.rows[0].part;
        let points: u64 = part.sparkline.values.iter().flatten().sum();
        assert_eq!(
            (points, part.sparkline.values.len() <= 60),
            (4 * sent, true)
        );
        let figures = part.figures.as_ref().unwrap();
        assert_eq!(figures.counter("bytes_sent"), Some(24 * 4000));
        assert_eq!(figures.bytes(), Some(24 * 4000 + sent));
        assert_eq!(figures.server_error_ratio, Some(0.0));
        // 4 of 5 lie below 2^-11.25 s, all of them below 2^-11 s.
        let total = summary.total.figures.as_ref().unwrap();
        let p99_ms = total.exchange_duration.unwrap().p99_ms;
        assert!((0.41..=0.49).contains(&p99_ms), "{p99_ms}");
        // One upstream; the hosts' listeners are loopback, and so apart.
        let upstream = ask(&collector, &query.replacen("backend", "upstream", 1));
        assert_eq!(requests(&upstream), [Some(10 * sent); 2]);
        let listeners = ask(&collector, &query.replacen("backend", "listener", 1));
        assert_eq!(listeners.rows.len(), 2);
        let names = listeners
            .rows
            .iter()
            .map(|row| row.key.host.clone().unwrap().name);
        assert_eq!(names.collect::<Vec<_>>(), ["web-1", "web-2"]);
        let one = ask(&collector, &format!("{query}&host=web-2"));
        assert_eq!(one.rows[0].hosts, 1);
        assert_eq!(requests(&one).last(), Some(&Some(5 * sent)));
    }
    // A window that ends on the beginning is not in it, one that ends on the end is.
    let since = time(base_ns + 2 * WINDOW_NS);
    let until = time(base_ns + 4 * WINDOW_NS);
    let some = ask(
        &collector,
        &format!("by=upstream&since={since}&until={until}"),
    );
    assert_eq!(requests(&some).last(), Some(&Some(2 * 10 * (3 + 4))));
    // The minute five minutes later had nothing, and the minute before that one neither.
    let later = base_ns + 5 * MINUTE_NS;
    let range = format!("since={}&until={}", time(later), time(later + MINUTE_NS));
    let before = ask(&collector, &format!("by=upstream&{range}&against=5m"));
    let part = &before.rows[0].part;
    assert!(part.figures.is_none(), "{before:?}");
    let against = part.against.as_ref().unwrap();
    assert_eq!(against.counter("requests"), Some(10 * sent));
    assert_eq!(before.against.unwrap().since, time(base_ns));
    let nothing = ask(&collector, &format!("by=upstream&{range}&against=1m"));
    assert_eq!(nothing.rows_total, 0);

    let csv = get(
        &collector.url(&format!(
            "/api/v1/summary?by=backend&limit=1&since={}",
            time(base_ns)
        )),
        &[("accept", "text/csv")],
    );
    let lines: Vec<Vec<&str>> = csv.body.lines().map(|l| l.split(',').collect()).collect();
    let column = |name: &str| lines[0].iter().position(|head| *head == name).unwrap();
    let cells = |name: &str| -> Vec<&str> { lines[1..].iter().map(|l| l[column(name)]).collect() };
    assert_eq!(cells("row"), ["row", "~other", "~total"]);
    assert_eq!(cells("backend"), ["api-4", "", ""]);
    let counts = [4 * sent, 6 * sent, 10 * sent].map(|n| n.to_string());
    assert_eq!(cells("requests"), counts);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
}

#[tokio::test]
async fn what_is_kept_as_roll_ups_alone_is_in_the_sum() {
    const HOUR_NS: u64 = 60 * MINUTE_NS;
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let base_ns = now_ns() / HOUR_NS * HOUR_NS - 4 * HOUR_NS;
    // A minute in each of two hours.
    for sequence in 1..=24 {
        let hour_ns = (sequence - 1) / 12 * (HOUR_NS - MINUTE_NS);
        let end_ns = base_ns + hour_ns + sequence * WINDOW_NS;
        agent.export(window("web", sequence, end_ns)).await;
    }
    let sent = [Some(10 * (1..=24u64).sum::<u64>()); 2];
    let range = |since_ns: u64, hours: u64| {
        let until = time(since_ns + hours * HOUR_NS);
        format!("by=upstream&since={}&until={until}", time(since_ns))
    };
    let both = range(base_ns, 2);
    let days = format!("by=upstream&since={}", time(base_ns - 96 * HOUR_NS));
    eventually("it is rolled up", || {
        requests(&ask(&collector, &days)) == sent
    });
    let all = ask(&collector, &both);
    assert_eq!((&*all.range.tier, requests(&all)), ("raw", sent.to_vec()));
    // Both ranges are as long, and over; the one before had nothing.
    let compared = ask(&collector, &format!("{days}&against=4d"));
    let before = compared.against.clone().unwrap();
    assert_eq!((&*compared.range.tier, &*before.tier), ("1h", "1h"));
    // Or an hour later, where one ended meanwhile.
    let ends = [4, 5].map(|hours| base_ns + hours * HOUR_NS);
    let ends = ends.map(|end_ns| (time(end_ns), time(end_ns - 96 * HOUR_NS)));
    assert!(ends.contains(&(compared.range.until.clone(), before.until)));
    assert_eq!(before.since, time(base_ns - 192 * HOUR_NS));
    assert_eq!(requests(&compared), sent);

    // The first hour's reports are gone, then its roll-ups of a minute as well.
    let minute_s = base_ns / 1_000_000_000 + 60;
    let mut collector = collector;
    for (gone, tier) in [
        (
            format!("DELETE FROM reports WHERE window_end_ns <= {minute_s}000000000"),
            "1m",
        ),
        (
            format!(
                "DELETE FROM host_rolls WHERE tier_s = 60 AND start_s < {minute_s};
                 DELETE FROM endpoint_rolls WHERE tier_s = 60 AND start_s < {minute_s}"
            ),
            "1h",
        ),
    ] {
        assert_eq!(collector.terminate(), Some(0));
        let store = rusqlite::Connection::open(dir.path().join("collector.db")).unwrap();
        store.execute_batch(&gone).unwrap();
        drop(store);
        collector = Collector::start(dir.path());
        let summary = ask(&collector, &both);
        assert_eq!(
            (&*summary.range.tier, requests(&summary)),
            (tier, sent.to_vec())
        );
        assert_eq!(summary.partial, <[&str; 0]>::default());
        // So is the other side of a comparison, from the same tier.
        let later = range(base_ns + 2 * HOUR_NS, 2) + "&against=2h";
        let summary = ask(&collector, &later);
        let before = summary.against.clone().unwrap();
        assert_eq!((&*summary.range.tier, &*before.tier), (tier, tier));
        let against = summary.total.against.unwrap();
        assert_eq!(against.counter("requests"), sent[0]);
        // Of the second hour all reports are there.
        let newer = ask(&collector, &range(base_ns + HOUR_NS, 1));
        assert_eq!(newer.range.tier, "raw");
    }
}

/// As of an agent with windows of 100 ms.
#[tokio::test]
async fn what_has_too_many_reports_is_summed_up_from_roll_ups() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let end_ns = now_ns() / MINUTE_NS * MINUTE_NS - 50 * MINUTE_NS;
    agent.export(window("web", 1, end_ns)).await;
    let raw = format!("by=upstream&since={}", time(end_ns - MINUTE_NS));
    assert_eq!(ask(&collector, &raw).range.tier, "raw");
    let days = format!("by=upstream&since={}", time(end_ns - 2880 * MINUTE_NS));
    eventually("it is rolled up", || {
        requests(&ask(&collector, &days)) == [Some(10); 2]
    });
    assert_eq!(collector.terminate(), Some(0));
    let store = rusqlite::Connection::open(dir.path().join("collector.db")).unwrap();
    store
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO reports
                 (window_end_ns, host, epoch, sequence, stored_ns, received_ns, checksum, body)
             SELECT window_end_ns + i * 100000000, host, epoch, sequence + i, stored_ns + i,
                 received_ns, checksum, body
             FROM reports, n",
        )
        .unwrap();
    drop(store);
    let collector = Collector::start(dir.path());
    let summary = ask(&collector, &raw);
    assert_eq!(
        (&*summary.range.tier, requests(&summary)),
        ("1m", vec![Some(10); 2])
    );
}

#[tokio::test]
async fn hostile_questions_are_refused_in_words_or_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let refused = |query: &str, words: &str| {
        let answer = collector.get(&format!("/api/v1/summary?{query}"));
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
    };
    refused("by=site", "use one of upstream, backend, listener, host");
    refused("sort=p98", "use one of requests, p99, 5xx, bytes");
    refused("by=listener&role=upstream", "leave out role");
    refused("role=x", "neither downstream nor upstream");
    refused("limit=0", "is not a number from 1 to 1000");
    refused(
        "limit=99999999999999999999",
        "is not a number from 1 to 1000",
    );
    refused("since=now&until=1h", "until is not after since");
    refused("since=soon", "neither RFC 3339");
    for against in ["0s", "1", "-1d", "1ns", "yesterday"] {
        refused(&format!("against={against}"), "is not an age");
    }
    refused("against=9999w", "before 1970");
    refused("nonsense=1", "unknown field");
    // All of time, and no host.
    for query in [
        "since=1970-01-01T00:00:00Z&until=9999-01-01T00:00:00Z",
        "host=nobody&against=1d",
        "since=1s",
    ] {
        let summary = ask(&collector, query);
        assert_eq!((summary.rows_total, summary.other), (0, None));
        assert!(summary.total.figures.is_none());
        assert!((1..=60).contains(&summary.total.sparkline.values.len()));
    }
}

#[test]
fn an_engine_gives_no_summary_and_the_answer_says_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start_with(dir.path(), &["--query-url", "http://127.0.0.1:1"]);
    let answer = collector.get("/api/v1/summary");
    assert_eq!(answer.status, 501);
    let words = "ask the collectors that take the reports";
    assert!(answer.body.contains(words), "{}", answer.body);
}

#[tokio::test]
async fn a_thousand_hosts_are_rows_or_one_sum() {
    const HOSTS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let end_ns = now_ns() / MINUTE_NS * MINUTE_NS;
    for n in 0..HOSTS {
        agent.send(window(&format!("web-{n}"), 1, end_ns)).await;
        agent.answer().await.unwrap();
    }
    let sum = 10 * HOSTS;
    eventually("it is rolled up", || {
        let summary = ask(&collector, "by=backend&since=10m");
        requests(&summary) == [4, 3, 2, 1, 10].map(|n| Some(n * HOSTS))
    });
    let hosts = ask(&collector, "by=host&role=upstream&since=10m&limit=1000");
    assert_eq!((hosts.rows_total, hosts.other.is_none()), (HOSTS, true));
    assert_eq!(requests(&hosts).last(), Some(&Some(sum)));
    let few = ask(&collector, "by=host&role=upstream&since=10m&limit=1");
    assert_eq!(requests(&few), [10, sum - 10, sum].map(Some));
}
