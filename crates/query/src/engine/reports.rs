//! The newest report of a host, as far as metrics carry it: gauges, totals, and
//! what they grew by in the last window.  Sockets and devices have no metrics.

use std::collections::{BTreeMap, btree_map::Entry};

use daemon::clock;
use monitor_proto::{
    figures::{self, Figure},
    v1,
};

use super::{
    Engine, EngineError, Question, Series,
    hosts::{SEEN, unix_ns},
    promql, series,
};
use crate::partial::Partial;

/// Holds the last two reports, also of agents that report every half minute.
const RANGE_S: f64 = 70.0;
/// A scrape sees a report at most so long after it came.
const SCRAPED_WITHIN_S: f64 = 60.0;
/// Times are kept to the millisecond.
const SAME_S: f64 = 0.002;
/// Everything of a host.
const ALL: &str = "speedmimi_.+";
/// Hosts that are asked for one by one.
const HOSTS_MAX: usize = 20;

impl Engine {
    /// The newest report of the host with this id, else of those with this
    /// name, or of all.
    pub async fn newest(&self, host: &str) -> Result<Partial<Vec<v1::Report>>, EngineError> {
        let known = self.hosts(host).await?;
        let now_s = clock::unix_ns() as f64 / 1e9;
        let mut partial = known.partial;
        let mut series = Vec::new();
        if host.is_empty() || known.value.len() > HOSTS_MAX {
            let of_all = promql::named_like(&without_buckets(), &[]);
            let of_all = over(&of_all, RANGE_S);
            let asked = self.ask([Question::at(of_all, now_s)]).await?;
            partial.extend(asked.partial);
            series.extend(asked.value.into_iter().flatten());
        } else {
            for summary in &known.value {
                let id = summary.host.as_ref().map_or("", |host| host.id.as_str());
                let of_one = promql::named_like(ALL, &[("host_id", id)]);
                let seen_s = summary.last_seen_unix_ns as f64 / 1e9;
                let at_s = now_s.clamp(seen_s + 0.001, seen_s + SCRAPED_WITHIN_S);
                let of_one = over(&of_one, RANGE_S + (at_s - seen_s));
                let asked = self.ask([Question::at(of_one, at_s)]).await?;
                partial.extend(asked.partial);
                series.extend(asked.value.into_iter().flatten());
            }
        }
        let mut by_host: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
        for one in &series {
            by_host.entry(one.label("host_id")).or_default().push(one);
        }
        let reports = known.value.iter().map(|summary| {
            let id = summary.host.as_ref().map_or("", |host| host.id.as_str());
            report(summary, by_host.get(id).map_or(&[], Vec::as_slice))
        });
        Ok(Partial {
            value: reports.collect(),
            partial,
        })
    }
}

fn over(selector: &str, range_s: f64) -> String {
    let range_ms = (range_s * 1e3) as u64;
    format!("{selector}[{range_ms}ms]")
}

/// The samples that are of the newest report: one where it was passed on, each
/// that saw it where it was scraped.
#[derive(Clone, Copy, Debug)]
struct Newest {
    first_s: f64,
    last_s: f64,
    /// The time between the reports of these samples and of those before.
    window_ns: Option<u64>,
}

impl Newest {
    fn new(series: &[&Series], seen_s: f64) -> Self {
        let seen = series.iter().filter(|one| one.label("__name__") == SEEN);
        let mut newest = seen.filter_map(|series| {
            let of_newest = |(_, value): &(f64, f64)| (value - seen_s).abs() <= SAME_S;
            let first = series.values.iter().position(of_newest)?;
            let last = series.values.iter().rposition(of_newest)?;
            let before = series.values[..first].last();
            Some(Self {
                first_s: series.values[first].0,
                last_s: series.values[last].0,
                window_ns: before
                    .map(|(_, value)| unix_ns(seen_s).saturating_sub(unix_ns(*value)))
                    .filter(|ns| *ns > 0),
            })
        });
        newest.next().unwrap_or(Self {
            first_s: seen_s,
            last_s: seen_s,
            window_ns: None,
        })
    }
}

/// What a series says of the newest window.
#[derive(Clone, Copy, Debug)]
struct Last {
    value: f64,
    /// `None` where there is no earlier sample.
    grown: Option<f64>,
}

/// `None` where no sample is of the newest window.
fn last(series: &Series, newest: Newest) -> Option<Last> {
    let mut back = series.values.iter().rev();
    let (at, value) = *back.find(|(at, _)| *at <= newest.last_s + SAME_S)?;
    if at < newest.first_s - SAME_S {
        return None;
    }
    let before = back.find(|(at, _)| *at < newest.first_s - SAME_S);
    let grown = before.map(|(_, before)| {
        if value >= *before {
            value - before
        } else {
            value
        }
    });
    Some(Last { value, grown })
}

/// An endpoint while its series are read.
#[derive(Debug, Default)]
struct Counting {
    endpoint: v1::Endpoint,
    window: v1::Counters,
    totals: v1::Counters,
    /// By histogram: boundaries with totals and growth.
    buckets: BTreeMap<&'static str, Vec<(f64, u64, u64)>>,
}

fn report(summary: &v1::HostSummary, series: &[&Series]) -> v1::Report {
    let newest = Newest::new(series, summary.last_window_end_unix_ns as f64 / 1e9);
    let mut report = v1::Report {
        host: summary.host.clone(),
        agent: summary.agent.clone(),
        sequence: summary.last_sequence,
        window_end_unix_ns: summary.last_window_end_unix_ns,
        window_start_unix_ns: summary.last_window_end_unix_ns,
        ..v1::Report::default()
    };
    let mut endpoints: BTreeMap<[&str; 3], Counting> = BTreeMap::new();
    let mut is_single = true;
    for series in series {
        let Some(last) = last(series, newest) else {
            continue;
        };
        is_single &= last.grown.is_none();
        let name = series.label("__name__");
        if name.starts_with("speedmimi_host_") || name == "speedmimi_losses_total" {
            of_host(&mut report, name, series, last);
            continue;
        }
        if name.starts_with("speedmimi_target_") {
            of_target(&mut report, name, series, last);
            continue;
        }
        if !series.label("network_namespace").is_empty() {
            of_network_namespace(&mut report, name, series, last);
            continue;
        }
        let key = ["role", "target", "endpoint"].map(|label| series.label(label));
        let counting = match endpoints.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(counting(series)),
        };
        of_endpoint(counting, name, series, last);
    }
    // The time that the growth took, whatever the agent's own windows are.
    if let Some(window_ns) = newest.window_ns {
        report.window_duration_ns = window_ns;
    }
    report.window_start_unix_ns = report
        .window_end_unix_ns
        .saturating_sub(report.window_duration_ns);
    if is_single {
        report.complete = false;
        let reason = "the query backend has no earlier sample to subtract";
        report.incomplete_reasons.push(reason.to_owned());
    }
    report.endpoints = endpoints.into_values().map(finish).collect();
    report
}

/// What is asked of a fleet: all but the buckets, which are most of it.
fn without_buckets() -> String {
    fn name<R>(figure: &Figure<R>) -> &'static str {
        figure.prometheus
    }
    let of_endpoints = figures::COUNTERS.iter().map(|c| name(&c.figure));
    let of_endpoints = of_endpoints
        .chain(figures::SPLITS.iter().map(|s| name(&s.figure)))
        .chain(figures::OF_ENDPOINTS.iter().map(name));
    let of_targets = figures::TARGETS.iter().map(name);
    let of_namespaces = figures::NETWORK_NAMESPACES.iter().map(name);
    let all: Vec<_> = ["speedmimi_host_.+", figures::LOSSES.prometheus]
        .into_iter()
        .chain(of_endpoints)
        .chain(of_targets)
        .chain(of_namespaces)
        .collect();
    all.join("|")
}

fn of_host(report: &mut v1::Report, name: &str, series: &Series, last: Last) {
    let value = last.value;
    let metrics = report.host_metrics.get_or_insert_default();
    let mut gauges = figures::HOST_GAUGES.iter();
    if let Some(gauge) = gauges.find(|gauge| gauge.figure.prometheus == name) {
        let value = value * (1.0 / gauge.factor);
        // The engine has the newest sample of the window alone.
        *(gauge.place)(metrics) = Some(v1::Gauge {
            last: value,
            min: value,
            mean: value,
            max: value,
        });
        return;
    }
    match name {
        "speedmimi_host_window_seconds" => report.window_duration_ns = (value * 1e9).round() as u64,
        "speedmimi_host_report_complete" => report.complete = value > 0.5,
        name if name == figures::LOSSES.prometheus => {
            let reason = series.label("reason").to_owned();
            if let Some(grown) = last.grown {
                report.losses.insert(reason.clone(), grown as u64);
            }
            report.losses_totals.insert(reason, value as u64);
        }
        _ => {}
    }
}

fn of_target(report: &mut v1::Report, name: &str, series: &Series, last: Last) {
    let path = series.label("target");
    let place = report.targets.iter().position(|t| t.path == path);
    let place = place.unwrap_or_else(|| {
        report.targets.push(v1::Target {
            path: path.to_owned(),
            ..v1::Target::default()
        });
        report.targets.len() - 1
    });
    let target = &mut report.targets[place];
    let us = |s: f64| (s * 1e6).round() as u64;
    let grown = last.grown.unwrap_or(0.0);
    match name {
        "speedmimi_target_info" => {
            target.unit = series.label("unit").to_owned();
            target.container = series.label("container").to_owned();
            target.container_name = series.label("container_name").to_owned();
            target.pod = series.label("pod").to_owned();
            target.namespace = series.label("namespace").to_owned();
        }
        "speedmimi_target_cpu_usage_seconds_total" => {
            target.cpu_usage_us_total = Some(us(last.value));
            target.cpu_usage_us = us(grown);
        }
        "speedmimi_target_cpu_throttled_seconds_total" => {
            target.throttled_us_total = Some(us(last.value));
            target.throttled_us = us(grown);
        }
        "speedmimi_target_cpu_throttled_periods_total" => {
            target.throttled_periods_total = Some(last.value as u64);
            target.throttled_periods = grown as u64;
        }
        "speedmimi_target_memory_bytes" => target.memory_bytes = Some(last.value as u64),
        "speedmimi_target_memory_limit_bytes" => {
            target.memory_limit_bytes = Some(last.value as u64);
        }
        _ => {}
    }
}

fn of_network_namespace(report: &mut v1::Report, name: &str, series: &Series, last: Last) {
    let Ok(id) = series.label("network_namespace").parse() else {
        return;
    };
    let place = report.network_namespaces.iter().position(|n| n.id == id);
    let place = place.unwrap_or_else(|| {
        report.network_namespaces.push(v1::NetworkNamespace {
            id,
            ..v1::NetworkNamespace::default()
        });
        report.network_namespaces.len() - 1
    });
    let of = &mut report.network_namespaces[place];
    let (total, delta) = match name {
        "speedmimi_listen_overflows_total" => {
            (&mut of.listen_overflows_total, &mut of.listen_overflows)
        }
        "speedmimi_listen_drops_total" => (&mut of.listen_drops_total, &mut of.listen_drops),
        "speedmimi_attempt_fails_total" => (&mut of.attempt_fails_total, &mut of.attempt_fails),
        "speedmimi_syncookies_failed_total" => {
            (&mut of.syncookies_failed_total, &mut of.syncookies_failed)
        }
        _ => return,
    };
    *total = Some(last.value as u64);
    *delta = last.grown.map_or(0, |grown| grown as u64);
}

fn counting(series: &Series) -> Counting {
    Counting {
        endpoint: v1::Endpoint {
            name: match series.label("listener") {
                "" => series.label("backend"),
                listener => listener,
            }
            .to_owned(),
            role: series::role(series.label("role")),
            address: series.label("endpoint").to_owned(),
            target: series.label("target").to_owned(),
            upstream: series.label("upstream").to_owned(),
            backend: series.label("backend").to_owned(),
            ..v1::Endpoint::default()
        },
        ..Counting::default()
    }
}

fn of_endpoint(counting: &mut Counting, name: &str, series: &Series, last: Last) {
    let total = last.value as u64;
    let grown = last.grown.map_or(0, |grown| grown as u64);
    if name == "speedmimi_connections_active" {
        counting.endpoint.connections_active = total;
        return;
    }
    if let Some(of) = name.strip_prefix("speedmimi_srtt_") {
        of_round_trips(counting.endpoint.srtt.get_or_insert_default(), of, last);
        return;
    }
    if let Some(of) = name.strip_prefix("speedmimi_accept_queue_") {
        of_accept_queue(&mut counting.endpoint, of, last);
        return;
    }
    for (histogram, of) in [
        ("speedmimi_exchange_duration_seconds", "exchange"),
        ("speedmimi_connect_duration_seconds", "connect"),
        ("speedmimi_tls_handshake_duration_seconds", "tls"),
    ] {
        if name.strip_prefix(histogram) == Some("_bucket")
            && let Ok(le) = series.label("le").parse()
        {
            counting
                .buckets
                .entry(of)
                .or_default()
                .push((le, total, grown));
        }
    }
    add(&mut counting.totals, name, series, total);
    add(&mut counting.window, name, series, grown);
}

fn of_round_trips(times: &mut v1::RoundTripTime, of: &str, last: Last) {
    let us = (last.value * 1e6).round() as u64;
    match of {
        "samples" => times.samples = last.value as u64,
        "min_seconds" => times.min_us = us,
        "mean_seconds" => times.mean_us = us,
        "max_seconds" => times.max_us = us,
        _ => {}
    }
}

/// An engine does not know which endpoints share a queue: each has its own there.
fn of_accept_queue(endpoint: &mut v1::Endpoint, of: &str, last: Last) {
    let queue = endpoint.accept_queue.get_or_insert_default();
    queue.listener.clone_from(&endpoint.address);
    let value = last.value as u64;
    match of {
        "connections" => queue.connections = value,
        "connections_max" => queue.connections_max = value,
        "limit" => queue.limit = value,
        "drops_total" => {
            queue.drops_total = value;
            queue.drops = last.grown.map_or(0, |grown| grown as u64);
        }
        _ => {}
    }
}

/// Adds a counter to its place.
fn add(c: &mut v1::Counters, name: &str, series: &Series, n: u64) {
    let mut counters = figures::COUNTERS.iter();
    if let Some(counter) = counters.find(|counter| counter.figure.prometheus == name) {
        let place = (counter.place)(c);
        *place = place.saturating_add(n);
        return;
    }
    let mut splits = figures::SPLITS.iter();
    let Some(split) = splits.find(|split| split.figure.prometheus == name) else {
        return;
    };
    let part = series.label(split.label);
    let place = match split.figure.name {
        "connections_failed" => {
            let failed = c.connections_failed.get_or_insert_default();
            let mut reasons = figures::CONNECTIONS_FAILED.iter();
            match reasons.find(|reason| reason.name == part) {
                Some(reason) => (reason.place)(failed),
                None => &mut failed.other,
            }
        }
        "requests_by_method" => {
            let http = c.http.get_or_insert_default();
            http.requests = http.requests.saturating_add(n);
            http.requests_by_method.entry(part.to_owned()).or_default()
        }
        "responses" => {
            // A class stands for codes that are not known one by one.
            let class = part.to_uppercase();
            let http = c.http.get_or_insert_default();
            http.responses_by_code.entry(class).or_default()
        }
        _ => return,
    };
    *place = place.saturating_add(n);
}

fn finish(mut counting: Counting) -> v1::Endpoint {
    for (of, buckets) in counting.buckets {
        let histogram = |n: fn(&(f64, u64, u64)) -> u64| {
            Some(series::histogram(
                buckets.iter().map(|b| (b.0, n(b))).collect(),
            ))
        };
        let (totals, window) = (histogram(|b| b.1), histogram(|b| b.2));
        for (counters, histogram) in [
            (&mut counting.totals, totals),
            (&mut counting.window, window),
        ] {
            if of == "connect" {
                counters.connect_duration = histogram;
                continue;
            }
            let http = counters.http.get_or_insert_default();
            if of == "tls" {
                http.tls_handshake_duration = histogram;
            } else {
                http.exchange_duration = histogram;
            }
        }
    }
    v1::Endpoint {
        window: Some(counting.window),
        totals: Some(counting.totals),
        ..counting.endpoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], values: &[(f64, f64)]) -> Series {
        Series {
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn a_report_has_totals_and_what_they_grew_by() {
        let summary = v1::HostSummary {
            host: Some(v1::Host::default()),
            last_window_end_unix_ns: unix_ns(100.0),
            ..v1::HostSummary::default()
        };
        let of =
            |name: &'static str, more: &[(&'static str, &'static str)], values: &[(f64, f64)]| {
                let labels = [("__name__", name), ("role", "upstream"), ("endpoint", "e")];
                series(&[&labels[..], more].concat(), values)
            };
        let all = [
            of(
                "speedmimi_host_window_seconds",
                &[],
                &[(95.0, 5.0), (100.0, 5.0)],
            ),
            of(
                "speedmimi_requests_total",
                &[("method", "GET")],
                &[(95.0, 7.0), (100.0, 9.0)],
            ),
            of(
                "speedmimi_requests_total",
                &[("method", "PUT")],
                &[(95.0, 5.0), (100.0, 1.0)],
            ),
            of(
                "speedmimi_responses_total",
                &[("code_class", "5xx")],
                &[(95.0, 1.0), (100.0, 4.0)],
            ),
            of(
                "speedmimi_bytes_sent_total",
                &[],
                &[(90.0, 5.0), (95.0, 9.0)],
            ),
        ];
        let report = report(&summary, &all.iter().collect::<Vec<_>>());
        assert_eq!(report.window_duration_ns, 5_000_000_000);
        assert_eq!(report.window_start_unix_ns, unix_ns(95.0));
        let endpoint = &report.endpoints[0];
        let http = |c: &Option<v1::Counters>| c.clone().unwrap().http.unwrap();
        let (window, totals) = (http(&endpoint.window), http(&endpoint.totals));
        assert_eq!((totals.requests, window.requests), (10, 3));
        assert_eq!(window.requests_by_method["PUT"], 1, "it began anew");
        assert_eq!(totals.responses_by_code["5XX"], 4);
        assert_eq!(
            endpoint.totals.as_ref().unwrap().bytes_sent,
            0,
            "an old sample is none of the newest window"
        );
    }

    #[test]
    fn requests_of_tls_are_null_and_those_of_http_are_not() {
        let summary = v1::HostSummary {
            last_window_end_unix_ns: unix_ns(100.0),
            ..v1::HostSummary::default()
        };
        let of = |name, endpoint| {
            let labels = [("__name__", name), ("endpoint", endpoint)];
            series(&labels, &[(95.0, 3.0), (100.0, 7.0)])
        };
        let all = [
            of("speedmimi_exchanges_total", "tls"),
            of("speedmimi_exchange_duration_seconds_bucket", "tls"),
            of("speedmimi_requests_total", "mixed"),
            of("speedmimi_exchanges_total", "mixed"),
            of("speedmimi_bytes_sent_total", "level tcp"),
        ];
        let report = report(&summary, &all.iter().collect::<Vec<_>>());
        let json = monitor_proto::json::Report::from(&report);
        let http = |address: &str| {
            let endpoint = json.endpoints.iter().find(|e| e.address == address);
            let endpoint = endpoint.unwrap();
            [&endpoint.totals.counters, &endpoint.window].map(|counters| {
                assert_eq!(counters.requests.is_some(), counters.responses.is_some());
                (counters.requests, counters.exchanges)
            })
        };
        assert_eq!(http("tls"), [(None, Some(7)), (None, Some(4))]);
        assert_eq!(http("mixed"), [(Some(7), Some(7)), (Some(4), Some(4))]);
        assert_eq!(http("level tcp"), [(None, None), (None, None)]);
    }

    /// The newest report, seen at 100 s, of totals and gauges with these times.
    fn newest_of(seen: &[(f64, f64)], sent: &[(f64, f64)]) -> v1::Report {
        let summary = v1::HostSummary {
            last_window_end_unix_ns: unix_ns(100.0),
            ..v1::HostSummary::default()
        };
        let at = |value| seen.iter().map(|(at, _)| (*at, value)).collect::<Vec<_>>();
        let all = [
            series(&[("__name__", SEEN)], seen),
            series(&[("__name__", "speedmimi_host_window_seconds")], &at(5.0)),
            series(&[("__name__", "speedmimi_host_load1")], &at(0.5)),
            series(&[("__name__", "speedmimi_bytes_sent_total")], sent),
        ];
        report(&summary, &all.iter().collect::<Vec<_>>())
    }

    #[test]
    fn round_trips_are_those_of_the_newest_window_or_none() {
        let summary = v1::HostSummary {
            last_window_end_unix_ns: unix_ns(100.0),
            ..v1::HostSummary::default()
        };
        let of = |name, endpoint, at| {
            let labels = [("__name__", name), ("endpoint", endpoint)];
            series(&labels, &[(at, 0.000_25)])
        };
        let all = [
            of("speedmimi_srtt_min_seconds", "seen", 95.0),
            of("speedmimi_srtt_mean_seconds", "seen", 100.0),
            of("speedmimi_srtt_mean_seconds", "seen before", 95.0),
            of("speedmimi_connections_active", "seen before", 100.0),
        ];
        let report = report(&summary, &all.iter().collect::<Vec<_>>());
        let srtt = report.endpoints.iter().map(|e| e.srtt);
        let mean = v1::RoundTripTime {
            mean_us: 250,
            ..v1::RoundTripTime::default()
        };
        assert_eq!(srtt.collect::<Vec<_>>(), [Some(mean), None]);
    }

    fn sent(report: &v1::Report) -> (u64, u64) {
        let endpoint = &report.endpoints[0];
        let of = |c: &Option<v1::Counters>| c.as_ref().unwrap().bytes_sent;
        (of(&endpoint.totals), of(&endpoint.window))
    }

    #[test]
    fn a_scraped_report_grew_since_the_report_of_the_scrape_before() {
        // Every 15 s a scrape sees the newest report of 5 s; the host is silent
        // from 100 s on, and came back after this host was listed.
        let seen = [(88.0, 85.0), (103.0, 100.0), (118.0, 100.0), (133.0, 130.0)];
        let totals = seen.map(|(at, value)| (at, value * 10.0));
        let report = newest_of(&seen, &totals);
        assert_eq!(report.window_duration_ns, 15_000_000_000);
        assert_eq!(sent(&report), (1000, 150));
        assert_eq!(report.window_start_unix_ns, unix_ns(85.0));
        assert!(report.host_metrics.unwrap().load_avg_1.is_some());
    }

    #[test]
    fn growth_over_a_gap_took_the_whole_gap() {
        let seen = [(40.0, 40.0), (100.0, 100.0)];
        let report = newest_of(&seen, &[(40.0, 400.0), (100.0, 1000.0)]);
        assert_eq!(report.window_duration_ns, 60_000_000_000);
        assert_eq!(sent(&report), (1000, 600));
    }
}
