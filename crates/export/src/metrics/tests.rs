//! The whole text, from a report.

use std::{collections::HashMap, sync::Arc};

use monitor_proto::v1;

use super::{CHUNK_BYTES, HostSample, ReportSeries};

fn sample(up: bool) -> HostSample {
    let totals = v1::Counters {
        connections_opened: 12,
        bytes_sent: u64::MAX,
        http: Some(v1::HttpCounters {
            requests: 5,
            requests_by_method: [("GET".to_owned(), 3)].into(),
            responses_by_code: [("200".to_owned(), 4), ("2XX".to_owned(), 1)].into(),
            exchange_duration: Some(v1::Histogram {
                count: 4,
                sum_ns: 3_000_000,
                scale: 2,
                // Ends at 2^-10 s after its first bucket.
                offset: -41,
                buckets: vec![1, 2, 0, 0, 1],
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    HostSample::new(
        v1::Report {
            host: Some(v1::Host {
                id: "id-1".into(),
                name: "web".into(),
                kernel: "6.18".into(),
                labels: [("a.b".into(), "\"1\"".into())].into(),
                ..Default::default()
            }),
            agent: Some(v1::Agent {
                version: "0.1.0".into(),
                ..Default::default()
            }),
            host_metrics: Some(v1::HostMetrics {
                cpu_usage: Some(v1::Gauge {
                    last: 50.0,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            endpoints: vec![v1::Endpoint {
                role: v1::Role::Downstream.into(),
                address: "127.0.0.1:8080".into(),
                target: "/p".into(),
                connections_active: 2,
                totals: Some(totals),
                ..Default::default()
            }],
            targets: vec![v1::Target {
                path: "/p".into(),
                unit: "p.service".into(),
                container_name: "web".into(),
                ..Default::default()
            }],
            notes: vec!["names: cannot read /etc/nginx/nginx.conf".into()],
            losses_totals: [("samples_dropped".to_owned(), 3)].into(),
            ..Default::default()
        },
        v1::HostSummary::default(),
        up,
    )
}

fn chunks(samples: impl IntoIterator<Item = HostSample>) -> impl Iterator<Item = String> {
    let series = samples
        .into_iter()
        .map(|one| Arc::new(ReportSeries::of(&one)));
    super::chunks(series.collect())
}

fn series(up: bool) -> HashMap<String, String> {
    of(|| sample(up))
}

fn of(sample: impl Fn() -> HostSample) -> HashMap<String, String> {
    let text: String = chunks([sample()]).collect();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn labels_of_a_host_are_on_a_series_of_their_own() {
    let name = "speedmimi_host_info{host=\"web\",host_id=\"id-1\",kernel=\"6.18\",version=\"0.1.0\",\
                label_a_b=\"\\\"1\\\"\"}";
    let all = series(true);
    assert_eq!(all[name], "1");
    let others = all.keys().filter(|name| name.contains("label_"));
    assert_eq!(others.count(), 1);
}

#[test]
fn targets_say_what_they_are_as_far_as_it_is_known() {
    let name = "speedmimi_target_info{host=\"web\",host_id=\"id-1\",target=\"/p\",unit=\"p.service\",\
                container_name=\"web\"}";
    assert_eq!(series(true)[name], "1");
}

#[test]
fn notes_are_counted() {
    let name = "speedmimi_host_report_notes{host=\"web\",host_id=\"id-1\"}";
    assert_eq!(series(true)[name], "1");
}

const ENDPOINT: &str =
    "host=\"web\",host_id=\"id-1\",target=\"/p\",role=\"downstream\",endpoint=\"127.0.0.1:8080\"";

#[test]
fn totals_are_exact_counters() {
    let all = series(true);
    let get = |name: &str, more: &str| all[&format!("{name}{{{ENDPOINT}{more}}}")].clone();
    assert_eq!(get("speedmimi_connections_opened_total", ""), "12");
    assert_eq!(
        get("speedmimi_bytes_sent_total", ""),
        "18446744073709551615"
    );
    assert_eq!(get("speedmimi_requests_total", ",method=\"GET\""), "3");
    assert_eq!(get("speedmimi_requests_total", ",method=\"_OTHER\""), "2");
    assert_eq!(get("speedmimi_responses_total", ",code_class=\"2xx\""), "5");
    assert_eq!(
        get("speedmimi_connections_failed_total", ",reason=\"refused\""),
        "0"
    );
    let losses = "speedmimi_losses_total{host=\"web\",host_id=\"id-1\",reason=\"samples_dropped\"}";
    assert_eq!(all[losses], "3");
}

#[test]
fn histograms_are_cumulative_and_keep_every_value() {
    let all = series(true);
    let bucket = |le: &str| {
        let name = "speedmimi_exchange_duration_seconds_bucket";
        all[&format!("{name}{{{ENDPOINT},le=\"{le}\"}}")].clone()
    };
    assert_eq!(bucket("0.00048828125"), "0");
    assert_eq!(bucket("0.0009765625"), "1");
    assert_eq!(bucket("0.001953125"), "4");
    assert_eq!(bucket("+Inf"), "4");
    assert_eq!(
        all[&format!("speedmimi_exchange_duration_seconds_sum{{{ENDPOINT}}}")],
        "0.003"
    );
}

#[test]
fn a_silent_host_has_counters_and_no_gauges() {
    let (up, silent) = (series(true), series(false));
    let cpu = "speedmimi_host_cpu_usage_ratio{host=\"web\",host_id=\"id-1\"}";
    let active = format!("speedmimi_connections_active{{{ENDPOINT}}}");
    assert_eq!(up[cpu], "0.5");
    assert_eq!(up[&active], "2");
    assert!(!silent.contains_key(cpu) && !silent.contains_key(&active));
    assert!(
        silent
            .keys()
            .any(|k| k.starts_with("speedmimi_connections_opened_total"))
    );
}

#[test]
fn a_queue_of_a_silent_host_has_its_drops_alone() {
    let queue = |up| {
        let all = of(move || {
            let mut sample = sample(up);
            sample.report.endpoints[0].accept_queue = Some(v1::AcceptQueue {
                listener: "0.0.0.0:8080".to_owned(),
                connections: 3,
                connections_max: 129,
                limit: 128,
                drops: 2,
                drops_total: 7,
            });
            sample
        });
        let of_queues = all.into_iter().filter_map(|(series, value)| {
            let series = series.strip_prefix("speedmimi_accept_queue_")?;
            let name = series.strip_suffix(&format!("{{{ENDPOINT}}}"))?;
            Some((name.to_owned(), value))
        });
        let mut of_queues: Vec<_> = of_queues.collect();
        of_queues.sort();
        of_queues
    };
    let known = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        let all = all.iter();
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let drops = ("drops_total", "7");
    let all = [
        ("connections", "3"),
        ("connections_max", "129"),
        drops,
        ("limit", "128"),
    ];
    assert_eq!(queue(true), known(&all));
    assert_eq!(queue(false), known(&[drops]));
    let without = series(true);
    assert!(!without.keys().any(|key| key.contains("accept_queue")));
}

#[test]
fn round_trips_are_gauges_in_seconds_where_any_was_seen() {
    let seen = |up| {
        of(move || {
            let mut sample = sample(up);
            sample.report.endpoints[0].srtt = Some(v1::RoundTripTime {
                samples: 3,
                min_us: 90,
                mean_us: 1_500,
                max_us: 2_000_000,
            });
            sample
        })
    };
    let all = seen(true);
    for (name, value) in [
        ("samples", "3"),
        ("min_seconds", "0.00009"),
        ("mean_seconds", "0.0015"),
        ("max_seconds", "2"),
    ] {
        assert_eq!(all[&format!("speedmimi_srtt_{name}{{{ENDPOINT}}}")], value);
    }
    for without in [series(true), seen(false)] {
        assert!(!without.keys().any(|key| key.starts_with("speedmimi_srtt")));
    }
}

#[test]
fn every_family_says_its_help_and_type_once() {
    let text: String = chunks([sample(true), sample(false), sample(true)]).collect();
    for family in super::families::all() {
        for kind in ["HELP", "TYPE"] {
            let head = format!("# {kind} {} ", family.name);
            assert_eq!(text.matches(&head).count(), 1, "{head}");
        }
    }
}

#[test]
fn every_help_is_a_sentence_that_stands_alone() {
    let text: String = chunks([sample(true)]).collect();
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        let help = line.splitn(4, ' ').nth(3).unwrap();
        assert!(
            help.split(' ').count() >= 4 && help.ends_with('.'),
            "{line}"
        );
        let before = [" them.", "Their ", "Its ", "These "];
        assert!(!before.iter().any(|word| help.contains(word)), "{line}");
    }
}

#[test]
fn what_cannot_be_seen_has_no_series() {
    let tls = of(|| {
        let mut sample = sample(true);
        let totals = sample.report.endpoints[0].totals.as_mut().unwrap();
        totals.http = Some(v1::HttpCounters {
            exchanges: 239,
            ..Default::default()
        });
        sample
    });
    let series = |name: &str| tls.keys().filter(|key| key.starts_with(name)).count();
    assert_eq!(
        tls[&format!("speedmimi_exchanges_total{{{ENDPOINT}}}")],
        "239"
    );
    assert_eq!(
        series("speedmimi_requests_"),
        0,
        "an unknown count is not 0"
    );
    assert_eq!(series("speedmimi_responses_"), 0);
}

#[test]
fn figures_are_what_the_report_says_and_take_a_fraction_of_it() {
    let mut direct = String::new();
    for family in super::families::all() {
        super::text::head(&mut direct, family.name, family.kind, family.help);
        family.write(&mut direct, &sample(true));
    }
    assert_eq!(chunks([sample(true)]).collect::<String>(), direct);
    let bytes = ReportSeries::of(&sample(true)).bytes();
    assert!(
        bytes < direct.len() as u64 / 4,
        "{bytes} of {}",
        direct.len()
    );
}

#[test]
fn chunks_stay_small_however_many_hosts_there_are() {
    let all: Vec<String> = chunks((0..1000).map(|_| sample(true))).collect();
    let longest = all.iter().map(String::len).max().unwrap_or(0);
    assert!(longest < CHUNK_BYTES + 1000, "{longest}");
    let text = all.concat();
    assert_eq!(text.matches("speedmimi_host_up{").count(), 1000);
    assert_eq!(chunks([]).count(), 0);
}
