//! Rows, their order and their sums.

use std::time::Duration;

use monitor_proto::{
    json::{SummaryDurations, SummaryHost, SummaryKey, SummaryPart},
    v1,
};
use rollup::{EndpointId, EndpointRoll, Rolling as _};

use super::{By, Groups, Order, Question, Sort, SummaryPlan, answer};
use crate::{
    named_series::EndpointNames,
    series::{BadPlan, Tier},
};

const NS: u64 = 1_000_000_000;

fn plan() -> SummaryPlan {
    SummaryPlan::of_hosts(1, 600, 660).unwrap()
}

/// A window of 5 s.
fn roll(requests: u64, errors: u64, buckets: &[u64]) -> EndpointRoll {
    EndpointRoll {
        covered_ns: 5 * NS,
        http_ns: 5 * NS,
        requests,
        responses_2xx: requests - errors,
        responses_5xx: errors,
        bytes_sent: 1000 * requests,
        exchange_duration: v1::Histogram {
            count: buckets.iter().sum(),
            sum_ns: 7,
            scale: 2,
            offset: -40,
            buckets: buckets.to_vec(),
        },
        ..EndpointRoll::default()
    }
}

fn key(upstream: &str) -> SummaryKey {
    SummaryKey {
        upstream: upstream.to_owned(),
        ..SummaryKey::default()
    }
}

fn groups<'a>(rolls: impl IntoIterator<Item = (&'a str, u64, EndpointRoll)>) -> Groups {
    let mut groups = Groups::default();
    for (upstream, at_s, roll) in rolls {
        groups.add(1, key(upstream), |row| row.count(plan(), at_s, &roll));
    }
    groups
}

fn ask(groups: Groups, sort: Sort, limit: usize) -> monitor_proto::json::Summary {
    let question = Question {
        by: By::Upstream,
        role: v1::Role::Upstream,
        plan: plan(),
    };
    answer(question, Order { sort, limit }, groups, None)
}

fn requests(part: &SummaryPart) -> Option<u64> {
    part.figures.as_ref().and_then(|f| f.counter("requests"))
}

#[test]
fn quantiles_are_those_of_all_values_together() {
    // One backend is fast 999 times, the other slow once: neither quantile's mean is theirs.
    let (fast, slow) = (roll(999, 0, &[999]), roll(1, 1, &[0, 0, 0, 0, 0, 0, 0, 1]));
    let summary = ask(
        groups([("api", 604, fast.clone()), ("api", 609, slow.clone())]),
        Sort::P99,
        10,
    );
    let mut both = fast;
    both.add(&slow);
    let figures = summary.rows[0].part.figures.clone().unwrap();
    let merged = SummaryDurations::of(&both.exchange_duration);
    assert_eq!(figures.exchange_duration, merged);
    assert_eq!(figures.exchange_duration.unwrap().count, 1000);
    assert!(
        figures.exchange_duration.unwrap().p99_ms < 1.2,
        "{figures:?}"
    );
    assert_eq!(figures.server_error_ratio, Some(1.0 / 1000.0));
    assert_eq!(figures.connect_duration, None, "nothing was connected");
    assert_eq!(summary.total.figures, Some(figures));
}

#[test]
fn rows_and_the_rest_are_the_total_and_so_are_sparklines() {
    let rolls = (0..300u64).map(|n| {
        let name: &'static str = ["a", "b", "c", "d", "e", "f", "g"][(n % 7) as usize];
        (name, 600 + n % 60, roll(1 + n % 11, n % 2, &[1 + n % 11]))
    });
    let sent: u64 = (0..300).map(|n| 1 + n % 11).sum();
    for sort in Sort::ALL {
        let summary = ask(groups(rolls.clone()), sort, 3);
        assert_eq!((summary.rows.len(), summary.rows_total), (3, 7));
        let other = summary.other.as_ref().unwrap();
        let rows = summary.rows.iter().map(|row| &row.part).chain([other]);
        let of = |read: &dyn Fn(&SummaryPart) -> u64| rows.clone().map(read).sum::<u64>();
        assert_eq!(of(&|part| requests(part).unwrap()), sent, "{sort:?}");
        assert_eq!(requests(&summary.total), Some(sent));
        let names = summary.total.figures.as_ref().unwrap().counters.clone();
        for (name, total) in names {
            let counter = |part: &SummaryPart| part.figures.as_ref().unwrap().counter(&name);
            let sum = rows.clone().map(counter).sum::<Option<u64>>();
            assert_eq!(sum, total, "{name}");
        }
        for part in rows.clone().chain([&summary.total]) {
            assert!(part.sparkline.values.len() <= 60);
            assert_eq!(part.sparkline.metric, "requests");
            let points: u64 = part.sparkline.values.iter().flatten().sum();
            assert_eq!(Some(points), requests(part));
        }
    }
    let whole = ask(groups(rolls), Sort::Requests, 7);
    assert_eq!(whole.other, None);
}

#[test]
fn the_largest_comes_first_and_what_is_unknown_last() {
    let tcp = EndpointRoll {
        covered_ns: NS,
        bytes_sent: 1 << 40,
        ..EndpointRoll::default()
    };
    let rolls = || {
        [
            ("few", 601, roll(10, 9, &[0, 10])),
            ("many", 602, roll(100, 1, &[100])),
            ("tcp", 603, tcp.clone()),
        ]
    };
    for (sort, expected) in [
        (Sort::Requests, ["many", "few", "tcp"]),
        (Sort::P99, ["few", "many", "tcp"]),
        (Sort::ServerErrors, ["few", "many", "tcp"]),
        (Sort::Bytes, ["tcp", "many", "few"]),
    ] {
        let summary = ask(groups(rolls()), sort, 10);
        let names = summary.rows.iter().map(|row| row.key.upstream.as_str());
        assert_eq!(names.collect::<Vec<_>>(), expected, "{sort:?}");
    }
}

#[test]
fn what_cannot_be_seen_is_absent() {
    let tls = EndpointRoll {
        covered_ns: 5 * NS,
        http_ns: 5 * NS,
        exchanges: 8,
        ..EndpointRoll::default()
    };
    let tcp = EndpointRoll {
        covered_ns: 5 * NS,
        connections_opened: 2,
        ..EndpointRoll::default()
    };
    let summary = ask(
        groups([("tls", 604, tls), ("tcp", 604, tcp)]),
        Sort::Requests,
        10,
    );
    let [tcp, tls] = &summary.rows[..] else {
        panic!("{summary:?}")
    };
    for row in [tcp, tls] {
        let figures = row.part.figures.as_ref().unwrap();
        assert_eq!(figures.counter("requests"), None);
        assert_eq!(figures.counter("requests_without_response"), None);
        assert_eq!(
            (figures.responses, figures.server_error_ratio),
            (None, None)
        );
    }
    let figures = tls.part.figures.as_ref().unwrap();
    assert_eq!(figures.counter("exchanges"), Some(8));
    assert_eq!(tls.part.sparkline.metric, "exchanges");
    assert_eq!(tls.part.sparkline.values[0], Some(8));
    assert_eq!(tls.part.sparkline.values[1], None, "nothing was measured");
    let figures = tcp.part.figures.as_ref().unwrap();
    assert_eq!(figures.counter("exchanges"), None);
    assert_eq!(figures.counter("connections_opened"), Some(2));
    // Since the first version that sums them.
    assert_eq!(figures.counter("closed_reset_sent"), None);
    assert_eq!((figures.resets(), figures.bytes()), (None, Some(0)));
    assert!(tcp.part.sparkline.values.iter().all(Option::is_none));
}

#[test]
fn another_range_stands_beside_it_with_what_is_gone() {
    let question = Question {
        by: By::Upstream,
        role: v1::Role::Upstream,
        plan: plan(),
    };
    let order = Order {
        sort: Sort::Requests,
        limit: 1,
    };
    let before = plan().before(Duration::from_secs(300)).unwrap();
    assert_eq!((before.start_s, before.end_s), (300, 360));
    let mut old = Groups::default();
    for (upstream, n) in [("api", 4), ("gone", 5)] {
        old.add(1, key(upstream), |row| {
            row.count(before, 310, &roll(n, 0, &[n]));
        });
    }
    let now = groups([("api", 610, roll(6, 0, &[6]))]);
    let summary = answer(question, order, now, Some((before, old)));
    let against = |part: &SummaryPart| part.against.as_ref().and_then(|f| f.counter("requests"));
    let api = &summary.rows[0].part;
    assert_eq!((requests(api), against(api)), (Some(6), Some(4)));
    let other = summary.other.as_ref().unwrap();
    assert_eq!((requests(other), against(other)), (None, Some(5)));
    assert_eq!(against(&summary.total), Some(9));
    assert_eq!(summary.against.unwrap().since, "1970-01-01T00:05:00Z");
}

#[test]
fn the_range_is_whole_buckets_in_sixty_steps_at_the_most() {
    let of = |hosts, since_s, until_s| {
        let plan = SummaryPlan::of_hosts(hosts, since_s, until_s).unwrap();
        assert!((1..=60).contains(&plan.steps_count()), "{plan:?}");
        assert!(plan.start_s <= since_s && plan.end_s >= until_s.min(plan.end_s));
        (plan.tier, plan.step_s, plan.end_s - plan.start_s)
    };
    assert_eq!(of(1, 7, 607), (Tier::Raw, 10, 600));
    assert_eq!(of(1, 7, 8), (Tier::Raw, 5, 1));
    assert_eq!(of(1, 0, 6 * 3600), (Tier::Raw, 360, 6 * 3600));
    assert_eq!(of(1, 30, 86_430), (Tier::Rolled(60), 1500, 86_460));
    assert_eq!(of(1000, 0, 600), (Tier::Rolled(60), 60, 600));
    assert_eq!(of(1000, 0, 86_400), (Tier::Rolled(3600), 3600, 86_400));
    assert_eq!(of(1, 0, 7 * 86_400).0, Tier::Rolled(3600));
    assert_eq!(of(u64::MAX, 0, u64::MAX).0, Tier::Rolled(3600));
    assert_eq!(
        SummaryPlan::of_hosts(1, 10, 10).unwrap_err(),
        BadPlan::Reversed
    );
    let day = SummaryPlan::of_hosts(1, 3 * 86_400, 4 * 86_400).unwrap();
    assert_eq!(day.before(Duration::from_secs(4 * 86_400)), None);
    assert_eq!(day.before(Duration::ZERO), None);
    let before = day.before(Duration::from_secs(61)).unwrap();
    assert_eq!(before.start_s % 60, 0);
    assert_eq!(before.end_s - before.start_s, day.end_s - day.start_s);
    let hours = day.coarser().unwrap();
    assert_eq!((hours.tier, hours.coarser()), (Tier::Rolled(3600), None));
    assert_eq!(plan().coarser().unwrap().tier, Tier::Rolled(60));
}

#[test]
fn what_is_compared_is_over() {
    let hours = SummaryPlan::of_hosts(1, 7200, 7200 + 30 * 86_400 + 60).unwrap();
    assert_eq!(hours.end_s % 3600, 0);
    let over = hours.finished(hours.end_s - 1);
    assert_eq!((over.start_s, over.end_s), (7200, hours.end_s - 3600));
    let before = over.before(Duration::from_secs(3600)).unwrap();
    assert_eq!((before.start_s, before.end_s), (3600, over.end_s - 3600));
    // What is over is whole, and the only bucket there is stays.
    assert_eq!(hours.finished(hours.end_s), hours);
    assert_eq!(hours.finished(7300), hours);
    assert_eq!(plan().finished(659), plan());
}

#[test]
fn rows_are_by_names_and_addresses_and_loopback_is_of_one_host() {
    let host = SummaryHost {
        name: "web".into(),
        id: "id-web".into(),
    };
    let names = EndpointNames {
        name: "public".into(),
        upstream: "api".into(),
        backend: "api-1".into(),
    };
    let of = |by: By, address: &str| {
        let id = EndpointId {
            role: by.role().into(),
            target: "/t".into(),
            address: address.into(),
        };
        let key = by.key(&host, &id, &names);
        let host = key.host.map_or("", |_| "host");
        [
            host.to_owned(),
            key.upstream,
            key.backend,
            key.name,
            key.endpoint,
        ]
    };
    let remote = "10.0.0.1:80";
    assert_eq!(of(By::Upstream, remote), ["", "api", "", "", ""]);
    assert_eq!(of(By::Backend, remote), ["", "api", "api-1", "", remote]);
    assert_eq!(
        of(By::Listener, "[::]:443"),
        ["", "", "", "public", "[::]:443"]
    );
    assert_eq!(of(By::Host, remote), ["host", "", "", "", ""]);
    for local in [
        "127.0.0.1:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "\u{1b}",
    ] {
        assert_eq!(of(By::Backend, local)[0], "host", "{local}");
    }
}
