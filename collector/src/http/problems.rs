//! `/api/v1/problems`: what is wrong now.

use axum::{
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use problems::{Kind, PROBLEMS_MAX, Severity};
use query::QueryBackend;
use serde::Deserialize;

use super::{State, hold, problem::Problem};
use crate::problems::Wanted;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProblemsQuery {
    host: String,
    kind: String,
    severity: String,
}

/// Worst first.
pub(super) async fn list(
    Shared(state): Shared<State>,
    query: Result<Query<ProblemsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let wanted = wanted(query)?;
    if matches!(state.query_backend, QueryBackend::Engine(_)) {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "the query backend of --query-url does not provide problems: ask the collectors that take the \
             reports, or query speedmimi_problem where an engine scrapes them",
        ));
    }
    hold::json(&state.pool, move || {
        state.judgement.now(&wanted, PROBLEMS_MAX)
    })
    .await
}

fn wanted(query: ProblemsQuery) -> Result<Wanted, Problem> {
    let kind = match query.kind.as_str() {
        "" => None,
        name => Some(
            Kind::named(name)
                .ok_or_else(|| Problem::unknown("kind", name, &Kind::ALL.map(Kind::name)))?,
        ),
    };
    let severity = match query.severity.as_str() {
        "" => None,
        name => Some(Severity::named(name).ok_or_else(|| {
            Problem::unknown("severity", name, &Severity::ALL.map(Severity::word))
        })?),
    };
    Ok(Wanted {
        host: query.host,
        kind,
        severity,
    })
}
