//! `/api/v1/series`.

use axum::{
    Json,
    extract::{Query, State as Shared, rejection::QueryRejection},
};
use monitor_proto::{json, v1};
use serde::{Deserialize, Serialize};

use super::{State, problem::Problem};
use crate::{
    names,
    series::{self, Metric, Plan, Point, Scope},
    store::{EndpointFilter, HostSeries, read_series},
    time,
};

const NS: u64 = 1_000_000_000;

/// An empty parameter is one that was not given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SeriesQuery {
    host: String,
    role: String,
    endpoint: String,
    metric: String,
    since: String,
    until: String,
    step: String,
}

/// Figures over time.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    metric: &'static str,
    unit: &'static str,
    /// Where the figures come from: `raw`, `1m` or `1h`.
    tier: &'static str,
    step_s: u64,
    since: String,
    until: String,
    /// How far a value may be off, as a share of it; `null` where it is exact.
    error_ratio: Option<f64>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Series {
    host: HostName,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointName>,
    points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct HostName {
    name: String,
    id: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct EndpointName {
    role: &'static str,
    endpoint: String,
    target: String,
}

/// The series of a metric, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<Answer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let plan = plan(&query)?;
    let filter = filter(&query, &plan)?;
    let hosts = if query.host.is_empty() {
        state.fleet.all()
    } else {
        state.fleet.find(&query.host)
    };
    let keys: Vec<i64> = hosts.iter().map(|host| host.row.key).collect();
    let read = state
        .readers
        .read(move |connection| read_series(connection, &keys, &filter, &plan))
        .await?;
    let mut series: Vec<Series> = read
        .iter()
        .filter_map(|one| {
            let host = hosts.iter().find(|host| host.row.key == one.host)?;
            Some(name(one, &host.newest.host, &plan))
        })
        .collect();
    series.sort_by(|a, b| (&a.host, &a.endpoint).cmp(&(&b.host, &b.endpoint)));
    Ok(Json(Answer {
        metric: plan.metric.name,
        unit: plan.metric.unit,
        tier: plan.tier.name(),
        step_s: plan.step_s,
        since: json::rfc3339(plan.start_s.saturating_mul(NS)),
        until: json::rfc3339(plan.end_s.saturating_mul(NS)),
        error_ratio: plan.metric.error_ratio(),
        series,
    }))
}

fn name(one: &HostSeries, host: &v1::Host, plan: &Plan) -> Series {
    Series {
        host: HostName {
            name: host.name.clone(),
            id: host.id.clone(),
        },
        endpoint: one.endpoint.as_ref().map(|id| EndpointName {
            role: names::role(id.role),
            endpoint: id.address.clone(),
            target: id.target.clone(),
        }),
        points: series::points(plan, &one.samples),
    }
}

fn plan(query: &SeriesQuery) -> Result<Plan, Problem> {
    let metric = Metric::find(&query.metric).ok_or_else(|| {
        Problem::bad_request(format!(
            "metric={:?} is none of {}",
            query.metric,
            Metric::names()
        ))
    })?;
    let now = time::now_ns();
    let at = |text: &str, absent: &str| {
        let text = if text.is_empty() { absent } else { text };
        time::parse(text, now).map_err(|error| Problem::bad_request(error.to_string()))
    };
    let since_s = at(&query.since, "1h")? / NS;
    let until_s = at(&query.until, "now")?.div_ceil(NS);
    let step_s = match query.step.as_str() {
        "" => None,
        text => Some(time::age_ns(text).map(|ns| ns / NS).ok_or_else(|| {
            Problem::bad_request(format!("step={text:?} is not a duration such as 10s or 5m"))
        })?),
    };
    Plan::try_new(metric, since_s, until_s, step_s)
        .map_err(|error| Problem::bad_request(error.to_string()))
}

fn filter(query: &SeriesQuery, plan: &Plan) -> Result<EndpointFilter, Problem> {
    let chosen = !query.role.is_empty() || !query.endpoint.is_empty();
    if chosen && plan.metric.scope() == Scope::Host {
        return Err(Problem::bad_request(format!(
            "{} is of a host: leave out role and endpoint",
            plan.metric.name
        )));
    }
    let role = match query.role.as_str() {
        "" => None,
        "downstream" => Some(v1::Role::Downstream.into()),
        "upstream" => Some(v1::Role::Upstream.into()),
        other => {
            return Err(Problem::bad_request(format!(
                "role={other:?} is neither downstream nor upstream"
            )));
        }
    };
    Ok(EndpointFilter {
        role,
        address: (!query.endpoint.is_empty()).then(|| query.endpoint.clone()),
    })
}
