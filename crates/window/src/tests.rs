use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    http::{Method, code_index},
};
use monitor_proto::{REPORT_BYTES_MAX, REPORT_ENDPOINTS_MAX};
use proptest::prelude::*;
use prost::Message;

use super::*;
use kernel_sample::{
    EndpointAddress, EndpointId, EndpointSample, EndpointSnapshot, LiveSocket, SocketSample,
};

const SECOND: u64 = 1_000_000_000;
const SINCE: u64 = 1_763_860_000 * SECOND;

fn at(seconds: u64) -> Instant {
    Instant {
        unix_ns: SINCE + seconds * SECOND,
        boot_ns: (100 + seconds) * SECOND,
    }
}

fn environment(seconds: u64) -> Environment {
    let target = TargetReading {
        names: ContainerNames::default(),
        label: Arc::from("/web"),
        cgroup_id: 7,
        process: "nginx".to_owned(),
        usage: CgroupUsage {
            cpu_usage_us: Some(seconds * 1_000),
            ..CgroupUsage::default()
        },
    };
    Environment {
        at: at(seconds),
        targets: vec![target],
        ..Environment::default()
    }
}

fn endpoint(port: u16, role: Role, counters: EndpointCounters) -> EndpointSample {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    EndpointSample {
        id: EndpointId {
            target: Arc::from("/web"),
            role,
            address: EndpointAddress::Socket(address),
        },
        counters: Box::new(counters),
        since_unix_ns: SINCE,
    }
}

fn counted(opened: u64, requests: u64) -> EndpointCounters {
    let mut c = EndpointCounters {
        connections_opened: opened,
        bytes_received: requests * 40,
        ..EndpointCounters::ZERO
    };
    c.requests[Method::Get as usize] = requests;
    c.responses[code_index(200).unwrap()] = requests;
    c.exchange.buckets[20] = requests;
    c
}

fn reading(seconds: u64, endpoints: Vec<EndpointSample>) -> Observation {
    Observation {
        environment: environment(seconds),
        kernel: KernelSample {
            endpoints,
            losses: vec![("endpoint_map_full", 0)],
            since_unix_ns: SINCE,
            ..KernelSample::default()
        },
        level: Level::Http,
        names: Arc::default(),
        notes: Vec::new(),
        incomplete_reasons: BTreeSet::new(),
    }
}

fn host() -> v1::Host {
    v1::Host {
        id: "h".to_owned(),
        boot_id: "b".to_owned(),
        ..v1::Host::default()
    }
}

fn windows(seconds: u64, baseline: Option<Baseline>) -> Windows {
    Windows::new(host(), baseline, environment(seconds))
}

fn key(sequence: u64) -> ReportKey {
    ReportKey { epoch: 1, sequence }
}

fn restart(closed: &Closed) -> Option<Baseline> {
    Baseline::decode(&closed.baseline.encode())
}

#[test]
fn the_first_window_begins_when_counting_began_and_holds_everything() {
    let windows = windows(0, None);
    let closed = windows.close(
        key(1),
        reading(5, vec![endpoint(80, Role::Downstream, counted(3, 7))]),
        &[],
    );
    let report = &closed.report;
    assert_eq!(report.window_start_unix_ns, SINCE);
    assert_eq!(report.window_end_unix_ns, at(5).unix_ns);
    assert_eq!(report.window_duration_ns, 5 * SECOND);
    assert_eq!((report.complete, report.sequence), (true, 1));
    let e = &report.endpoints[0];
    assert_eq!(e.window, e.totals);
    assert_eq!((e.connections_active, e.totals_since_unix_ns), (3, SINCE));
    let target = &report.targets[0];
    assert_eq!(target.cpu_usage_us, 5_000);
    let total = target.cpu_usage_us_total;
    assert!(total.is_some_and(|total| total >= 5_000));
    assert_eq!(target.throttled_us_total, None, "without its controller");
}

#[test]
fn a_difference_that_was_not_measured_is_absent_and_one_that_was_is_told() {
    let windows = windows(0, None);
    let difference = |measured| {
        let mut reading = reading(5, vec![]);
        reading.kernel.connection_difference = measured;
        let report = windows.close(key(1), reading, &[]).report;
        let told = report.reconciliation.unwrap().connection_difference;
        (told, report.complete)
    };
    assert_eq!(difference(None), (None, true));
    assert_eq!(difference(Some(0)), (Some(0), true));
    assert_eq!(difference(Some(2)), (Some(2), false));
    assert_eq!(difference(Some(-1)), (Some(-1), false));
}

#[test]
fn a_window_that_was_not_committed_is_covered_by_the_next() {
    let windows = windows(0, None);
    let first = endpoint(80, Role::Downstream, counted(3, 7));
    drop(windows.close(key(1), reading(5, vec![first]), &[]));
    let second = endpoint(80, Role::Downstream, counted(4, 9));
    let closed = windows.close(key(1), reading(10, vec![second]), &[]);
    let window = closed.report.endpoints[0].window.as_ref().unwrap();
    assert_eq!((window.connections_opened, window.bytes_received), (4, 360));
    assert_eq!(closed.report.window_duration_ns, 10 * SECOND);
}

#[test]
fn time_without_an_agent_belongs_to_the_next_window_and_is_told() {
    let before = windows(0, None);
    let closed = before.close(
        key(1),
        reading(5, vec![endpoint(80, Role::Downstream, counted(3, 7))]),
        &[],
    );
    let after = windows(60, restart(&closed));
    let endpoints = vec![endpoint(80, Role::Downstream, counted(5, 107))];
    let report = after.close(key(2), reading(65, endpoints), &[]).report;
    assert_eq!(report.window_start_unix_ns, at(5).unix_ns);
    assert_eq!(report.window_duration_ns, 60 * SECOND);
    let window = report.endpoints[0].window.as_ref().unwrap();
    assert_eq!(window.http.as_ref().unwrap().requests, 100);
    assert!(!report.complete);
    let reasons = ["gauges were not sampled while no agent ran"];
    assert_eq!(report.incomplete_reasons, reasons);
}

#[test]
fn counters_that_began_anew_begin_a_window_of_their_own() {
    let before = windows(0, None);
    let old = vec![
        endpoint(80, Role::Downstream, counted(9, 9)),
        endpoint(81, Role::Downstream, counted(1, 1)),
    ];
    let closed = before.close(key(1), reading(5, old), &[]);
    let after = windows(60, restart(&closed));
    let mut new = endpoint(80, Role::Downstream, counted(2, 2));
    new.since_unix_ns = at(50).unix_ns;
    let mut anew = reading(65, vec![new]);
    anew.kernel.since_unix_ns = at(50).unix_ns;
    let report = after.close(key(2), anew, &[]).report;
    assert_eq!(report.window_start_unix_ns, at(50).unix_ns);
    assert_eq!(report.window_duration_ns, 15 * SECOND);
    assert_eq!(report.endpoints.len(), 1, "the old count is over");
    let e = &report.endpoints[0];
    assert_eq!(
        (&e.window, e.totals_since_unix_ns),
        (&e.totals, at(50).unix_ns)
    );
    assert!(!report.complete);
}

#[test]
fn a_retired_endpoint_keeps_its_totals() {
    let mut windows = windows(0, None);
    let endpoints = vec![endpoint(80, Role::Downstream, counted(3, 7))];
    let closed = windows.close(key(1), reading(5, endpoints), &[]);
    let totals = closed.report.endpoints[0].totals.clone();
    windows.commit(closed);
    let report = windows.close(key(2), reading(10, vec![]), &[]).report;
    assert_eq!(report.endpoints[0].totals, totals);
    let window = report.endpoints[0].window.as_ref().unwrap();
    assert_eq!((window.connections_opened, window.bytes_received), (0, 0));
}

/// Its cgroup is gone, another target is read, and then it is there again.
#[test]
fn a_target_that_cannot_be_read_for_a_while_keeps_its_totals() {
    let mut windows = windows(0, None);
    let both = |seconds| {
        let mut other = endpoint(81, Role::Downstream, counted(1, 1));
        other.id.target = Arc::from("/other");
        other.since_unix_ns = at(2).unix_ns;
        let mut both = reading(seconds, vec![endpoint(80, Role::Downstream, counted(3, 7))]);
        let mut target = both.environment.targets[0].clone();
        target.label = Arc::from("/other");
        both.environment.targets.push(target);
        both.kernel.endpoints.push(other);
        both
    };
    windows.commit(windows.close(key(1), both(5), &[]));
    let mut without = both(10);
    without.kernel.endpoints.remove(0);
    without.kernel.since_unix_ns = at(2).unix_ns;
    for (sequence, reading) in [(2, without), (3, both(15))] {
        let closed = windows.close(key(sequence), reading, &[]);
        assert_eq!(closed.report.endpoints.len(), 2);
        for e in &closed.report.endpoints {
            assert_eq!(e.window.as_ref().unwrap().connections_opened, 0);
            assert!(e.totals.as_ref().unwrap().connections_opened > 0);
        }
        windows.commit(closed);
    }
}

#[test]
fn at_level_tcp_http_is_absent_until_something_of_it_is_left_to_report() {
    let mut windows = windows(0, None);
    let mut first = reading(5, vec![endpoint(80, Role::Downstream, counted(1, 0))]);
    first.level = Level::Tcp;
    let closed = windows.close(key(1), first, &[]);
    assert_eq!(
        closed.report.endpoints[0].window.as_ref().unwrap().http,
        None
    );
    windows.commit(closed);
    // Raised to http, two requests, and lowered again within one window.
    let mut second = reading(10, vec![endpoint(80, Role::Downstream, counted(1, 2))]);
    second.level = Level::Tcp;
    let report = windows.close(key(2), second, &[]).report;
    let window = report.endpoints[0].window.as_ref().unwrap();
    assert_eq!(window.http.as_ref().unwrap().requests, 2);
}

#[test]
fn peers_are_called_what_the_proxy_calls_them_and_listeners_are_not() {
    let address = ([127, 0, 0, 1], 80).into();
    let name = proxy_config::Name {
        name: "One".to_owned(),
        upstream: "default".to_owned(),
        backend: "b1".to_owned(),
    };
    let endpoints = [Role::Downstream, Role::Upstream].map(|r| endpoint(80, r, counted(1, 1)));
    let mut closing = reading(5, endpoints.to_vec());
    closing.names = Arc::new(proxy_config::Names::from([(address, name)]).into());
    let closed = windows(0, None).close(key(1), closing, &[]);
    let [listener, peer] = &closed.report.endpoints[..] else {
        panic!("two endpoints")
    };
    assert_eq!(
        (listener.name.as_str(), listener.upstream.as_str()),
        ("", "")
    );
    assert_eq!(
        (peer.name.as_str(), peer.upstream.as_str()),
        ("One", "default")
    );
}

#[test]
fn a_cgroup_that_was_made_again_is_told() {
    let windows = windows(0, None);
    let mut again = reading(5, vec![]);
    again.environment.targets[0].cgroup_id = 8;
    let report = windows.close(key(1), again, &[]).report;
    let reasons = ["the cgroup /web was removed or made again"];
    assert_eq!(report.incomplete_reasons, reasons);
    assert_eq!(
        report.targets[0].cpu_usage_us, 5_000,
        "counted from its own zero"
    );
}

#[test]
fn losses_of_the_kernel_and_of_the_agent_are_windows_and_totals() {
    let mut windows = windows(0, None);
    let lossy = |seconds, kernel, own| {
        let mut r = reading(seconds, vec![]);
        r.kernel.losses = vec![("endpoint_map_full", kernel)];
        r.environment.losses = [("samples_dropped", own)].into();
        r
    };
    let closed = windows.close(key(1), lossy(5, 2, 1), &[]);
    assert_eq!(closed.report.losses["endpoint_map_full"], 2);
    let reasons = ["lost: endpoint_map_full", "lost: samples_dropped"];
    assert_eq!(closed.report.incomplete_reasons, reasons);
    windows.commit(closed);
    let closed = windows.close(key(2), lossy(10, 5, 1), &[]);
    assert_eq!(closed.report.losses["endpoint_map_full"], 3);
    assert_eq!(closed.report.losses["samples_dropped"], 0);
    let restarted = Windows::new(host(), restart(&closed), environment(10));
    let report = restarted.close(key(3), lossy(15, 5, 4), &[]).report;
    assert_eq!(
        report.losses["samples_dropped"], 4,
        "the agent's own count anew"
    );
    assert_eq!(report.losses_totals["samples_dropped"], 5);
    assert_eq!(report.losses_totals["endpoint_map_full"], 5);
}

#[test]
fn what_the_spool_lost_before_the_agent_began_and_nobody_told_is_of_the_first_window() {
    let lossy = |seconds, dropped| {
        let mut r = reading(seconds, vec![]);
        r.environment.spool_losses = [("reports_dropped", dropped)].into();
        r
    };
    let mut start = environment(0);
    start.spool_losses = [("reports_dropped", 2)].into();
    let mut windows = Windows::new(host(), None, start);
    let closed = windows.close(key(1), lossy(5, 5), &[]);
    assert_eq!(closed.report.losses["reports_dropped"], 3);
    assert_eq!(closed.baseline.spool_losses["reports_dropped"], 5);
    windows.commit(closed);
    let closed = windows.close(key(2), lossy(10, 5), &[]);
    assert_eq!(closed.report.losses["reports_dropped"], 0);
}

#[test]
fn a_wall_clock_that_is_set_back_makes_no_window_end_before_it_began() {
    let mut windows = windows(0, None);
    windows.commit(windows.close(key(1), reading(50, vec![]), &[]));
    let mut back = reading(20, vec![]);
    back.environment.at.boot_ns = at(55).boot_ns;
    let report = windows.close(key(2), back, &[]).report;
    assert_eq!(report.window_end_unix_ns, report.window_start_unix_ns);
    assert_eq!(report.window_duration_ns, 5 * SECOND);
}

#[test]
fn after_the_wall_clock_was_set_back_for_good_windows_go_by_its_new_time() {
    const HOURS: u64 = 7_200;
    let mut windows = windows(HOURS, None);
    let counting_since = |mut reading: Observation| {
        reading.kernel.since_unix_ns = at(HOURS).unix_ns;
        reading
    };
    let first = counting_since(reading(HOURS + 50, vec![]));
    windows.commit(windows.close(key(1), first, &[]));
    for n in 1..=3 {
        let mut back = counting_since(reading(5 * n, vec![]));
        back.environment.at.boot_ns = at(HOURS + 50 + 5 * n).boot_ns;
        let closed = windows.close(key(1 + n), back, &[]);
        let report = &closed.report;
        assert_eq!(report.window_start_unix_ns, at(5 * n).unix_ns - 5 * SECOND);
        assert_eq!(report.window_end_unix_ns, at(5 * n).unix_ns);
        assert_eq!(report.window_duration_ns, 5 * SECOND);
        let told = ["the clock was set back".to_owned()];
        let told = if n == 1 { &told[..] } else { &[] };
        assert_eq!(report.incomplete_reasons, told, "window {n}");
        windows.commit(closed);
    }
}

#[test]
fn round_trip_times_have_an_exact_mean_and_a_sampled_range() {
    let earlier = reading(0, vec![endpoint(80, Role::Upstream, counted(1, 1))]).kernel;
    let mut later = earlier.clone();
    later.endpoints[0].counters.srtt_samples = 4;
    later.endpoints[0].counters.srtt_sum_us = 100;
    let snapshots = |sample: &KernelSample| -> Vec<_> {
        let endpoints = sample.endpoints.iter();
        endpoints.map(EndpointSnapshot::from).collect()
    };
    let (before, mut after) = (snapshots(&earlier), snapshots(&later));
    let seen = round_trips(&before, &after);
    assert_eq!(seen, [(later.endpoints[0].id.clone(), 25)]);
    assert!(round_trips(&after, &after).is_empty());
    assert!(saw_traffic(&before, &after) && !saw_traffic(&after, &after));
    // Its place among the others may change.
    let mut other = before[0].clone();
    other.id.role = Role::Downstream;
    after.insert(0, other);
    assert_eq!(round_trips(&before, &after), seen);
    let mut low = seen.clone();
    low[0].1 = 10;
    let sample = |round_trips| Sample {
        round_trips,
        ..Sample::default()
    };
    let closing = reading(5, later.endpoints);
    let closed = windows(0, None).close(key(1), closing, &[sample(seen), sample(low)]);
    let srtt = closed.report.endpoints[0].srtt.unwrap();
    assert_eq!(
        (srtt.samples, srtt.min_us, srtt.mean_us, srtt.max_us),
        (4, 10, 25, 25)
    );
}

#[test]
fn live_sockets_are_among_the_round_trip_times_of_their_window() {
    let mut counters = counted(1, 1);
    counters.srtt_samples = 2;
    counters.srtt_sum_us = 100;
    let seen_by_callbacks = endpoint(80, Role::Upstream, counters);
    let not_seen = endpoint(81, Role::Upstream, counted(1, 1));
    let socket = |of: &EndpointSample, srtt_us, last_ack_recv_ms| SocketSample {
        endpoint: of.id.clone(),
        live: LiveSocket {
            srtt_us,
            last_ack_recv_ms,
            ..sockets::tests::socket(1, 0).live
        },
    };
    let sockets = vec![
        socket(&seen_by_callbacks, 20, 0),
        socket(&seen_by_callbacks, 600, 5_000),
        socket(&not_seen, 30, 4_999),
        // Before the window; and never measured.
        socket(&not_seen, 7, 5_001),
        socket(&not_seen, 0, 0),
    ];
    let mut closing = reading(5, vec![seen_by_callbacks, not_seen]);
    closing.kernel.sockets = sockets;
    let mut windows = windows(0, None);
    windows.commit(windows.close(key(1), reading(0, vec![]), &[]));
    let report = windows.close(key(2), closing, &[]).report;
    let srtt = |port: &str| {
        let mut endpoints = report.endpoints.iter();
        let endpoint = endpoints.find(|e| e.address.ends_with(port)).unwrap();
        let srtt = endpoint.srtt.unwrap();
        (srtt.samples, srtt.min_us, srtt.mean_us, srtt.max_us)
    };
    assert_eq!(srtt(":80"), (4, 20, 180, 600));
    assert_eq!(srtt(":81"), (1, 30, 30, 30));
}

/// More endpoints than a report has room for: every report fits, and after a
/// few of them everything was reported exactly once.
#[test]
fn a_report_never_outgrows_its_bound_and_nothing_is_forgotten() {
    let mut full = EndpointCounters::ZERO;
    full.words_mut().fill(1 << 40);
    let ports = 1..=2_600u16;
    let endpoints: Vec<_> = ports.map(|p| endpoint(p, Role::Upstream, full)).collect();
    let mut windows = windows(0, None);
    let mut sums = HashMap::new();
    for sequence in 1..=8 {
        let closing = reading(5 * sequence, endpoints.clone());
        let closed = windows.close(key(sequence), closing, &[]);
        assert!(closed.report.encoded_len() <= REPORT_BYTES_MAX);
        for e in &closed.report.endpoints {
            let window = e.window.as_ref().unwrap();
            *sums.entry(e.address.clone()).or_insert(0) += window.bytes_sent;
        }
        let settled = closed.report.complete;
        assert_eq!(
            settled,
            sums.values().len() == 2_600 && sequence > 5,
            "{sequence}"
        );
        windows.commit(closed);
    }
    assert_eq!(sums.len(), 2_600);
    assert!(sums.values().all(|&sum| sum == 1 << 40));
}

/// More endpoints than a collector takes in one report, each of them small, as at level tcp.
#[test]
fn a_report_has_no_more_endpoints_than_a_collector_takes() {
    let more = REPORT_ENDPOINTS_MAX as u16 + 1_000;
    let ports = 1..=more;
    let endpoints: Vec<_> = ports
        .map(|p| endpoint(p, Role::Upstream, EndpointCounters::ZERO))
        .collect();
    let mut windows = windows(0, None);
    let mut seen = HashSet::new();
    for sequence in 1..=3 {
        let mut reading = reading(5 * sequence, endpoints.clone());
        reading.level = Level::Tcp;
        let closed = windows.close(key(sequence), reading, &[]);
        assert_eq!(closed.report.endpoints.len(), REPORT_ENDPOINTS_MAX);
        seen.extend(closed.report.endpoints.iter().map(|e| e.address.clone()));
        windows.commit(closed);
    }
    assert_eq!(seen.len(), usize::from(more), "all have their turn");
}

#[derive(Clone, Debug)]
enum Step {
    // Endpoint, word, and how much is counted.
    Count(u16, prop::sample::Index, u64),
    Retire(u16),
    Level(bool),
    Report,
    // The report could not be made durable.
    FailedReport,
    Restart,
    // The pins were removed and made again.
    Anew,
}

fn step() -> impl Strategy<Value = Step> {
    let word = any::<prop::sample::Index>();
    prop_oneof![
        8 => (0u16..5, word, 1u64..1_000_000).prop_map(|(e, w, n)| Step::Count(e, w, n)),
        1 => (0u16..5).prop_map(Step::Retire),
        1 => any::<bool>().prop_map(Step::Level),
        4 => Just(Step::Report),
        1 => Just(Step::FailedReport),
        1 => Just(Step::Restart),
        1 => Just(Step::Anew),
    ]
}

/// What a collector knows of one counting of one endpoint.
#[derive(Debug, Default)]
struct Sums {
    windows: BTreeMap<String, u64>,
    totals: BTreeMap<String, u64>,
}

/// Every number of the counters, by name.
fn numbers(c: &v1::Counters) -> BTreeMap<String, u64> {
    let json = serde_json::to_value(monitor_proto::json::Counters::from(c)).unwrap();
    let mut numbers = BTreeMap::new();
    flatten("", &json, &mut numbers);
    for (name, h) in [
        ("connect", c.connect_duration.as_ref()),
        (
            "exchange",
            c.http.as_ref().and_then(|h| h.exchange_duration.as_ref()),
        ),
        (
            "tls",
            c.http
                .as_ref()
                .and_then(|h| h.tls_handshake_duration.as_ref()),
        ),
    ] {
        for (i, n) in (0i32..).zip(h.map(|h| h.buckets.clone()).unwrap_or_default()) {
            let bucket = h.map_or(0, |h| h.offset) + i;
            numbers.insert(format!("{name}[{bucket}]"), n);
        }
    }
    numbers
}

fn flatten(name: &str, json: &serde_json::Value, numbers: &mut BTreeMap<String, u64>) {
    // Buckets have moving offsets, and quantiles are no counters.
    let derived = ["buckets", "offset", "scale", "p50", "p90", "p99"];
    if derived.iter().any(|d| name.contains(d)) {
        return;
    }
    if let Some(n) = json.as_u64() {
        numbers.insert(name.to_owned(), n);
    }
    for (key, value) in json.as_object().into_iter().flatten() {
        flatten(&format!("{name}.{key}"), value, numbers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens between them: the windows of a counting sum up to its
    /// totals, number by number, and totals never decrease.
    #[test]
    fn windows_sum_up_to_the_totals(steps in prop::collection::vec(step(), 1..80)) {
        let mut kernel: BTreeMap<u16, EndpointCounters> = BTreeMap::new();
        let mut retired: BTreeMap<u16, EndpointCounters> = BTreeMap::new();
        let mut windows = windows(0, None);
        let (mut level, mut since, mut sequence) = (Level::Http, SINCE, 0);
        let mut sums: BTreeMap<(String, u64), Sums> = BTreeMap::new();
        for (seconds, step) in (1u64..).zip(steps) {
            match step {
                Step::Count(e, word, n) => {
                    let back = retired.remove(&e).unwrap_or(EndpointCounters::ZERO);
                    let c = kernel.entry(e).or_insert(back);
                    // At level tcp the programs count nothing of HTTP.
                    let mut next = *c;
                    next.words_mut()[word.index(monitor_common::counters::WORDS)] += n;
                    if level == Level::Http || !wire::has_http(&next.since(c)) {
                        // The sum of a histogram grows with its buckets only.
                        next.exchange.sum_ns = next.exchange.buckets.iter().sum();
                        next.tls_handshake.sum_ns = next.tls_handshake.buckets.iter().sum();
                        *c = next;
                    }
                }
                Step::Retire(e) => {
                    retired.extend(kernel.remove_entry(&e));
                }
                Step::Level(http) => level = if http { Level::Http } else { Level::Tcp },
                Step::Anew => {
                    kernel.clear();
                    retired.clear();
                    since = at(seconds).unix_ns;
                }
                Step::Restart => {
                    let baseline = windows.baseline.as_ref();
                    let baseline = baseline.and_then(|b| Baseline::decode(&b.encode()));
                    windows = Windows::new(host(), baseline, environment(seconds));
                }
                Step::Report | Step::FailedReport => {
                    let endpoints = kernel.iter().map(|(e, c)| {
                        let mut sample = endpoint(*e, Role::Upstream, *c);
                        sample.since_unix_ns = since;
                        sample
                    });
                    let mut closing = reading(seconds, endpoints.collect());
                    closing.level = level;
                    closing.kernel.since_unix_ns = since;
                    let closed = windows.close(key(sequence + 1), closing, &[]);
                    if matches!(step, Step::FailedReport) {
                        continue;
                    }
                    sequence += 1;
                    for e in &closed.report.endpoints {
                        let id = (e.address.clone(), e.totals_since_unix_ns);
                        let sum = sums.entry(id).or_default();
                        for (name, n) in numbers(e.window.as_ref().unwrap()) {
                            *sum.windows.entry(name).or_default() += n;
                        }
                        for (name, n) in numbers(e.totals.as_ref().unwrap()) {
                            let before = sum.totals.insert(name.clone(), n);
                            prop_assert!(before.is_none_or(|b| b <= n), "{} decreased", name);
                        }
                        let not_zero = |numbers: &BTreeMap<String, u64>| {
                            let mut numbers = numbers.clone();
                            numbers.retain(|_, n| *n > 0);
                            numbers
                        };
                        prop_assert_eq!(not_zero(&sum.windows), not_zero(&sum.totals));
                    }
                    windows.commit(closed);
                }
            }
        }
    }
}
