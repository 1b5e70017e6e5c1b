//! `/api/v1/top`: who uses the listeners.

use axum::{
    Extension,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use budget::Use;
use query::{QueryBackend, TopQuestion, TopSort};
use serde::Deserialize;

use super::{State, hold, problem::Problem, reports, series};
use crate::auth::Peer;

/// What a row takes in the answer's text.
const ROW_BYTES: u64 = 1 << 10;

/// An empty parameter is one that was not given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TopQuery {
    by: String,
    host: String,
    since: String,
    until: String,
    sort: String,
    limit: String,
}

/// The clients of a range, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<TopQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let question = question(&query)?;
    let QueryBackend::Store(fleet, readers) = &state.query_backend else {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "the query backend of --query-url does not know clients: ask the collectors that take the \
             reports",
        ));
    };
    let hosts = fleet.chosen(&query.host);
    let room = state.budget.open(Use::Answers, &peer.name());
    let mut clients = readers.top(hosts, question, room).await?;
    let rows = question.limit as u64;
    clients.reading.held.grow(rows.saturating_mul(ROW_BYTES))?;
    hold::json(&state.pool, move || clients.answer(question)).await
}

fn question(query: &TopQuery) -> Result<TopQuestion, Problem> {
    if !matches!(query.by.as_str(), "" | "client") {
        return Err(Problem::unknown("by", &query.by, &["client"]));
    }
    let sort = match query.sort.as_str() {
        "" => TopSort::Bytes,
        name => TopSort::named(name)
            .ok_or_else(|| Problem::unknown("sort", name, &TopSort::ALL.map(TopSort::name)))?,
    };
    let (since_s, until_s) = series::range_s(&query.since, &query.until)?;
    if since_s >= until_s {
        return Err(Problem::bad_request("since is not before until"));
    }
    Ok(TopQuestion {
        sort,
        limit: reports::limit(&query.limit)?,
        since_s,
        until_s,
    })
}
