//! `/api/v1/heatmap`: how durations spread over time.

use axum::{
    Json,
    extract::{Query, State as Shared, rejection::QueryRejection},
};
use monitor_proto::json;
use serde::Serialize;

use super::{
    State,
    partly::Told,
    problem::Problem,
    series::{SeriesQuery, filter, plan_of},
};
use crate::{
    reading::Reading,
    series::{self, Duration, Heat},
};

const NS: u64 = 1_000_000_000;

/// Durations by step and bucket, summed over the chosen endpoints.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    metric: &'static str,
    /// Of the boundaries.
    unit: &'static str,
    /// Where the figures come from: `raw`, `1m`, `1h` or `engine`.
    tier: &'static str,
    step_s: u64,
    since: String,
    until: String,
    #[serde(flatten)]
    heat: Heat,
}

/// The spread of a duration, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<Told<Answer>>, Problem> {
    let Query(mut query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let duration = match query.metric.as_str() {
        "" => Duration::Exchange,
        name => Duration::find(name).ok_or_else(|| {
            Problem::bad_request(format!(
                "metric={name:?} is neither exchange_duration nor connect_duration"
            ))
        })?,
    };
    // The same steps, tiers and bounds as a quantile's series.
    query.metric = format!("{}_p99", duration.name());
    let plan = plan_of(state.reading.hosts_meant(&query.host), &query)?;
    let filter = filter(&query, &plan)?;
    let read = state.reading.series(&query.host, filter, plan).await?;
    let tier = match &state.reading {
        Reading::Store(..) => plan.tier.name(),
        Reading::Engine(_) => "engine",
    };
    Ok(Json(Told::of(read, |read| Answer {
        metric: duration.name(),
        unit: "s",
        tier,
        step_s: plan.step_s,
        since: json::rfc3339(plan.start_s.saturating_mul(NS)),
        until: json::rfc3339(plan.end_s.saturating_mul(NS)),
        heat: series::heat(&plan, duration, read.iter().map(|one| &one.samples)),
    })))
}
