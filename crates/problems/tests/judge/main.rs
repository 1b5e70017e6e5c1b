//! The judgement against made-up hosts: what is wrong shows within three windows and
//! goes when it is mended, and a healthy load, however noisy, shows nothing.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod memory;
mod order;
mod queues;

use fastrand::Rng;
use monitor_proto::v1;
use problems::{HostJudge, Kind, Place, Problem, Severity, Thresholds, silence};

const S: u64 = 1_000_000_000;
const WINDOW_NS: u64 = 5 * S;
const START_NS: u64 = 1_790_000_000 * S;

/// A healthy host under noisy load: a listener, an upstream `app` of six backends, one
/// `api` of three, and a backend without a name.
struct Host {
    rng: Rng,
    windows: u64,
}

impl Host {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            windows: 0,
        }
    }

    /// A duration with the long tail that answers have: half below 8 ms, one in a
    /// hundred above 80.
    fn duration_s(&mut self) -> f64 {
        // Four of them have a variance of a third.
        let normal: f64 = (0..4).map(|_| self.rng.f64()).sum::<f64>() - 2.0;
        0.008 * (normal * 3f64.sqrt()).exp()
    }

    fn durations(&mut self, n: u64, factor: f64) -> v1::Histogram {
        const OFFSET: i32 = -80;
        let mut buckets = vec![0; 160];
        for _ in 0..n {
            let log2 = (self.duration_s() * factor).log2();
            let index = (log2 * 4.0).floor() as i32 - OFFSET;
            buckets[usize::try_from(index).unwrap_or(0).min(159)] += 1;
        }
        let mut histogram = v1::Histogram {
            count: n,
            scale: 2,
            offset: OFFSET,
            buckets,
            ..v1::Histogram::default()
        };
        monitor_proto::histogram::trim(&mut histogram);
        histogram
    }

    fn endpoint(&mut self, role: v1::Role, address: &str, requests: u64) -> v1::Endpoint {
        let share = |rng: &mut Rng, of: u64, max: f64| (of as f64 * max * rng.f64()) as u64;
        let errors = share(&mut self.rng, requests, 0.01);
        let packets_sent = requests * 3;
        let opened = requests / 40;
        v1::Endpoint {
            role: role.into(),
            address: address.to_owned(),
            target: "/proxy".to_owned(),
            window: Some(v1::Counters {
                connections_opened: opened,
                connections_established: opened,
                connections_closed: opened,
                packets_sent,
                retransmits: share(&mut self.rng, packets_sent, 0.015),
                http: Some(v1::HttpCounters {
                    requests,
                    requests_without_response: share(&mut self.rng, requests, 0.01),
                    responses_by_code: [
                        ("200".to_owned(), requests - errors),
                        ("502".to_owned(), errors),
                        ("100".to_owned(), requests / 50),
                    ]
                    .into(),
                    exchange_duration: Some(self.durations(requests, 1.0)),
                    ..v1::HttpCounters::default()
                }),
                ..v1::Counters::default()
            }),
            srtt: Some(v1::RoundTripTime {
                samples: 30,
                mean_us: self.rng.u64(300..1200),
                ..v1::RoundTripTime::default()
            }),
            ..v1::Endpoint::default()
        }
    }

    fn report(&mut self) -> v1::Report {
        // Load goes up and down, and now and then there is hardly any.
        let base = match self.rng.u32(0..40) {
            0 => 0,
            1 => 4,
            _ => self.rng.u64(60..300),
        };
        let around = |rng: &mut Rng| (base as f64 * (0.5 + rng.f64())) as u64;
        let mut endpoints = Vec::new();
        let requests = around(&mut self.rng) * 9;
        let mut listener = self.endpoint(v1::Role::Downstream, "10.0.0.1:80", requests.min(900));
        listener.name = "www".to_owned();
        listener.accept_queue = Some(v1::AcceptQueue {
            listener: "0.0.0.0:80".to_owned(),
            connections_max: self.windows * 37 % 60,
            limit: 100,
            ..v1::AcceptQueue::default()
        });
        endpoints.push(listener);
        for (upstream, backends) in [("app", 6), ("static", 3), ("", 1)] {
            for n in 0..backends {
                let address = format!("10.0.{}.{n}:8080", upstream.len());
                let requests = around(&mut self.rng);
                let mut backend = self.endpoint(v1::Role::Upstream, &address, requests);
                if !upstream.is_empty() {
                    backend.upstream = upstream.to_owned();
                    backend.backend = format!("b{n}");
                }
                endpoints.push(backend);
            }
        }
        let gauge = |value: f64| {
            Some(v1::Gauge {
                last: value,
                min: value,
                mean: value,
                max: value,
            })
        };
        let pressure = |resource: &str, percent: f64| v1::Pressure {
            resource: resource.to_owned(),
            some_avg10: percent,
            full_avg10: percent / 2.0,
            ..v1::Pressure::default()
        };
        // Every tenth window one of these is far up.
        let mut noisy = |usual: f64, peak: f64| match self.rng.u32(0..10) {
            0 => peak,
            _ => usual * self.rng.f64(),
        };
        let metrics = v1::HostMetrics {
            cpu_usage: gauge(noisy(80.0, 91.0)),
            memory_usage: gauge(noisy(70.0, 90.0)),
            disk_usage: gauge(60.0),
            pressure: vec![
                pressure("cpu", noisy(30.0, 60.0)),
                pressure("memory", noisy(5.0, 12.0)),
                pressure("io", noisy(30.0, 70.0)),
            ],
            ..v1::HostMetrics::default()
        };
        let start = START_NS + self.windows * WINDOW_NS;
        self.windows += 1;
        v1::Report {
            host: Some(v1::Host {
                id: "id".to_owned(),
                name: "web".to_owned(),
                cores: 4,
                ..v1::Host::default()
            }),
            sequence: self.windows,
            window_start_unix_ns: start,
            window_end_unix_ns: start + WINDOW_NS,
            window_duration_ns: WINDOW_NS,
            complete: true,
            host_metrics: Some(metrics),
            endpoints,
            targets: vec![v1::Target {
                path: "/proxy".to_owned(),
                throttled_us: self.rng.u64(0..200_000),
                ..v1::Target::default()
            }],
            network_namespaces: vec![v1::NetworkNamespace {
                id: 4_026_531_840,
                listen_overflows: self.rng.u64(0..3),
                ..v1::NetworkNamespace::default()
            }],
            ..v1::Report::default()
        }
    }
}

/// A host that is judged as its reports come.
struct Watched {
    host: Host,
    judge: HostJudge,
    thresholds: Thresholds,
}

impl Watched {
    fn new(seed: u64) -> Self {
        Self {
            host: Host::new(seed),
            judge: HostJudge::default(),
            thresholds: Thresholds::default(),
        }
    }

    fn next(&mut self, change: impl FnOnce(&mut Host, &mut v1::Report)) -> Vec<Problem> {
        let mut report = self.host.report();
        change(&mut self.host, &mut report);
        let received = report.window_end_unix_ns + S / 10;
        self.judge
            .observe(&report, Some(received), &self.thresholds);
        self.judge.problems()
    }
}

fn kinds(problems: &[Problem]) -> Vec<&str> {
    problems
        .iter()
        .map(|problem| problem.kind.as_str())
        .collect()
}

/// The backend that faults are injected at.
const FAULTY: &str = "10.0.3.1:8080";

fn faulty(report: &mut v1::Report) -> &mut v1::Counters {
    let mut endpoints = report.endpoints.iter_mut();
    let endpoint = endpoints
        .find(|e| e.address == FAULTY && e.upstream == "app")
        .unwrap();
    endpoint.window.as_mut().unwrap()
}

fn http(counters: &mut v1::Counters) -> &mut v1::HttpCounters {
    counters.http.as_mut().unwrap()
}

fn metrics(report: &mut v1::Report) -> &mut v1::HostMetrics {
    report.host_metrics.as_mut().unwrap()
}

fn full(report: &mut v1::Report, resource: &str) {
    for pressure in &mut metrics(report).pressure {
        if pressure.resource == resource {
            (pressure.some_avg10, pressure.full_avg10) = (95.0, 90.0);
        }
    }
}

type Inject = fn(&mut Host, &mut v1::Report);

/// Of each kind that windows tell: what happens, where, and words of the sentence.
const CASES: &[(Kind, Place, Severity, &str, Inject)] = &[
    (
        Kind::ConnectFailures,
        Place::Backend,
        Severity::Critical,
        "backend app/b1 (10.0.3.1:8080) refuses connections",
        |_, report| {
            *faulty(report) = v1::Counters {
                connections_opened: 4,
                connections_failed: Some(v1::ConnectionsFailed {
                    refused: 4,
                    ..v1::ConnectionsFailed::default()
                }),
                ..v1::Counters::default()
            };
        },
    ),
    (
        Kind::ConnectFailures,
        Place::Backend,
        Severity::Warning,
        "20 % of the connections to backend app/b1 (10.0.3.1:8080) fail (timeout)",
        |_, report| {
            let counters = faulty(report);
            counters.connections_established = 40;
            counters.connections_failed = Some(v1::ConnectionsFailed {
                timeout: 10,
                ..v1::ConnectionsFailed::default()
            });
        },
    ),
    (
        Kind::ServerErrors,
        Place::Backend,
        Severity::Critical,
        "backend app/b1 (10.0.3.1:8080) answers 47 % with 5xx",
        |_, report| {
            let answers = [("200".to_owned(), 53), ("503".to_owned(), 47)];
            http(faulty(report)).responses_by_code = answers.into();
        },
    ),
    (
        Kind::ServerErrors,
        Place::Listener,
        Severity::Warning,
        "listener www (10.0.0.1:80) answers 20 % with 5xx",
        |_, report| {
            let answers = [("200".to_owned(), 800), ("500".to_owned(), 200)];
            let listener = report.endpoints[0].window.as_mut().unwrap();
            http(listener).responses_by_code = answers.into();
        },
    ),
    (
        Kind::UnansweredRequests,
        Place::Backend,
        Severity::Warning,
        "leaves 20 % of the requests unanswered",
        |_, report| {
            let http = http(faulty(report));
            (http.requests, http.requests_without_response) = (50, 10);
        },
    ),
    (
        Kind::TlsHandshakes,
        Place::Backend,
        Severity::Critical,
        "60 % of the TLS handshakes with backend app/b1 (10.0.3.1:8080) fail, mostly by an alert",
        |_, report| {
            let http = http(faulty(report));
            http.tls_handshakes_completed = Some(40);
            http.tls_handshakes_failed_alert = Some(50);
            http.tls_handshakes_failed_end = Some(10);
        },
    ),
    (
        Kind::TlsHandshakes,
        Place::Listener,
        Severity::Warning,
        "25 % of the TLS handshakes with listener www (10.0.0.1:80) fail, mostly as the connection ends",
        |_, report| {
            let http = http(report.endpoints[0].window.as_mut().unwrap());
            http.tls_handshakes_completed = Some(30);
            http.tls_handshakes_failed_end = Some(10);
        },
    ),
    (
        Kind::ListenOverflow,
        Place::Host,
        Severity::Critical,
        "the accept queue of a listener on web overflows: 12 connections",
        |_, report| report.network_namespaces[0].listen_overflows = 12,
    ),
    (
        Kind::SlowBackend,
        Place::Backend,
        Severity::Warning,
        "backend app/b1 (10.0.3.1:8080) takes",
        |host, report| {
            // Every backend has traffic: there is something to compare with.
            for endpoint in &mut report.endpoints {
                let is_slow = endpoint.address == FAULTY && endpoint.upstream == "app";
                let factor = if is_slow { 8.0 } else { 1.0 };
                let counters = endpoint.window.as_mut().unwrap();
                http(counters).exchange_duration = Some(host.durations(100, factor));
            }
        },
    ),
    (
        Kind::SlowRoundTrip,
        Place::Backend,
        Severity::Warning,
        "the network to backend app/b1 (10.0.3.1:8080) takes",
        |_, report| {
            let mut endpoints = report.endpoints.iter_mut();
            let endpoint = endpoints.find(|e| e.address == FAULTY && e.upstream == "app");
            endpoint.unwrap().srtt.as_mut().unwrap().mean_us = 40_000;
        },
    ),
    (
        Kind::Retransmits,
        Place::Backend,
        Severity::Warning,
        "10 % of the segments sent at backend app/b1",
        |_, report| {
            let counters = faulty(report);
            (counters.packets_sent, counters.retransmits) = (1000, 100);
        },
    ),
    (
        Kind::CpuThrottled,
        Place::Host,
        Severity::Critical,
        "/proxy on web is kept from running 60 % of the time by its CPU limit",
        |_, report| report.targets[0].throttled_us = 3_000_000,
    ),
    (
        Kind::CpuSaturated,
        Place::Host,
        Severity::Warning,
        "the CPUs are 99 % busy on web",
        |_, report| metrics(report).cpu_usage.as_mut().unwrap().mean = 99.0,
    ),
    (
        Kind::CpuPressure,
        Place::Host,
        Severity::Warning,
        "95 % of the time on web",
        |_, report| {
            full(report, "cpu");
        },
    ),
    (
        Kind::MemoryFull,
        Place::Host,
        Severity::Critical,
        "the memory is 99 % used on web",
        |_, report| metrics(report).memory_usage.as_mut().unwrap().last = 99.0,
    ),
    (
        Kind::MemoryPressure,
        Place::Host,
        Severity::Critical,
        "all tasks wait for memory 90 % of the time on web",
        |_, report| full(report, "memory"),
    ),
    (
        Kind::IoPressure,
        Place::Host,
        Severity::Warning,
        "all tasks wait for a disk 90 % of the time on web",
        |_, report| full(report, "io"),
    ),
    (
        Kind::DiskFull,
        Place::Host,
        Severity::Warning,
        "the root filesystem is 95 % used on web",
        |_, report| metrics(report).disk_usage.as_mut().unwrap().last = 95.0,
    ),
    (
        Kind::AgentLossy,
        Place::Host,
        Severity::Warning,
        "the agent on web cannot count everything (samples_dropped)",
        |_, report| report.losses = [("samples_dropped".to_owned(), 3)].into(),
    ),
    (
        Kind::AgentIncomplete,
        Place::Host,
        Severity::Warning,
        "reports of web are incomplete",
        |_, report| {
            report.complete = false;
            report.incomplete_reasons = vec!["a gap".to_owned()];
        },
    ),
    (
        Kind::ClockOff,
        Place::Host,
        Severity::Warning,
        "the clock of web is 60.0 s ahead of the collector's",
        |_, report| {
            // Of the collector's time, which `next` makes of it, it is the window that moves.
            report.window_end_unix_ns += 60 * S;
        },
    ),
    (
        Kind::AgentNotes,
        Place::Host,
        Severity::Info,
        "the agent on web has something to say",
        |_, report| report.notes = vec!["names file /etc/nginx/nginx.conf: gone".to_owned()],
    ),
    (
        Kind::Imbalance,
        Place::Backend,
        Severity::Info,
        "backend app/b1 (10.0.3.1:8080) gets 10 times as much as its siblings",
        |_, report| {
            for endpoint in &mut report.endpoints {
                let is_busy = endpoint.address == FAULTY && endpoint.upstream == "app";
                let http = http(endpoint.window.as_mut().unwrap());
                http.requests = if is_busy { 1000 } else { 100 };
            }
        },
    ),
    (
        Kind::ConnectionChurn,
        Place::Backend,
        Severity::Info,
        "gets 100 new connections a second for 1.0 requests each",
        |_, report| {
            let counters = faulty(report);
            counters.connections_opened = 500;
            counters.connections_established = 500;
            http(counters).requests = 500;
        },
    ),
    (
        Kind::Resets,
        Place::Backend,
        Severity::Critical,
        "backend app/b1 (10.0.3.1:8080) resets the connection of 40 % of the requests",
        |_, report| {
            let http = http(faulty(report));
            (http.requests, http.requests_without_response) = (50, 10);
            http.closed_before_response_reset_received = Some(10);
            http.closed_within_response_reset_received = Some(10);
        },
    ),
    (
        Kind::AcceptQueueOverflow,
        Place::Listener,
        Severity::Critical,
        "the accept queue of listener www (10.0.0.1:80) overflows: 12 packets of new connections dropped",
        |_, report| {
            report.network_namespaces[0].listen_overflows = 12;
            let queue = queue(report);
            (queue.connections_max, queue.drops) = (101, 12);
        },
    ),
    (
        Kind::AcceptQueueFilling,
        Place::Listener,
        Severity::Warning,
        "the accept queue of listener www (10.0.0.1:80) is 90 % full: 90 of 100 connections wait",
        |_, report| queue(report).connections_max = 90,
    ),
];

fn queue(report: &mut v1::Report) -> &mut v1::AcceptQueue {
    report.endpoints[0].accept_queue.as_mut().unwrap()
}

#[test]
fn every_kind_has_a_case_and_shows_within_three_windows_and_goes_when_mended() {
    for kind in Kind::ALL {
        let is_told = CASES.iter().any(|(of, ..)| *of == kind);
        assert!(is_told || kind == Kind::AgentSilent, "{kind} has no case");
    }
    for (kind, place, severity, words, inject) in CASES {
        for seed in 0..4 {
            let mut watched = Watched::new(seed);
            // The host's own load must not stop when something happens.
            for _ in 0..10 {
                assert_eq!(kinds(&watched.next(|_, _| ())), <[&str; 0]>::default());
            }
            let begun_ns = START_NS + watched.host.windows * WINDOW_NS;
            let change = |host: &mut Host, report: &mut v1::Report| inject(host, report);
            let received = |watched: &mut Watched| {
                let mut report = watched.host.report();
                let end_ns = report.window_end_unix_ns;
                change(&mut watched.host, &mut report);
                watched
                    .judge
                    .observe(&report, Some(end_ns), &watched.thresholds);
                watched.judge.problems()
            };
            let mut problems = Vec::new();
            for _ in 0..3 {
                problems = received(&mut watched);
            }
            assert_eq!(kinds(&problems), [kind.name()], "seed {seed}");
            let problem = &problems[0];
            assert!(problem.summary.contains(words), "{}", problem.summary);
            assert_eq!(
                (problem.subject.place, problem.severity),
                (*place, *severity),
                "{kind}"
            );
            assert_eq!(problem.subject.host, "web");
            assert!(!problem.evidence.is_empty() && !problem.next.is_empty());
            let since: u64 = ns(&problem.since);
            assert!(
                since <= begun_ns + 2 * WINDOW_NS,
                "{kind}: {since} {begun_ns}"
            );
            assert!(
                since + 2 * WINDOW_NS >= begun_ns,
                "{kind}: {since} {begun_ns}"
            );
            // Mended, with traffic that shows it.
            for _ in 0..6 {
                problems = watched.next(|host, report| {
                    let shown_by_even_traffic =
                        [Kind::SlowBackend, Kind::Imbalance, Kind::TlsHandshakes];
                    if shown_by_even_traffic.contains(kind) {
                        even(host, report);
                    }
                });
            }
            assert_eq!(
                kinds(&problems),
                <[&str; 0]>::default(),
                "{kind}, seed {seed}"
            );
        }
    }
}

fn ns(rfc3339: &str) -> u64 {
    let time: jiff::Timestamp = rfc3339.parse().unwrap();
    u64::try_from(time.as_nanosecond()).unwrap()
}

/// The same traffic at every backend.
fn even(host: &mut Host, report: &mut v1::Report) {
    for endpoint in &mut report.endpoints {
        let http = http(endpoint.window.as_mut().unwrap());
        http.requests = 300;
        http.requests_without_response = 0;
        http.exchange_duration = Some(host.durations(100, 1.0));
        http.tls_handshakes_completed = Some(40);
        (
            http.tls_handshakes_failed_alert,
            http.tls_handshakes_failed_end,
        ) = (Some(0), Some(0));
    }
}

#[test]
fn a_healthy_hour_shows_nothing() {
    for seed in 100..108 {
        let mut watched = Watched::new(seed);
        for window in 0..720 {
            let problems = watched.next(|_, _| ());
            assert!(
                problems.is_empty(),
                "seed {seed}, window {window}: {problems:#?}"
            );
        }
    }
}

#[test]
fn one_bad_window_is_none_of_what_takes_two() {
    for (kind, _, _, _, inject) in CASES {
        if kind.definition().open_after == 1 {
            continue;
        }
        let mut watched = Watched::new(7);
        for window in 0..40 {
            let problems = watched.next(|host, report| match window {
                20 => inject(host, report),
                // What a single window leaves in the sum of three is no second sign.
                _ => even(host, report),
            });
            assert!(
                problems.is_empty(),
                "{kind}, window {window}: {problems:#?}"
            );
        }
    }
}

#[test]
fn what_nobody_tries_is_neither_mended_nor_told_for_ever() {
    let mut watched = Watched::new(1);
    let (_, _, _, _, refuse) = CASES[0];
    let silent = |_: &mut Host, report: &mut v1::Report| *faulty(report) = v1::Counters::default();
    for _ in 0..3 {
        watched.next(refuse);
    }
    for window in 0..problems::FORGET_AFTER + 3 {
        let problems = watched.next(silent);
        let is_told = window < problems::FORGET_AFTER;
        if is_told {
            assert_eq!(kinds(&problems), ["connect_failures"], "window {window}");
        }
    }
    assert_eq!(watched.next(silent), []);
    // One attempt in a minute keeps it, where it fails.
    for _ in 0..3 {
        watched.next(refuse);
    }
    for window in 0..240 {
        let problems = watched.next(|_, report| {
            *faulty(report) = v1::Counters::default();
            if window % 12 == 0 {
                faulty(report).connections_failed = Some(v1::ConnectionsFailed {
                    refused: 1,
                    ..v1::ConnectionsFailed::default()
                });
            }
        });
        assert_eq!(kinds(&problems), ["connect_failures"], "window {window}");
    }
}

/// Two resets in every other window are too few to be told themselves.
#[test]
fn resets_that_are_not_told_leave_requests_unanswered() {
    let mut watched = Watched::new(1);
    let mut problems = Vec::new();
    for window in 0..6 {
        problems = watched.next(|_, report| {
            let http = http(faulty(report));
            (http.requests, http.requests_without_response) = (20, 4);
            http.closed_before_response_reset_received = Some(2 * (window % 2));
        });
    }
    assert_eq!(kinds(&problems), ["unanswered_requests"]);
}

#[test]
fn a_listeners_errors_are_those_of_its_backends() {
    let mut watched = Watched::new(1);
    let mut problems = Vec::new();
    for _ in 0..6 {
        problems = watched.next(|_, report| {
            let answers = [("200".to_owned(), 500), ("503".to_owned(), 500)];
            http(faulty(report)).responses_by_code = answers.into();
            let listener = report.endpoints[0].window.as_mut().unwrap();
            let answers = [("200".to_owned(), 400), ("503".to_owned(), 500)];
            http(listener).responses_by_code = answers.into();
        });
    }
    assert_eq!(kinds(&problems), ["server_errors"]);
    assert_eq!(problems[0].subject.endpoint, FAULTY);
}

/// Two errors of ten are chance, three of fifteen are a fifth of all.
#[test]
fn little_traffic_is_judged_by_all_that_is_kept() {
    let mut watched = Watched::new(1);
    let mut problems = Vec::new();
    for _ in 0..4 {
        problems = watched.next(|_, report| {
            let http = http(faulty(report));
            (http.requests, http.requests_without_response) = (5, 0);
            http.responses_by_code = [("200".to_owned(), 4), ("503".to_owned(), 1)].into();
        });
    }
    assert_eq!(kinds(&problems), ["server_errors"]);
}

#[test]
fn a_replayed_spool_is_no_wrong_clock() {
    let mut judge = HostJudge::default();
    let mut host = Host::new(3);
    let received_ns = START_NS + 3600 * S;
    for n in 0..100 {
        let report = host.report();
        judge.observe(
            &report,
            Some(received_ns + n * S / 100),
            &Thresholds::default(),
        );
        assert_eq!(judge.problems(), []);
    }
}

#[test]
fn a_kind_that_is_off_or_set_higher_is_not_told() {
    for set in ["connect_failures=off", "connect_failures=101%"] {
        let mut watched = Watched::new(1);
        watched.thresholds = Thresholds::try_new(&[set]).unwrap();
        for _ in 0..10 {
            assert_eq!(watched.next(CASES[0].4), [], "{set}");
        }
    }
}

#[test]
fn a_host_that_does_not_report_is_late_and_then_silent() {
    let mut host = v1::HostSummary {
        host: Some(v1::Host {
            name: "web".to_owned(),
            ..v1::Host::default()
        }),
        last_window_duration_ns: WINDOW_NS,
        last_seen_unix_ns: START_NS,
        ..v1::HostSummary::default()
    };
    let thresholds = Thresholds::default();
    for (age_s, severity) in [
        (14, None),
        (15, Some(Severity::Warning)),
        (59, Some(Severity::Warning)),
        (60, Some(Severity::Critical)),
    ] {
        host.age_ns = age_s * S;
        let problem = silence(&host, &thresholds);
        assert_eq!(problem.as_ref().map(|p| p.severity), severity, "{age_s}");
        if let Some(problem) = problem {
            assert_eq!(ns(&problem.since), START_NS);
            assert!(
                problem.summary.starts_with("no report of web for"),
                "{}",
                problem.summary
            );
        }
    }
    assert_eq!(
        silence(&host, &Thresholds::try_new(&["agent_silent=off"]).unwrap()),
        None
    );
}
