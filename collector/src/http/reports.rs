//! `/api/v1/reports`.

use axum::{
    Extension,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use budget::{Held, Use};
use daemon::clock::unix_ns;
use monitor_proto::json;
use query::{Filter, QueryBackend, QueryBackendError, Selection};
use serde::Deserialize;
use serde_json::json;

use super::{
    State, csv,
    document::{Document, Form, SCRATCH_BYTES, Source},
    hold,
    problem::Problem,
};
use crate::{auth::Peer, time};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// What each answer takes beside its reports.
const STREAM_BYTES: u64 = hold::STREAM_BYTES + SCRATCH_BYTES;
/// Of one page, as it is encoded: JSON is several times that.
const PAGE_BYTES_MAX: u64 = 4 << 20;

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
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<ReportsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    // What is wrong is told also where it would not count.
    let selection = selection(&state, &query)?;
    let (since_ns, until_ns) = (selection.since_ns, selection.until_ns);
    let stream = state
        .budget
        .take(Use::Answers, &peer.name(), STREAM_BYTES)?;
    let chosen = choose(&state, &query, selection, stream).await?;
    if !csv::wanted(&headers) {
        let body = hold::streamed(&state.pool, chosen.json());
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let cursor = chosen.next_cursor.clone();
    let mut response = csv::response(hold::streamed(&state.pool, chosen.csv()));
    if let Some(cursor) = cursor {
        let link = next_link(&query, since_ns, until_ns, &cursor);
        let link = HeaderValue::try_from(link).map_err(|error| Problem::internal(&error))?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// What is answered.
struct Chosen {
    source: Source,
    room: Held,
    stream: Held,
    next_cursor: Option<String>,
    partial: Vec<String>,
}

impl Chosen {
    /// A `json::Reports`.
    fn json(self) -> Document {
        let form = Form {
            // A report has only finite numbers and texts.
            write: |report| serde_json::to_string(report).unwrap_or_default(),
            between: ",",
        };
        let (cursor, mut partial) = (json!(self.next_cursor), self.partial);
        let after = move |unreadable: &[String]| {
            partial.extend(unreadable.iter().map(|host| match host.as_str() {
                "" => "a stored report is damaged and was skipped".to_owned(),
                host => format!("host {host}: its newest report is damaged and was skipped"),
            }));
            if partial.is_empty() {
                return format!("],\"next_cursor\":{cursor}}}");
            }
            format!(
                "],\"next_cursor\":{cursor},\"partial\":{}}}",
                json!(partial)
            )
        };
        let room = (self.room, self.stream);
        Document::new(self.source, form, room, "{\"reports\":[", after)
    }

    fn csv(self) -> Document {
        let form = Form {
            write: csv::lines,
            between: "",
        };
        let room = (self.room, self.stream);
        Document::new(self.source, form, room, &csv::head(), |_| String::new())
    }
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
    mut stream: Held,
) -> Result<Chosen, Problem> {
    let latest = match query.latest.as_str() {
        "" | "false" => false,
        "true" => true,
        other => {
            return Err(Problem::bad_request(format!(
                "latest={other:?} is neither true nor false"
            )));
        }
    };
    let mut chosen = Chosen {
        source: Source::Made(Vec::new().into_iter()),
        room: stream.split(SCRATCH_BYTES),
        stream,
        next_cursor: None,
        partial: Vec::new(),
    };
    match &state.query_backend {
        QueryBackend::Store(fleet, _) if latest => {
            chosen.source = Source::Newest(fleet.chosen(&query.host).into_iter());
        }
        QueryBackend::Engine(engine) if latest => {
            let newest = engine
                .newest(&query.host)
                .await
                .map_err(QueryBackendError::from)?;
            chosen.source = Source::Made(newest.value.into_iter());
            chosen.partial = newest.partial;
        }
        QueryBackend::Store(_, readers) => {
            let page = readers.page(selection, chosen.room).await?;
            chosen.partial = page.partial();
            chosen.source = Source::Kept(page.bodies.into_iter());
            chosen.room = page.held;
            chosen.next_cursor = page.next.map(|cursor| cursor.to_string());
        }
        QueryBackend::Engine(_) => {
            return Err(Problem::new(
                StatusCode::NOT_IMPLEMENTED,
                "whole reports are kept by collectors alone, not by the engine that --query-url \
                 names: ask one without --query-url, or for latest=true, /api/v1/series or \
                 /api/v1/hosts",
            ));
        }
    }
    Ok(chosen)
}

fn selection(state: &State, query: &ReportsQuery) -> Result<Selection, Problem> {
    let now = unix_ns();
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
    let (since_ns, until_ns) = (at(&query.since, 0)?, at(&query.until, u64::MAX)?);
    if since_ns > until_ns {
        return Err(Problem::bad_request(format!(
            "since={:?} is after until={:?}: swap them",
            query.since, query.until
        )));
    }
    Ok(Selection {
        filter,
        since_ns,
        until_ns,
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

/// How many reports or rows are answered.
pub(super) fn limit(text: &str) -> Result<usize, Problem> {
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
