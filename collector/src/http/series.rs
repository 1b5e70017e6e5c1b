//! `/api/v1/series`.

use axum::{
    Extension,
    extract::{Query, State as Shared, rejection::QueryRejection},
    response::Response,
};
use budget::Use;
use daemon::clock::unix_ns;
use monitor_proto::{json, labels, v1};
use query::{
    EndpointFilter, EndpointNames, NamedSeries, QueryBackend,
    series::{self, Metric, Plan, Point, Scope},
};
use serde::{Deserialize, Serialize};

use super::{State, hold, partial::PartialAnswer, problem::Problem};
use crate::{auth::Peer, time, validate::LABEL_BYTES_MAX};

const NS: u64 = 1_000_000_000;

const ENGINE_NOTE: &str = "from totals at each step's end: a rate leaves out what came before the \
     first total of a series; gauges are made of the newest sample of each window; quantiles of \
     buckets that are an octave wide";

/// An empty parameter is one that was not given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SeriesQuery {
    pub(super) host: String,
    role: String,
    endpoint: String,
    listener: String,
    upstream: String,
    backend: String,
    pub(super) metric: String,
    since: String,
    until: String,
    step: String,
}

/// Figures over time.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Series")]
pub(super) struct Answer {
    metric: &'static str,
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
    /// How far a value may be off, as a share of it; `null` where it is exact.
    error_ratio: Option<f64>,
    /// How an engine's figures differ from a store's.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "OneSeries")]
struct Series {
    /// Whose it is.
    host: HostName,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointName>,
    /// One a step, gaps included.
    points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
struct HostName {
    name: String,
    id: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
struct EndpointName {
    role: &'static str,
    endpoint: String,
    target: String,
    #[serde(flatten)]
    names: EndpointNames,
}

/// The series of a metric, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let plan = plan_of(state.query_backend.hosts_meant(&query.host), &query)?;
    let filter = filter(&query, &plan)?;
    let room = state.budget.open(Use::Answers, &peer.name());
    let (read, held) = state
        .query_backend
        .series(&query.host, filter, plan, room)
        .await?;
    let (read, mut held) = state.query_backend.name(read, &state.pool, held).await?;
    held.grow(series::points_bytes(&plan, read.value.len()))?;
    let (tier, error_ratio, note, points): (_, _, _, PointsOf) = match &state.query_backend {
        QueryBackend::Store(..) => (
            plan.tier.name(),
            plan.metric.error_ratio(),
            None,
            series::points,
        ),
        QueryBackend::Engine(_) => (
            "engine",
            plan.metric.engine_error_ratio(),
            Some(ENGINE_NOTE),
            series::points_of_growth,
        ),
    };
    let answer = move |read: Vec<NamedSeries>| {
        let mut series: Vec<Series> = read
            .iter()
            .map(|one| name(one, points(&plan, &one.samples)))
            .collect();
        series.sort_by(|a, b| (&a.host, &a.endpoint).cmp(&(&b.host, &b.endpoint)));
        Answer {
            metric: plan.metric.name,
            unit: plan.metric.unit,
            tier,
            step_s: plan.step_s,
            since: json::rfc3339(plan.start_s.saturating_mul(NS)),
            until: json::rfc3339(plan.end_s.saturating_mul(NS)),
            error_ratio,
            note,
            series,
        }
    };
    let body = move || {
        let _until_it_is_made = held;
        PartialAnswer::of(read, answer)
    };
    hold::json(&state.pool, body).await
}

/// How samples become points.
type PointsOf = fn(&Plan, &series::Samples) -> Vec<Point>;

fn name(one: &NamedSeries, points: Vec<Point>) -> Series {
    Series {
        host: HostName {
            name: one.host_name.clone(),
            id: one.host_id.clone(),
        },
        endpoint: one.endpoint.as_ref().map(|id| EndpointName {
            role: labels::role(id.role),
            endpoint: id.address.clone(),
            target: id.target.clone(),
            names: one.names.clone(),
        }),
        points,
    }
}

/// Steps that one answer holds for so many hosts.
pub(super) fn plan_of(hosts: u64, query: &SeriesQuery) -> Result<Plan, Problem> {
    let metric = Metric::find(&query.metric).ok_or_else(|| {
        Problem::bad_request(format!(
            "unknown metric={:?}: use one of {}",
            query.metric,
            Metric::names()
        ))
    })?;
    let (since_s, until_s) = range_s(&query.since, &query.until)?;
    let step_s = match query.step.as_str() {
        "" => None,
        text => Some(time::age_ns(text).map(|ns| ns / NS).ok_or_else(|| {
            Problem::bad_request(format!("step={text:?} is not a duration such as 10s or 5m"))
        })?),
    };
    Plan::of_hosts(hosts, metric, since_s, until_s, step_s)
        .map_err(|error| Problem::bad_request(error.to_string()))
}

/// The seconds of a range, which is the last hour where nothing is given.
pub(super) fn range_s(since: &str, until: &str) -> Result<(u64, u64), Problem> {
    let now = unix_ns();
    let at = |text: &str, absent: &str| {
        let text = if text.is_empty() { absent } else { text };
        time::parse(text, now).map_err(|error| Problem::bad_request(error.to_string()))
    };
    Ok((at(since, "1h")? / NS, at(until, "now")?.div_ceil(NS)))
}

/// A role by its name; `None` where nothing is given.
pub(super) fn role(name: &str) -> Result<Option<v1::Role>, Problem> {
    match name {
        "" => Ok(None),
        "downstream" => Ok(Some(v1::Role::Downstream)),
        "upstream" => Ok(Some(v1::Role::Upstream)),
        other => Err(Problem::bad_request(format!(
            "role={other:?} is neither downstream nor upstream"
        ))),
    }
}

/// A name of the proxy's configuration that is asked for; none is longer than a report
/// may have it.
fn name_of(parameter: &str, text: &str) -> Result<Option<String>, Problem> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(Problem::bad_request(format!(
            "{parameter} has {} bytes: no name has more than {LABEL_BYTES_MAX}",
            text.len()
        )));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

pub(super) fn filter(query: &SeriesQuery, plan: &Plan) -> Result<EndpointFilter, Problem> {
    let mut filter = EndpointFilter {
        address: (!query.endpoint.is_empty()).then(|| query.endpoint.clone()),
        listener: name_of("listener", &query.listener)?,
        upstream: name_of("upstream", &query.upstream)?,
        backend: name_of("backend", &query.backend)?,
        ..EndpointFilter::default()
    };
    let chosen = !query.role.is_empty() || filter.address.is_some() || filter.is_by_name();
    if chosen && plan.metric.scope() == Scope::Host {
        return Err(Problem::bad_request(format!(
            "{} is of a host: leave out role, endpoint, listener, upstream and backend",
            plan.metric.name
        )));
    }
    let of_backends = filter.upstream.is_some() || filter.backend.is_some();
    let meant = match (filter.listener.is_some(), of_backends) {
        (true, true) => {
            return Err(Problem::bad_request(
                "listener is downstream, upstream and backend are upstream: ask for one of the two"
                    .to_owned(),
            ));
        }
        (true, false) => Some(v1::Role::Downstream),
        (false, true) => Some(v1::Role::Upstream),
        (false, false) => None,
    };
    let role = role(&query.role)?;
    if let (Some(role), Some(meant)) = (role, meant)
        && role != meant
    {
        return Err(Problem::bad_request(format!(
            "role={} has none of these: leave it out",
            labels::role(role.into())
        )));
    }
    filter.role = role.or(meant).map(Into::into);
    Ok(filter)
}
