//! Series from totals: what a counter grew by from step to step.

use std::collections::{BTreeMap, HashMap};

use monitor_proto::{
    figures::{COUNTERS, HOST_GAUGES, SPLITS},
    labels, v1,
};
use rollup::{EndpointId, EndpointRoll, GaugeRoll, HostRoll, ROLLED_COUNTERS};

use super::{
    Engine, EngineError, Question, Series, endpoint_names,
    hosts::{SEEN, unix_ns},
    promql,
};
use crate::{
    endpoint_filter::EndpointFilter,
    named_series::{EndpointNames, NamedSeries},
    partial::Partial,
    series::{Plan, Samples, Scope},
};

/// Series of one answer.
const SERIES_MAX: usize = 1000;
/// A boundary of a classic bucket is a power of two.
const SCALE: i32 = 0;

/// Where a metric comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Its place in `GAUGES`, its name, and what a value is multiplied by.
    HostGauge(usize, &'static str, f64),
    Active,
    Counter(Counter),
    /// The name of its buckets.
    Histogram(&'static str, fn(&mut EndpointRoll) -> &mut v1::Histogram),
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    name: &'static str,
    /// The label that splits it.
    split: &'static str,
    /// The only value of that label that counts.
    only: Option<&'static str>,
    of: fn(&mut EndpointRoll) -> &mut u64,
}

fn counter_of(
    name: &'static str,
    split: &'static str,
    only: Option<&'static str>,
    of: fn(&mut EndpointRoll) -> &mut u64,
) -> Source {
    Source::Counter(Counter {
        name,
        split,
        only,
        of,
    })
}

/// A counter that a label splits: all of it, or one of its parts.
fn split(
    name: &str,
    only: Option<&'static str>,
    of: fn(&mut EndpointRoll) -> &mut u64,
) -> Option<Source> {
    let split = SPLITS.iter().find(|split| split.figure.name == name)?;
    Some(counter_of(split.figure.prometheus, split.label, only, of))
}

/// By the metric's name in the API; every metric of `series` has one.
fn source(metric: &str) -> Option<Source> {
    let mut gauges = HOST_GAUGES.iter().enumerate();
    if let Some((place, gauge)) = gauges.find(|(_, gauge)| gauge.figure.name == metric) {
        let name = gauge.figure.prometheus;
        return Some(Source::HostGauge(place, name, 1.0 / gauge.factor));
    }
    let mut rolled = ROLLED_COUNTERS.iter();
    if let Some(rolled) = rolled.find(|rolled| rolled.name == metric) {
        let mut counters = COUNTERS.iter();
        let counter = counters.find(|counter| counter.figure.name == metric);
        let name = counter.map(|counter| counter.figure.prometheus);
        // Requests alone are no counter of their own there: methods split them.
        return match name {
            Some(name) => Some(counter_of(name, "", None, rolled.place)),
            None => split("requests_by_method", None, rolled.place),
        };
    }
    match metric {
        "connections_active" => Some(Source::Active),
        "connections_failed" => split(metric, None, |r| &mut r.connections_failed),
        "responses_1xx" => split("responses", Some("1xx"), |r| &mut r.responses_1xx),
        "responses_2xx" => split("responses", Some("2xx"), |r| &mut r.responses_2xx),
        "responses_3xx" => split("responses", Some("3xx"), |r| &mut r.responses_3xx),
        "responses_4xx" => split("responses", Some("4xx"), |r| &mut r.responses_4xx),
        "responses_5xx" => split("responses", Some("5xx"), |r| &mut r.responses_5xx),
        _ if metric.starts_with("exchange_duration_p") => Some(Source::Histogram(
            "speedmimi_exchange_duration_seconds_bucket",
            |r| &mut r.exchange_duration,
        )),
        _ if metric.starts_with("connect_duration_p") => Some(Source::Histogram(
            "speedmimi_connect_duration_seconds_bucket",
            |r| &mut r.connect_duration,
        )),
        _ => None,
    }
}

/// What the reports of a host cover in a step: time, and whether all were
/// complete.
#[derive(Clone, Copy, Debug, Default)]
struct Cover {
    ns: u64,
    incomplete: u64,
}

/// Of each host, by the step's number.
type ByStep<T> = HashMap<String, BTreeMap<u64, T>>;
type Covers = ByStep<Cover>;
/// When the newest report came, in unix nanoseconds.
type Seen = ByStep<u64>;

impl Engine {
    /// The series of a metric, of the host with this id, else of those with
    /// this name, or of all.
    pub async fn series(
        &self,
        host: &str,
        filter: &EndpointFilter,
        plan: &Plan,
    ) -> Result<Partial<Vec<NamedSeries>>, EngineError> {
        let by_id = self.series_like("host_id", host, filter, plan).await?;
        if host.is_empty() || !by_id.value.is_empty() {
            return Ok(by_id);
        }
        self.series_like("host", host, filter, plan).await
    }

    async fn series_like(
        &self,
        label: &str,
        host: &str,
        filter: &EndpointFilter,
        plan: &Plan,
    ) -> Result<Partial<Vec<NamedSeries>>, EngineError> {
        let source = source(plan.metric.name).ok_or(EngineError::TooMuch("metrics"))?;
        let of_host: Vec<(&str, &str)> = match host {
            "" => Vec::new(),
            host => vec![(label, host)],
        };
        let mut of_endpoint = of_host.clone();
        if let Some(role) = filter.role {
            of_endpoint.push(("role", labels::role(role)));
        }
        if let Some(address) = &filter.address {
            of_endpoint.push(("endpoint", address));
        }
        // One more step before the first, to subtract from.
        let range =
            |expression: String| Question::range(expression, plan.start_s, plan.end_s, plan.step_s);
        let over = |function: &str, name: &str, matchers: &promql::Matchers<'_>| {
            promql::over_step(function, &promql::selector(name, matchers), plan.step_s)
        };
        let covered = range(over(
            "sum_over_time",
            "speedmimi_host_window_seconds",
            &of_host,
        ));
        // Of the same sample as the totals.
        let seen = range(over("last_over_time", SEEN, &of_host));
        let complete = range(over(
            "min_over_time",
            "speedmimi_host_report_complete",
            &of_host,
        ));
        let named = over("last_over_time", endpoint_names::NAMED, &of_endpoint);
        let labels = range(promql::by_names(&named));
        let asked = match source {
            Source::HostGauge(_, name, _) => {
                let gauge = |function| range(over(function, name, &of_host));
                let gauges = ["min_over_time", "avg_over_time", "max_over_time"].map(gauge);
                let [min, mean, max] = gauges;
                self.ask([covered, complete, min, mean, max]).await?
            }
            Source::Active => {
                let gauge = |function| {
                    let of = over(function, "speedmimi_connections_active", &of_endpoint);
                    range(promql::by_endpoint(&of, ""))
                };
                let gauges = ["min_over_time", "avg_over_time", "max_over_time"].map(gauge);
                let [min, mean, max] = gauges;
                self.ask([covered, complete, min, mean, max]).await?
            }
            Source::Counter(counter) => {
                let mut matchers = of_endpoint;
                if let Some(only) = counter.only {
                    matchers.push((counter.split, only));
                }
                let of = over("last_over_time", counter.name, &matchers);
                let total = range(promql::by_endpoint(&of, counter.split));
                let asked = self.ask([seen, complete, total]).await?;
                widen(asked)
            }
            Source::Histogram(name, _) => {
                let of = over("last_over_time", name, &of_endpoint);
                let totals = range(promql::by_boundary(&of));
                let asked = self.ask([seen, complete, totals]).await?;
                widen(asked)
            }
        };
        let [time, complete, first, mean, max] = &asked.value;
        let value = match source {
            Source::HostGauge(place, _, scale) => {
                let covers = covers(plan, time, complete);
                gauges(plan, [first, mean, max])
                    .into_values()
                    .map(|(labels, steps)| host_series(plan, labels, &steps, &covers, place, scale))
                    .collect()
            }
            Source::Active => {
                let covers = covers(plan, time, complete);
                gauges(plan, [first, mean, max])
                    .into_values()
                    .map(|(labels, steps)| active_series(plan, labels, &steps, &covers))
                    .collect()
            }
            Source::Counter(counter) => {
                let times = Times::new(plan, time, complete);
                first
                    .iter()
                    .map(|series| counter_series(&times, series, counter.of))
                    .collect()
            }
            Source::Histogram(_, of) => {
                histogram_series(&Times::new(plan, time, complete), first, of)
            }
        };
        let mut value: Vec<NamedSeries> = value;
        // With names they are counted once it is known which have them.
        if !filter.is_by_name() {
            bounded(&value)?;
        }
        let mut partial = asked.partial;
        if plan.metric.scope() == Scope::Endpoint && !value.is_empty() {
            let named = self.ask([labels]).await?;
            let [labels] = &named.value;
            endpoint_names::give(&mut value, labels);
            value.retain(|one| {
                let id = one.endpoint.as_ref();
                id.is_none_or(|id| filter.is_called(id, &one.names))
            });
            bounded(&value)?;
            partial.extend(named.partial);
            partial.sort();
            partial.dedup();
        }
        Ok(Partial { value, partial })
    }
}

/// Whether so many series can be one answer.
fn bounded(series: &[NamedSeries]) -> Result<(), EngineError> {
    if series.len() > SERIES_MAX {
        return Err(EngineError::TooMuch(
            "series: choose a host, a listener, an upstream, a backend or an endpoint",
        ));
    }
    Ok(())
}

fn widen(asked: Partial<[Vec<Series>; 3]>) -> Partial<[Vec<Series>; 5]> {
    let [a, b, c] = asked.value;
    Partial {
        value: [a, b, c, Vec::new(), Vec::new()],
        partial: asked.partial,
    }
}

/// Which step a value is of: it stands at the step's end.  0 is the step before
/// the first.
fn step_at(plan: &Plan, at_s: f64) -> Option<u64> {
    let after = at_s - plan.start_s as f64;
    let step = (after / plan.step_s as f64).round();
    (step >= 0.0 && plan.start_s.saturating_add(step as u64 * plan.step_s) <= plan.end_s)
        .then_some(step as u64)
}

/// Where the step with this number, which is not 0, begins.
fn start_of(plan: &Plan, step: u64) -> u64 {
    plan.start_s + (step - 1) * plan.step_s
}

fn by_step(plan: &Plan, series: &Series) -> BTreeMap<u64, f64> {
    let values = series.values.iter();
    values
        .filter_map(|(at, value)| Some((step_at(plan, *at)?, *value)))
        .collect()
}

/// The largest of each host and step: of engines that hold the same series,
/// none counts twice.
fn largest<T: Copy + Ord>(plan: &Plan, all: &[Series], of: fn(f64) -> T) -> ByStep<T> {
    let mut hosts = ByStep::new();
    for series in all {
        let of_host: &mut BTreeMap<u64, T> =
            hosts.entry(series.label("host_id").to_owned()).or_default();
        for (step, value) in by_step(plan, series) {
            let value = of(value);
            let largest = of_host.entry(step).or_insert(value);
            *largest = value.max(*largest);
        }
    }
    hosts
}

fn covers(plan: &Plan, covered: &[Series], complete: &[Series]) -> Covers {
    let mut covers = Covers::new();
    for (host_id, steps) in largest(plan, covered, |seconds| (seconds * 1e9) as u64) {
        let of_host = covers.entry(host_id).or_default();
        for (step, ns) in steps {
            of_host.entry(step).or_default().ns = ns;
        }
    }
    for (host_id, steps) in largest(plan, complete, |least| u64::from(least < 0.5)) {
        let of_host = covers.entry(host_id).or_default();
        for (step, incomplete) in steps {
            of_host.entry(step).or_default().incomplete = incomplete;
        }
    }
    covers
}

/// What is covered where nothing tells: the whole step, and not surely.
fn cover(plan: &Plan, covers: &Covers, host_id: &str, step: u64) -> Cover {
    let known = covers.get(host_id).and_then(|of_host| of_host.get(&step));
    known.copied().unwrap_or(Cover {
        ns: plan.step_s.saturating_mul(1_000_000_000),
        incomplete: 1,
    })
}

/// Smallest, mean and largest by step.
type Gauge = BTreeMap<u64, [Option<f64>; 3]>;

fn gauges<'a>(plan: &Plan, of: [&'a Vec<Series>; 3]) -> BTreeMap<Vec<String>, (&'a Series, Gauge)> {
    let mut all: BTreeMap<Vec<String>, (&Series, Gauge)> = BTreeMap::new();
    for (i, series) in of.into_iter().enumerate() {
        for one in series {
            let key =
                ["host_id", "host", "target", "role", "endpoint"].map(|l| one.label(l).to_owned());
            let (_, gauge) = all
                .entry(key.to_vec())
                .or_insert_with(|| (one, Gauge::new()));
            for (step, value) in by_step(plan, one) {
                gauge.entry(step).or_default()[i] = Some(value);
            }
        }
    }
    all
}

fn gauge_roll(values: [Option<f64>; 3], scale: f64, ns: u64) -> GaugeRoll {
    match values {
        [Some(min), Some(mean), Some(max)] => GaugeRoll {
            min: min * scale,
            mean: mean * scale,
            max: max * scale,
            measured_ns: ns,
        },
        _ => GaugeRoll::default(),
    }
}

fn host_series(
    plan: &Plan,
    labels: &Series,
    steps: &Gauge,
    covers: &Covers,
    place: usize,
    scale: f64,
) -> NamedSeries {
    let id = labels.label("host_id");
    let steps = steps.iter().filter(|(step, _)| **step > 0);
    let samples = steps.map(|(&step, &values)| {
        let cover = cover(plan, covers, id, step);
        let mut roll = HostRoll {
            covered_ns: cover.ns,
            incomplete: cover.incomplete,
            ..HostRoll::default()
        };
        roll.gauges[place] = gauge_roll(values, scale, cover.ns);
        (start_of(plan, step), roll)
    });
    let samples = Samples::Host(samples.collect());
    named(plan, labels, samples)
}

fn active_series(plan: &Plan, labels: &Series, steps: &Gauge, covers: &Covers) -> NamedSeries {
    let steps = steps.iter().filter(|(step, _)| **step > 0);
    let samples = steps.map(|(&step, &values)| {
        let cover = cover(plan, covers, labels.label("host_id"), step);
        let roll = EndpointRoll {
            active: gauge_roll(values, 1.0, cover.ns),
            ..covered(cover)
        };
        (start_of(plan, step), roll)
    });
    let samples = Samples::Endpoint(samples.collect());
    named(plan, labels, samples)
}

fn covered(cover: Cover) -> EndpointRoll {
    EndpointRoll {
        covered_ns: cover.ns,
        http_ns: cover.ns,
        incomplete: cover.incomplete,
        ..EndpointRoll::default()
    }
}

/// What a total grew by in a step, since an earlier step that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Growth {
    since_step: u64,
    step: u64,
    n: u64,
}

/// Of each step that has a total; a step without an earlier total says nothing.
/// A total that fell began anew.
fn growth(totals: &BTreeMap<u64, f64>) -> impl Iterator<Item = Growth> {
    let pairs = totals.iter().zip(totals.iter().skip(1));
    pairs.map(|((&since_step, before), (&step, &now))| {
        let grown = if now >= *before { now - before } else { now };
        Growth {
            since_step,
            step,
            n: grown as u64,
        }
    })
}

/// How much time is between totals.
struct Times<'a> {
    plan: &'a Plan,
    seen: Seen,
    covers: Covers,
}

impl<'a> Times<'a> {
    fn new(plan: &'a Plan, seen: &[Series], complete: &[Series]) -> Self {
        Self {
            plan,
            seen: largest(plan, seen, unix_ns),
            covers: covers(plan, &[], complete),
        }
    }

    /// A step that covers the time between two totals: not that of its own
    /// windows, since a scrape passes over reports, and totals go on through a
    /// gap.  `None` where the report of both is the same.
    fn roll(&self, host_id: &str, since_step: u64, step: u64) -> Option<EndpointRoll> {
        let seen = |step| self.seen.get(host_id)?.get(&step).copied();
        let ns = match (seen(since_step), seen(step)) {
            (Some(before), Some(now)) if now >= before => now - before,
            // Unknown, or a clock was set back.
            _ => (step - since_step).saturating_mul(self.plan.step_s.saturating_mul(1_000_000_000)),
        };
        let incomplete = cover(self.plan, &self.covers, host_id, step).incomplete;
        (ns > 0).then(|| covered(Cover { ns, incomplete }))
    }
}

fn counter_series(
    times: &Times<'_>,
    series: &Series,
    of: fn(&mut EndpointRoll) -> &mut u64,
) -> NamedSeries {
    let plan = times.plan;
    let totals = by_step(plan, series);
    let samples = growth(&totals).filter_map(|grown| {
        let mut roll = times.roll(series.label("host_id"), grown.since_step, grown.step)?;
        *of(&mut roll) = grown.n;
        Some((start_of(plan, grown.step), roll))
    });
    let samples = Samples::Endpoint(samples.collect());
    named(plan, series, samples)
}

fn histogram_series(
    times: &Times<'_>,
    boundaries: &[Series],
    of: fn(&mut EndpointRoll) -> &mut v1::Histogram,
) -> Vec<NamedSeries> {
    let plan = times.plan;
    let mut endpoints: BTreeMap<Vec<&str>, Vec<&Series>> = BTreeMap::new();
    for series in boundaries {
        let key = ["host_id", "host", "target", "role", "endpoint"].map(|l| series.label(l));
        endpoints.entry(key.to_vec()).or_default().push(series);
    }
    let endpoints = endpoints.into_values().filter_map(|boundaries| {
        let mut steps: BTreeMap<u64, (u64, Vec<(f64, u64)>)> = BTreeMap::new();
        for series in &boundaries {
            let Ok(le) = series.label("le").parse::<f64>() else {
                continue;
            };
            for grown in growth(&by_step(plan, series)) {
                let none = (grown.since_step, Vec::new());
                let (since_step, not_above) = steps.entry(grown.step).or_insert(none);
                *since_step = grown.since_step.min(*since_step);
                not_above.push((le, grown.n));
            }
        }
        let labels = *boundaries.first()?;
        let samples = steps
            .into_iter()
            .filter_map(|(step, (since_step, not_above))| {
                let mut roll = times.roll(labels.label("host_id"), since_step, step)?;
                *of(&mut roll) = histogram(not_above);
                Some((start_of(plan, step), roll))
            });
        let samples = Samples::Endpoint(samples.collect());
        Some(named(plan, labels, samples))
    });
    endpoints.collect()
}

/// The histogram of classic buckets, each of which holds what is not above its
/// boundary.
pub(super) fn histogram(mut not_above: Vec<(f64, u64)>) -> v1::Histogram {
    not_above.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0u64;
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    let mut last_index = 0;
    for (le, n) in not_above {
        // Bucket i of scale 0 ends at 2^(i+1); what is above the last boundary
        // is taken as in the next bucket.
        let index = if le.is_finite() && le > 0.0 {
            (le.log2().round() as i32).clamp(-64, 64) - 1
        } else {
            last_index + 1
        };
        last_index = index;
        *counts.entry(index).or_default() += n.saturating_sub(below);
        below = below.max(n);
    }
    let (Some(&first), Some(&last)) = (counts.keys().next(), counts.keys().next_back()) else {
        return v1::Histogram::default();
    };
    let mut histogram = v1::Histogram {
        count: below,
        scale: SCALE,
        offset: first,
        buckets: (first..=last)
            .map(|index| counts.get(&index).copied().unwrap_or(0))
            .collect(),
        ..v1::Histogram::default()
    };
    monitor_proto::histogram::trim(&mut histogram);
    histogram
}

/// A role by its name.
pub(super) fn role(name: &str) -> i32 {
    let role = match name {
        "downstream" => v1::Role::Downstream,
        "upstream" => v1::Role::Upstream,
        _ => v1::Role::Unspecified,
    };
    role.into()
}

fn named(plan: &Plan, labels: &Series, samples: Samples) -> NamedSeries {
    let endpoint = (plan.metric.scope() == Scope::Endpoint).then(|| endpoint_id(labels));
    NamedSeries {
        host_name: labels.label("host").to_owned(),
        host_id: labels.label("host_id").to_owned(),
        endpoint,
        names: EndpointNames::default(),
        samples,
    }
}

pub(super) fn endpoint_id(labels: &Series) -> EndpointId {
    EndpointId {
        role: role(labels.label("role")),
        target: labels.label("target").to_owned(),
        address: labels.label("endpoint").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Metric;

    #[test]
    fn every_metric_has_a_source() {
        for name in Metric::names().split(", ") {
            assert!(source(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_total_that_fell_began_anew_and_a_gap_is_bridged() {
        let totals = [(0, 10.0), (1, 15.0), (4, 35.0), (5, 3.0)].into();
        let grown: Vec<_> = growth(&totals).map(|g| (g.step, g.n)).collect();
        assert_eq!(grown, [(1, 5), (4, 20), (5, 3)]);
    }

    /// A minute each step, from 600 s on; the values are of the steps' ends.
    fn plan() -> Plan {
        let metric = Metric::find("bytes_sent").unwrap();
        Plan::try_new(metric, 600, 900, Some(60)).unwrap()
    }

    fn by_step_of(values: &[(u64, f64)]) -> Series {
        let at = |&(step, value): &(u64, f64)| ((600 + step * 60) as f64, value);
        Series {
            values: values.iter().map(at).collect(),
            ..Series::default()
        }
    }

    /// The rates by step that these totals and times amount to, with coverage.
    fn rates(seen: &[Series], totals: &[(u64, f64)]) -> Vec<Option<(f64, f64)>> {
        let plan = plan();
        let complete = [by_step_of(&[1, 2, 3, 4, 5].map(|step| (step, 1.0)))];
        let times = Times::new(&plan, seen, &complete);
        let series = counter_series(&times, &by_step_of(totals), |r| &mut r.bytes_sent);
        let points = crate::series::points_of_growth(&plan, &series.samples);
        let points = points.into_iter().map(|point| {
            let point = serde_json::to_value(point).unwrap();
            let value = point["value"].as_f64()?;
            assert!(point["complete"].as_bool().unwrap());
            Some((value, point["coverage"].as_f64().unwrap()))
        });
        points.collect()
    }

    #[test]
    fn rates_of_scraped_totals_are_of_the_time_between_the_reports_seen() {
        // A scrape sees a report that is up to a window old, a hundred a second;
        // two engines have the same.
        let times = [(0, 598.0), (1, 656.0), (2, 719.0), (3, 776.0)];
        let totals = times.map(|(step, at)| (step, at * 100.0));
        let seen = [by_step_of(&times), by_step_of(&times)];
        let rates = rates(&seen, &totals);
        let values: Vec<_> = rates
            .iter()
            .map(|rate| rate.map(|(value, _)| value))
            .collect();
        assert_eq!(values, [Some(100.0), Some(100.0), Some(100.0), None, None]);
        assert_eq!(rates[2], Some((100.0, 57.0 / 60.0)));
    }

    #[test]
    fn growth_over_a_gap_is_of_the_whole_gap_and_a_silent_host_has_no_rate() {
        // No sample for two steps; then a scrape that sees the same report.
        let times = [(0, 600.0), (1, 660.0), (4, 840.0), (5, 840.0)];
        let totals = times.map(|(step, at)| (step, at * 100.0));
        let full = Some((100.0, 1.0));
        assert_eq!(
            rates(&[by_step_of(&times)], &totals),
            [full, None, None, full, None]
        );
        // Nothing tells when: the steps' own time.
        let unknown = rates(&[], &totals);
        assert_eq!(unknown, [full, None, None, full, Some((0.0, 1.0))]);
    }

    #[test]
    fn the_cover_of_two_engines_with_the_same_series_is_that_of_one() {
        let covered = [by_step_of(&[(1, 50.0)]), by_step_of(&[(1, 60.0)])];
        let complete = [by_step_of(&[(1, 0.0)]), by_step_of(&[(1, 0.0)])];
        let covers = covers(&plan(), &covered, &complete);
        let cover = covers[""][&1];
        assert_eq!((cover.ns, cover.incomplete), (60_000_000_000, 1));
    }

    #[test]
    fn classic_buckets_are_octaves() {
        let h = histogram(vec![(f64::INFINITY, 12), (0.25, 1), (1.0, 9), (0.5, 4)]);
        assert_eq!((h.scale, h.offset, h.count), (0, -3, 12));
        assert_eq!(h.buckets, [1, 3, 5, 3]);
        // Counters that are read at different times may cross.
        let crossed = histogram(vec![(0.5, 4), (1.0, 3)]);
        assert_eq!((crossed.offset, crossed.buckets), (-2, vec![4]));
        assert_eq!(histogram(vec![]), v1::Histogram::default());
        assert!(!histogram(vec![(1e300, 5), (-1.0, 7)]).buckets.is_empty());
    }
}
