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
    // What is wrong is told also where it would not count.
    let selection = selection(&state, &query)?;
    if let ("true", false, Reading::Store(fleet, _)) = (query.latest.as_str(), csv, &state.reading)
    {
        return Ok(newest::stream(fleet.chosen(&query.host)));
    }
    let (since_ns, until_ns) = (selection.since_ns, selection.until_ns);
    let reports = choose(&state, &query, selection).await?;
    if !csv {
        return Ok(Json(Told::of(reports, |reports| reports)).into_response());
    }
    let reports = reports.value;
    let mut response = csv::response(csv::reports(&reports.reports));
    if let Some(cursor) = reports.next_cursor {
        let link = next_link(&query, since_ns, until_ns, &cursor);
        let link = HeaderValue::try_from(link).map_err(|error| {
            tracing::error!(%error, "a link is no header");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Where the next page is, for those who get no JSON (RFC 8288): the reference
/// takes the place of the whole query, so it says all of it.  Ages are counted
/// from the first page's time on.
fn next_link(query: &ReportsQuery, since_ns: u64, until_ns: u64, cursor: &str) -> String {
    let mut link = format!("<?cursor={cursor}");
    for (name, value) in [
        ("host", encoded(&query.host)),
        ("since", time_of(&query.since, since_ns)),
        ("until", time_of(&query.until, until_ns)),
        ("limit", encoded(&query.limit)),
    ] {
        if !value.is_empty() {
            link.push_str(&format!("&{name}={value}"));
        }
    }
    link + ">; rel=\"next\""
}

fn time_of(given: &str, ns: u64) -> String {
    if given.is_empty() {
        String::new()
    } else {
        encoded(&json::rfc3339(ns))
    }
}

/// Percent-encoded, but for what is never special (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let bytes = text.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    bytes.collect()
}

async fn choose(
    state: &State,
    query: &ReportsQuery,
    selection: Selection,
) -> Result<Partly<json::Reports>, Problem> {
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
    Ok(Partly {
        value: json::Reports {
            reports: page.reports.iter().map(Into::into).collect(),
            next_cursor: page.next.map(|cursor| cursor.to_string()),
        },
        partial: page.partial(),
    })
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
