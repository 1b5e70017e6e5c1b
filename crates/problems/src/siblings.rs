//! What is wrong with a backend, compared with the others of its upstream.

use std::collections::HashMap;

use crate::{
    Evidence, Kind, Place,
    endpoints::One,
    history::{Digest, Span},
    judge::Scene,
    track::{Extent, Measured, Told},
    words::{evidence, seconds, times},
};

/// The quantile of durations that is compared.
const QUANTILE: f64 = 0.9;
const EXCHANGES_MIN: u32 = 50;
/// A difference below these is no reason to get up.
const SLOWER_MIN_S: f64 = 0.020;
const ROUND_TRIPS_MIN: u32 = 20;
const ROUND_TRIP_MORE_MIN_S: f64 = 0.005;
const IMBALANCE_MIN: u32 = 200;
const IMBALANCE_SIBLING_MIN: u32 = 20;
const IMBALANCE_SIBLINGS_MIN: usize = 2;

/// A backend's value, and since when.
struct Valued<'a> {
    one: One<'a>,
    value: f64,
    count: u32,
    start_ns: u64,
}

pub(crate) fn judge(scene: &mut Scene<'_>) {
    let mut upstreams: HashMap<(&str, &str), Vec<One<'_>>> = HashMap::new();
    for (id, history) in scene.endpoints {
        if id.is_upstream() && !history.upstream.is_empty() {
            let of = upstreams
                .entry((&id.target, &history.upstream))
                .or_default();
            of.push(One { id, history });
        }
    }
    for backends in upstreams.values().filter(|all| all.len() > 1) {
        slow_backend(scene, backends);
        slow_round_trip(scene, backends);
        imbalance(scene, backends);
    }
}

/// The values of the backends that have enough of what is counted.
fn valued<'a>(
    scene: &Scene<'_>,
    backends: &[One<'a>],
    enough: u32,
    counted: fn(&Digest) -> u32,
    value: fn(&Digest) -> Option<f64>,
) -> Vec<Valued<'a>> {
    let of = |one: &One<'a>| {
        let recent = one
            .history
            .recent(scene.spans, |sum| counted(sum) >= enough);
        let count = counted(&recent.sum);
        Some(Valued {
            one: *one,
            value: value(&recent.sum).filter(|_| count >= enough)?,
            count,
            start_ns: recent.start_ns,
        })
    };
    backends.iter().filter_map(of).collect()
}

/// Measures each backend against the median of the others.
fn compare(
    scene: &mut Scene<'_>,
    kind: Kind,
    all: &[Valued<'_>],
    difference_min: f64,
    tell: impl Fn(&One<'_>, f64, f64, f64) -> (String, Vec<Evidence>),
) {
    let mut sorted: Vec<f64> = all.iter().map(|one| one.value).collect();
    sorted.sort_by(f64::total_cmp);
    for own in all {
        let Some(median) = median_without(&sorted, own.value) else {
            continue;
        };
        let ratio = own.value / median.max(f64::MIN_POSITIVE);
        let is_far = own.value - median >= difference_min;
        let measured = Measured {
            kind,
            key: own.one.key(),
            value: if is_far { ratio } else { 0.0 },
            extent: Extent::of(own.count, 1),
            start_ns: own.start_ns,
        };
        let host = scene.subject(Place::Host);
        scene.measure(measured, || {
            let (summary, evidence) = tell(&own.one, own.value, median, ratio);
            Told {
                subject: own.one.subject(host),
                summary,
                evidence,
                details: Vec::new(),
            }
        });
    }
}

/// The median of sorted values, one of which is left out: a thousand backends are
/// sorted once.
fn median_without(sorted: &[f64], own: f64) -> Option<f64> {
    let place = sorted.partition_point(|value| value.total_cmp(&own).is_lt());
    let at = |n: usize| sorted.get(n + usize::from(n >= place)).copied();
    let length = sorted.len().checked_sub(1)?;
    let upper = at(length / 2)?;
    match length % 2 {
        1 => Some(upper),
        _ => Some(f64::midpoint(at((length / 2).checked_sub(1)?)?, upper)),
    }
}

fn slow_backend(scene: &mut Scene<'_>, backends: &[One<'_>]) {
    let p90 = |d: &Digest| d.durations.quantile_seconds(QUANTILE);
    let all = valued(scene, backends, EXCHANGES_MIN, |d| d.durations.count(), p90);
    compare(
        scene,
        Kind::SlowBackend,
        &all,
        SLOWER_MIN_S,
        |one, own, median, ratio| {
            let summary = format!(
                "{} takes {} as long as its siblings (p90 {}, theirs {})",
                one.called(),
                times(ratio),
                seconds(own),
                seconds(median)
            );
            let figures = vec![
                evidence("exchange_duration.p90", own, "seconds"),
                evidence("siblings.p90", median, "seconds"),
                evidence("factor", ratio, "times"),
            ];
            (summary, figures)
        },
    );
}

fn slow_round_trip(scene: &mut Scene<'_>, backends: &[One<'_>]) {
    let mean = |d: &Digest| Some(d.round_trip_seconds());
    let all = valued(scene, backends, ROUND_TRIPS_MIN, |d| d.round_trips, mean);
    let least = ROUND_TRIP_MORE_MIN_S;
    compare(
        scene,
        Kind::SlowRoundTrip,
        &all,
        least,
        |one, own, median, ratio| {
            let summary = format!(
                "the network to {} takes {} as long as to its siblings (round trip {}, theirs {})",
                one.called(),
                times(ratio),
                seconds(own),
                seconds(median)
            );
            let figures = vec![
                evidence("srtt.mean", own, "seconds"),
                evidence("siblings.srtt.mean", median, "seconds"),
                evidence("factor", ratio, "times"),
            ];
            (summary, figures)
        },
    );
}

fn imbalance(scene: &mut Scene<'_>, backends: &[One<'_>]) {
    let has_requests = |one: &One<'_>| one.history.all(scene.spans).requests > 0;
    let counted: fn(&Digest) -> u32 = if backends.iter().any(has_requests) {
        |d| d.requests
    } else {
        |d| d.opened
    };
    // Of the same windows for all, as few of the newest as hold enough.
    let busiest = |number| {
        backends
            .iter()
            .map(move |one| one.history.count_from(number, counted))
    };
    let mut spans = scene.spans.iter().rev();
    let is_enough = |span: &&Span| busiest(span.number).max() >= Some(IMBALANCE_MIN);
    let Some(first) = spans.find(is_enough) else {
        return;
    };
    let all: Vec<Valued<'_>> = backends
        .iter()
        .zip(busiest(first.number))
        .filter(|(_, count)| *count >= IMBALANCE_SIBLING_MIN)
        .map(|(one, count)| Valued {
            one: *one,
            value: f64::from(count),
            count,
            start_ns: first.start_ns,
        })
        .collect();
    if all.len() <= IMBALANCE_SIBLINGS_MIN {
        return;
    }
    let least = f64::from(IMBALANCE_MIN);
    compare(
        scene,
        Kind::Imbalance,
        &all,
        least,
        |one, own, median, ratio| {
            let summary = format!(
                "{} gets {} as much as its siblings",
                one.called(),
                times(ratio)
            );
            let figures = vec![
                evidence("requests", own, "requests"),
                evidence("siblings.requests", median, "requests"),
                evidence("factor", ratio, "times"),
            ];
            (summary, figures)
        },
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::median_without;

    proptest! {
        #[test]
        fn a_median_is_that_of_the_others(values in prop::collection::vec(0u8..9, 0..12), n in 0usize..12) {
            let mut sorted: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            sorted.sort_by(f64::total_cmp);
            let own = sorted.get(n % sorted.len().max(1)).copied().unwrap_or(0.0);
            let mut others = sorted.clone();
            if let Some(place) = others.iter().position(|v| v.total_cmp(&own).is_eq()) {
                others.remove(place);
            }
            let middle = others.len() / 2;
            let expected = match (others.len(), others.len() % 2) {
                (0, _) => None,
                (_, 1) => Some(others[middle]),
                _ => Some(f64::midpoint(others[middle - 1], others[middle])),
            };
            prop_assert_eq!(median_without(&sorted, own), expected);
        }
    }
}
