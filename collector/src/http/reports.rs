//! `/api/v1/reports`.

use axum::{
    Json,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use monitor_proto::json;
use serde::Deserialize;

use super::{State, csv, newest, partly::Told, problem::Problem};
use crate::{
    engine::Partly,
    reading::Reading,
    store::{Filter, Selection},
    time,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Of one page, as it is encoded: JSON is several times that.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// An empty parameter is one that was not given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReportsQuery {
    host: String,
    since: String,
    until: String,
    limit: String,
    cursor: String,
    latest: String,
}

/// A page of reports, or with `latest=true` the newest one of each host.
pub(super) async fn list(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    query: Result<Query<ReportsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let csv = csv::wanted(&headers);
    if let ("true", false, Reading::Store(fleet, _)) = (query.latest.as_str(), csv, &state.reading)
    {
        selection(&state, &query)?;
        return Ok(newest::stream(fleet.chosen(&query.host)));
    }
    let reports = choose(&state, &query).await?;
    if !csv {
        return Ok(Json(Told::of(reports, |reports| reports)).into_response());
    }
    let reports = reports.value;
    let mut response = csv::response(csv::reports(&reports.reports));
    if let Some(link) = reports.next_cursor.and_then(|cursor| next_link(&cursor)) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Where the next page is, for those who get no JSON (RFC 8288).  Parameters
/// other than the cursor stay as they were.
fn next_link(cursor: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("<?cursor={cursor}>; rel=\"next\"")).ok()
}

async fn choose(state: &State, query: &ReportsQuery) -> Result<Partly<json::Reports>, Problem> {
    // What is wrong is told also where it would not count.
    let selection = selection(state, query)?;
    match query.latest.as_str() {
        "" | "false" => {}
        "true" => return latest(state, &query.host).await,
        other => {
            return Err(Problem::bad_request(format!(
                "latest={other:?} is neither true nor false"
            )));
        }
    }
    let Reading::Store(_, readers) = &state.reading else {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "whole reports are kept by collectors alone, not by the engine that --query-url names: \
             ask one without --query-url, or for latest=true, /api/v1/series or /api/v1/hosts",
        ));
    };
    let page = readers.page(selection).await?;
    Ok(Partly::whole(json::Reports {
        reports: page.reports.iter().map(Into::into).collect(),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

async fn latest(state: &State, host: &str) -> Result<Partly<json::Reports>, Problem> {
    let newest = state.reading.newest(host).await?;
    Ok(Partly {
        value: json::Reports {
            reports: newest.value.iter().map(Into::into).collect(),
            next_cursor: None,
        },
        partial: newest.partial,
    })
}

fn selection(state: &State, query: &ReportsQuery) -> Result<Selection, Problem> {
    let now = time::now_ns();
    let at = |text: &str, absent: u64| match text {
        "" => Ok(absent),
        text => time::parse(text, now).map_err(|error| Problem::bad_request(error.to_string())),
    };
    let filter = if query.host.is_empty() {
        Filter::All
    } else {
        let hosts = state.fleet.find(&query.host);
        Filter::Hosts(hosts.iter().map(|host| host.row.key).collect())
    };
    Ok(Selection {
        filter,
        since_ns: at(&query.since, 0)?,
        until_ns: at(&query.until, u64::MAX)?,
        after: match query.cursor.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error| Problem::bad_request(format!("{error}")))?,
            ),
        },
        limit: limit(&query.limit)?,
        bytes_max: PAGE_BYTES_MAX,
    })
}

fn limit(text: &str) -> Result<usize, Problem> {
    if text.is_empty() {
        return Ok(LIMIT_DEFAULT);
    }
    text.parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "limit={text:?} is not a number from 1 to {LIMIT_MAX}"
            ))
        })
}
