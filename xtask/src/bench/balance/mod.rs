//! What a balancer makes of backends that differ: ours, nginx's and `HAProxy`'s.
//!
//! All balancers run at once, each before backends of its own, and get the same
//! requests at the same moments: what the machine does besides falls on all of them
//! alike.  Capacities are made of waiting, so that all together take a part of a core
//! and times hold on a machine that has other things to do.

mod balancers;
mod cases;
mod load;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testkit::fixtures::Binaries;

use self::{
    balancers::{BALANCERS, Balancer, Stand},
    cases::{CASES, Case},
    load::{Answer, Running, arrivals},
};
use super::{Row, charts::Panel};
use crate::{
    command::{run, step},
    debian, requirements,
    workspace::Workspace,
};

/// What is drawn.
pub(super) const PANELS: [Panel; 7] = [
    Panel {
        metric: "p99_ratio_to_best_peer",
        cases: "",
        title: "adaptive: p99, to the best of nginx and HAProxy",
        reference: Some(1.0),
    },
    times("equal", "All backends equal: p99, ms"),
    times("quarter speed", "One at a quarter of the speed: p99, ms"),
    times(
        "degrades",
        "One becomes twenty times as slow: p99 from then on, ms",
    ),
    times("fails", "One dies and comes back: p99 from then on, ms"),
    times(
        "503",
        "Every second answer of one is 503: p99 of the good ones, ms",
    ),
    Panel {
        metric: "errors_percent",
        cases: "",
        title: "Requests without a good answer, percent",
        reference: Some(0.0),
    },
];

const fn times(cases: &'static str, title: &'static str) -> Panel {
    Panel {
        metric: "p99_ms",
        cases,
        title,
        reference: None,
    }
}

/// From the start of the load until its first request is due.
const LEAD: Duration = Duration::from_millis(300);

/// What is measured, and how long.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Only cases whose name has this in it, such as "fails"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often each case is run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// How long a case lasts, in seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=600))]
    seconds: Option<u16>,
    /// Requests per second of each balancer; four backends that are well answer 400
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=1000))]
    requests: u32,
}

/// What one balancer made of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    errors: f64,
    errors_percent: f64,
    /// Of these, more than were in flight when a backend died.
    errors_beyond_in_flight: f64,
    /// The share of the requests that the first backend answered.
    first_backend_percent: f64,
}

/// All samples of one case, in the order of the rounds.
type Samples = Vec<(Balancer, Vec<Sample>)>;

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, options: &Options, quick: bool) -> Result<Vec<Row>> {
    let rounds = options.rounds.unwrap_or(if quick { 1 } else { 6 });
    let seconds = options.seconds.unwrap_or(if quick { 6 } else { 15 });
    let only = options.only.as_deref().unwrap_or("");
    let cases: Vec<Case> = CASES
        .into_iter()
        .filter(|case| case.name().contains(only))
        .collect();
    ensure!(!cases.is_empty(), "--only: no case has such a name");
    requirements::raise_open_files();
    requirements::for_kernel_programs("cargo xtask bench balance")?;
    for (package, unit) in [("nginx-light", "nginx"), ("haproxy", "haproxy")] {
        debian::install_without_starting(package, unit)?;
    }
    let binaries = build(workspace)?;
    let duration = Duration::from_secs(u64::from(seconds));
    let arrivals = arrivals(options.requests, duration);
    let mut rows = Vec::new();
    let mut samples: Vec<(Case, Samples)> = cases
        .iter()
        .map(|case| (*case, BALANCERS.map(|one| (one, Vec::new())).into()))
        .collect();
    for round in 1..=rounds {
        for (case, of_case) in &mut samples {
            step(&format!("{}, round {round}/{rounds}", case.name()));
            let measured = measure(*case, &binaries, &arrivals, duration)?;
            for ((balancer, of_balancer), sample) in of_case.iter_mut().zip(measured) {
                eprintln!(
                    "    {:<24} {:>6.1} requests/s, p50 {:>6.1} ms, p99 {:>7.1} ms, {:>4} errors, {:>4.1} % by the first",
                    balancer.name(),
                    sample.requests_per_second,
                    sample.p50_ms,
                    sample.p99_ms,
                    sample.errors,
                    sample.first_backend_percent
                );
                of_balancer.push(sample);
            }
        }
    }
    for (case, of_case) in &samples {
        rows.extend(rows_of(*case, of_case));
    }
    Ok(rows)
}

/// Of the dev profile: what is measured is made of waiting.
fn build(workspace: &Workspace) -> Result<Binaries> {
    run(workspace
        .cargo()
        .args(["build", "--quiet", "--workspace", "--bins"]))?;
    Ok(Binaries::at(&workspace.target().join("debug")))
}

/// One case, by all balancers at once, in their order.
fn measure(
    case: Case,
    binaries: &Binaries,
    arrivals: &Arc<[Duration]>,
    duration: Duration,
) -> Result<Vec<Sample>> {
    let stands = BALANCERS
        .into_iter()
        .map(|balancer| Stand::start(balancer, binaries))
        .collect::<Result<Vec<_>>>()?;
    for stand in &stands {
        case.at_the_beginning(&stand.backends[0]);
    }
    let start = Instant::now() + LEAD;
    let loads = stands
        .iter()
        .map(|stand| Running::start(stand.address(), arrivals, start))
        .collect::<std::io::Result<Vec<_>>>()?;
    let wait = |part: Duration| {
        thread::sleep((start + part).saturating_duration_since(Instant::now()));
    };
    wait(duration / 3);
    let in_flight = stands
        .iter()
        .map(|stand| case.after_a_third(&stand.backends[0]))
        .collect::<Result<Vec<_>>>()?;
    wait(2 * duration / 3);
    for stand in &stands {
        case.after_two_thirds(&stand.backends[0])?;
    }
    let mut samples = Vec::new();
    for ((stand, load), in_flight) in stands.iter().zip(loads).zip(in_flight) {
        let answers = load.finish();
        let counted: Vec<Answer> = answers
            .into_iter()
            .filter(|answer| case.counts(answer.due, duration))
            .collect();
        let mut sample = Sample::of(&counted, duration - duration / 3, in_flight)
            .context("a balancer has no figures: run the bench on a machine that is less busy")?;
        let answers = stand.backends.iter().map(|one| one.answers() as f64);
        let all: f64 = answers.sum();
        sample.first_backend_percent = 100.0 * stand.backends[0].answers() as f64 / all.max(1.0);
        samples.push(sample);
    }
    for stand in stands {
        stand.end()?;
    }
    Ok(samples)
}

impl Sample {
    /// `None` where nothing was answered with 200: there is no time then.
    fn of(answers: &[Answer], duration: Duration, in_flight: u64) -> Option<Self> {
        let good = |answer: &&Answer| answer.status == Some(200);
        let times = answers.iter().filter(good);
        let mut ms: Vec<f64> = times.map(|one| one.took.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let errors = (answers.len() - ms.len()) as f64;
        Some(Self {
            requests_per_second: ms.len() as f64 / duration.as_secs_f64(),
            p50_ms: percentile(&ms, 500)?,
            p99_ms: percentile(&ms, 990)?,
            p999_ms: percentile(&ms, 999)?,
            errors,
            errors_percent: 100.0 * errors / answers.len().max(1) as f64,
            errors_beyond_in_flight: (errors - in_flight as f64).max(0.0),
            first_backend_percent: 0.0,
        })
    }
}

/// The least of the figures that so many of a thousand do not exceed; `None` of none.
fn percentile(sorted: &[f64], per_mille: usize) -> Option<f64> {
    let rank = (per_mille * sorted.len()).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The figures of every balancer, and those of the adaptive one as shares.
fn rows_of(case: Case, samples: &Samples) -> Vec<Row> {
    type Figure = fn(&Sample) -> f64;
    const FIGURES: [(&str, Figure); 8] = [
        ("requests_per_second", |s| s.requests_per_second),
        ("p50_ms", |s| s.p50_ms),
        ("p99_ms", |s| s.p99_ms),
        ("p999_ms", |s| s.p999_ms),
        ("errors", |s| s.errors),
        ("errors_percent", |s| s.errors_percent),
        ("errors_beyond_in_flight", |s| s.errors_beyond_in_flight),
        ("first_backend_percent", |s| s.first_backend_percent),
    ];
    let mut rows = Vec::new();
    let mut add = |balancer: Balancer, metric, figures: Vec<f64>| {
        let case = format!("{}: {}", case.name(), balancer.name());
        rows.extend(Row::of(&case, metric, figures));
    };
    for (balancer, of_balancer) in samples {
        for (metric, figure) in FIGURES {
            let is_of_this_case = metric != "errors_beyond_in_flight" || case == Case::Fails;
            if is_of_this_case {
                add(*balancer, metric, of_balancer.iter().map(figure).collect());
            }
        }
    }
    let p99 = |of_balancer: &[Sample], round: usize| of_balancer[round].p99_ms;
    let of = |balancer| samples.iter().find(|(one, _)| *one == balancer);
    let Some((_, adaptive)) = of(Balancer::Adaptive) else {
        return rows;
    };
    let ratios = |is_compared: fn(Balancer) -> bool| -> Vec<f64> {
        let rounds = 0..adaptive.len();
        let best = |round| {
            let compared = samples.iter().filter(|(one, _)| is_compared(*one));
            let all = compared.map(|(_, of_one)| p99(of_one, round));
            all.fold(f64::INFINITY, f64::min)
        };
        rounds
            .map(|round| p99(adaptive, round) / best(round))
            .collect()
    };
    let peers = ratios(Balancer::is_peer);
    add(Balancer::Adaptive, "p99_ratio_to_best_peer", peers);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let figures: Vec<f64> = (1..=1_000).map(f64::from).collect();
        let of = |per_mille| percentile(&figures, per_mille);
        assert_eq!([of(500), of(990), of(999)], [500.0, 990.0, 999.0].map(Some));
        assert_eq!(percentile(&[7.0], 999), Some(7.0));
        assert_eq!(percentile(&[], 500), None);
    }

    #[test]
    fn what_is_not_200_is_an_error_and_no_time() {
        let answer = |status, ms| Answer {
            due: Duration::ZERO,
            took: Duration::from_millis(ms),
            status,
        };
        let answers = [
            answer(Some(200), 10),
            answer(Some(503), 1),
            answer(None, 10_000),
        ];
        let of = |answers| Sample::of(answers, Duration::from_secs(2), 1);
        let figures = of(&answers).map(|sample| {
            let beyond = sample.errors_beyond_in_flight;
            [
                sample.requests_per_second,
                sample.p99_ms,
                sample.errors,
                beyond,
            ]
        });
        assert_eq!(figures, Some([0.5, 10.0, 2.0, 1.0]));
        assert!(of(&answers[1..]).is_none(), "no answer has a time");
    }
}
