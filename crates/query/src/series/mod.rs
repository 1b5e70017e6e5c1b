//! Figures over time, from reports or their roll-ups.  Pure: no store, no
//! clock.

mod heat;
mod metric;
mod plan;

pub use heat::{Duration, Heat, heat, heat_bytes};
pub(crate) use metric::QUANTILE_ERROR_RATIO;
pub use metric::{Metric, Scope};
use monitor_proto::json;
pub use plan::{BadPlan, Plan, Tier};
pub(crate) use plan::{RAW_REPORTS_MAX, WINDOW_S};
use rollup::{EndpointRoll, HostRoll, Rolling};
use serde::Serialize;

/// A figure in one step.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Point {
    /// The step's start, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    time: String,
    /// `null` where nothing was measured.
    value: Option<f64>,
    /// The smallest sample; gauges only.
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    /// The largest sample; gauges only.
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    /// Which share of the step the reports cover.
    coverage: f64,
    /// Whether every report in the step was complete.
    complete: bool,
}

/// What was read of one series: roll-ups by the second they count at.
#[derive(Clone, Debug)]
pub enum Samples {
    Host(Vec<(u64, HostRoll)>),
    Endpoint(Vec<(u64, EndpointRoll)>),
}

/// What a step comes to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figure {
    value: Option<f64>,
    range: Option<(f64, f64)>,
    covered_ns: u64,
    incomplete: u64,
}

/// The points of a series, one a step, gaps included.
pub fn points(plan: &Plan, samples: &Samples) -> Vec<Point> {
    let mut figures = figures(plan, samples);
    spread(plan, figures.iter_mut().map(|(_, figure)| figure).rev());
    shown(plan, &figures)
}

/// The same of an engine, whose samples are the growth of totals: it may lie over
/// reports that were lost, which a window never does, so that it ends no gap.
pub fn points_of_growth(plan: &Plan, samples: &Samples) -> Vec<Point> {
    shown(plan, &figures(plan, samples))
}

fn shown(plan: &Plan, figures: &[(u64, Figure)]) -> Vec<Point> {
    let figures = figures.iter();
    figures
        .map(|(start_s, figure)| point(plan, *start_s, figure))
        .collect()
}

fn figures(plan: &Plan, samples: &Samples) -> Vec<(u64, Figure)> {
    let metric = &plan.metric;
    match samples {
        Samples::Host(samples) => steps(plan, samples)
            .into_iter()
            .map(|(start_s, roll)| (start_s, metric.of_host(&roll)))
            .collect(),
        Samples::Endpoint(samples) => steps(plan, samples)
            .into_iter()
            .map(|(start_s, roll)| (start_s, metric.of_endpoint(&roll)))
            .collect(),
    }
}

/// A window that is longer than a step, as after a time without an agent, covers
/// the steps before the one in which it ends: what was counted in it is no gap.
/// What a gauge was in them nobody knows.
fn spread<'a>(plan: &Plan, latest_first: impl Iterator<Item = &'a mut Figure>) {
    let step_ns = plan.step_s.saturating_mul(1_000_000_000);
    let mut over_ns = 0;
    let mut value = None;
    let mut incomplete = 0;
    for figure in latest_first {
        if over_ns > 0 && figure.covered_ns == 0 {
            figure.value = value.filter(|_| !plan.metric.is_gauge());
            figure.incomplete = incomplete;
        }
        let covered_ns = figure.covered_ns.saturating_add(over_ns);
        figure.covered_ns = covered_ns.min(step_ns);
        over_ns = covered_ns - figure.covered_ns;
        (value, incomplete) = (figure.value, figure.incomplete);
    }
}

/// What a point takes: itself, its time, and its text.
const POINT_BYTES: u64 = 400;

/// What the points of so many series take, with their text.
pub fn points_bytes(plan: &Plan, series: usize) -> u64 {
    plan.steps_count()
        .saturating_mul(series as u64 * POINT_BYTES)
}

/// Sums samples up by step.
fn steps<R: Rolling>(plan: &Plan, samples: &[(u64, R)]) -> Vec<(u64, R)> {
    let mut steps: Vec<(u64, R)> = plan
        .steps()
        .map(|start_s| (start_s, R::default()))
        .collect();
    for (at_s, roll) in samples {
        if let Some(i) = plan.step_of(*at_s)
            && let Some((_, sum)) = steps.get_mut(i)
        {
            sum.add(roll);
        }
    }
    steps
}

fn point(plan: &Plan, start_s: u64, figure: &Figure) -> Point {
    let coverage = figure.covered_ns as f64 / (plan.step_s as f64 * 1e9);
    Point {
        time: json::rfc3339(start_s.saturating_mul(1_000_000_000)),
        value: figure.value,
        min: figure.range.map(|(min, _)| min),
        max: figure.range.map(|(_, max)| max),
        coverage: coverage.min(1.0),
        complete: figure.covered_ns > 0 && figure.incomplete == 0,
    }
}

#[cfg(test)]
mod tests;
