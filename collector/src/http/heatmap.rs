//! `/api/v1/heatmap`: how durations spread over time.

use axum::{
    Extension,
    extract::{Query, State as Shared, rejection::QueryRejection},
    response::Response,
};
use budget::Use;
use monitor_proto::json;
use query::{
    QueryBackend,
    series::{self, Duration, Heat},
};
use serde::Serialize;

use super::{
    State, hold,
    partial::PartialAnswer,
    problem::Problem,
    series::{SeriesQuery, filter, plan_of},
};
use crate::auth::Peer;

const NS: u64 = 1_000_000_000;

/// Durations by step and bucket, summed over the chosen endpoints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Heatmap")]
pub(super) struct Answer {
    metric: &'static str,
    /// Of the boundaries.
    unit: &'static str,
    /// Where the figures come from: `raw`, `1m`, `1h` or `engine`.
    #[schemars(extend("enum" = ["raw", "1m", "1h", "engine"]))]
    tier: &'static str,
    /// The length of a step.
    step_s: u64,
    /// The first step's start, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// The last step's end, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    until: String,
    #[serde(flatten)]
    heat: Heat,
}

/// The spread of a duration, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
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
    let plan = plan_of(state.query_backend.hosts_meant(&query.host), &query)?;
    let filter = filter(&query, &plan)?;
    let mut room = state.budget.open(Use::Answers, &peer.name());
    room.resize(series::heat_bytes(&plan))?;
    let (read, held) = state
        .query_backend
        .series(&query.host, filter, plan, room)
        .await?;
    let tier = match &state.query_backend {
        QueryBackend::Store(..) => plan.tier.name(),
        QueryBackend::Engine(_) => "engine",
    };
    let body = move || {
        let _until_it_is_made = held;
        PartialAnswer::of(read, |read| Answer {
            metric: duration.name(),
            unit: "s",
            tier,
            step_s: plan.step_s,
            since: json::rfc3339(plan.start_s.saturating_mul(NS)),
            until: json::rfc3339(plan.end_s.saturating_mul(NS)),
            heat: series::heat(&plan, duration, read.iter().map(|one| &one.samples)),
        })
    };
    hold::json(&state.pool, body).await
}
