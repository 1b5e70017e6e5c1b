//! `/api/v1/summary`: a time range summed up.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use budget::{Held, Use};
use daemon::clock::unix_ns;
use query::{
    QueryBackend, ReadError, Readers, Summed,
    summary::{self, By, Groups, Order, Question, Sort, SummaryPlan},
};
use serde::Deserialize;
use store::HostState;

use super::{State, csv, hold, problem::Problem, reports, series};
use crate::{auth::Peer, time};

const NS: u64 = 1_000_000_000;

/// An empty parameter is one that was not given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SummaryQuery {
    host: String,
    by: String,
    role: String,
    since: String,
    until: String,
    against: String,
    sort: String,
    limit: String,
}

/// The rows of a range, of one host or all.
pub(super) async fn read(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<SummaryQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let hosts = state.query_backend.hosts_meant(&query.host);
    let (question, order, before) = (question(&query, hosts)?, order(&query)?, against(&query)?);
    let QueryBackend::Store(fleet, readers) = &state.query_backend else {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "the query backend of --query-url does not provide summaries: ask the collectors that take the \
             reports, or query the recording rules of dist/prometheus in the engine",
        ));
    };
    let hosts = fleet.chosen(&query.host);
    let room = || state.budget.open(Use::Answers, &peer.name());
    let sums = sum_up(readers, &hosts, question, before, room).await?;
    let Sums {
        question,
        now,
        before,
    } = sums;
    let mut partial = now.partial();
    let mut held = now.reading.held;
    let mut against: Option<(SummaryPlan, Groups)> = None;
    if let Some((plan, sum)) = before {
        partial.extend(sum.partial());
        held.join(sum.reading.held);
        against = Some((plan, sum.groups));
    }
    let groups = now.groups.len() + against.as_ref().map_or(0, |(_, groups)| groups.len());
    held.grow(summary::answer_bytes(groups, order.limit))?;
    let answer = move || {
        let _until_it_is_made = held;
        let mut answer = summary::answer(question, order, now.groups, against);
        answer.partial = partial;
        answer
    };
    if csv::wanted(&headers) {
        let text = state.pool.run(move || csv::summary(&answer())).await?;
        return Ok(csv::response(Body::from(text)));
    }
    hold::json(&state.pool, answer).await
}

/// A range and the one that it is compared with, both from the same tier.
struct Sums {
    question: Question,
    now: Summed,
    before: Option<(SummaryPlan, Summed)>,
}

impl Sums {
    /// Whether this tier keeps everything that is kept of both ranges.
    fn is_whole(&self) -> bool {
        let before = self.before.iter().map(|(_, sum)| sum);
        before
            .chain([&self.now])
            .all(|sum| sum.lacks_until_s.is_none())
    }
}

/// From the reports of a range that is short enough, or where some of them are not kept
/// any more or there are too many, from its roll-ups.
async fn sum_up(
    readers: &Readers,
    hosts: &[Arc<HostState>],
    mut question: Question,
    age: Option<Duration>,
    room: impl Fn() -> Held,
) -> Result<Sums, Problem> {
    let mut finest = None;
    loop {
        let coarser = question.plan.coarser();
        match in_tier(readers, hosts, question, age, &room).await {
            Ok(sums) if sums.is_whole() || coarser.is_none() => return Ok(sums),
            Ok(sums) => finest = finest.or(Some(sums)),
            Err(NoSums::Read(ReadError::TooMuch(_))) if coarser.is_some() => {}
            Err(NoSums::Read(ReadError::TooMuch(what))) => {
                return finest.ok_or_else(|| ReadError::TooMuch(what).into());
            }
            Err(NoSums::Read(error)) => return Err(error.into()),
            Err(NoSums::TooOld) => {
                return Err(Problem::bad_request(
                    "against leads to before 1970: use a shorter age",
                ));
            }
        }
        if let Some(plan) = coarser {
            question.plan = plan;
        }
    }
}

/// Why a tier has no answer.
enum NoSums {
    Read(ReadError),
    /// The range it would be compared with begins before 1970.
    TooOld,
}

impl From<ReadError> for NoSums {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Both ranges from the tier of the question's plan.
async fn in_tier(
    readers: &Readers,
    hosts: &[Arc<HostState>],
    mut question: Question,
    age: Option<Duration>,
    room: &impl Fn() -> Held,
) -> Result<Sums, NoSums> {
    let Some(age) = age else {
        let now = readers.summary(hosts, question, room()).await?;
        return Ok(Sums {
            question,
            now,
            before: None,
        });
    };
    question.plan = question.plan.finished(unix_ns() / NS);
    let plan = question.plan.before(age).ok_or(NoSums::TooOld)?;
    let now = readers.summary(hosts, question, room()).await?;
    let before = Question { plan, ..question };
    let before = readers.summary(hosts, before, room()).await?;
    Ok(Sums {
        question,
        now,
        before: Some((plan, before)),
    })
}

fn question(query: &SummaryQuery, hosts: u64) -> Result<Question, Problem> {
    let by = match query.by.as_str() {
        "" => By::Backend,
        name => {
            By::named(name).ok_or_else(|| Problem::unknown("by", name, &By::ALL.map(By::name)))?
        }
    };
    let role = series::role(&query.role)?.unwrap_or_else(|| by.role());
    if by != By::Host && role != by.role() {
        return Err(Problem::bad_request(format!(
            "by={} is of the role {}: leave out role, or use by=host",
            by.name(),
            monitor_proto::labels::role(by.role().into())
        )));
    }
    let (since_s, until_s) = series::range_s(&query.since, &query.until)?;
    let plan = SummaryPlan::of_hosts(hosts, since_s, until_s)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(Question { by, role, plan })
}

fn order(query: &SummaryQuery) -> Result<Order, Problem> {
    let sort = match query.sort.as_str() {
        "" => Sort::Requests,
        name => Sort::named(name)
            .ok_or_else(|| Problem::unknown("sort", name, &Sort::ALL.map(Sort::name)))?,
    };
    Ok(Order {
        sort,
        limit: reports::limit(&query.limit)?,
    })
}

fn against(query: &SummaryQuery) -> Result<Option<Duration>, Problem> {
    if query.against.is_empty() {
        return Ok(None);
    }
    let age = time::age_ns(&query.against).filter(|ns| *ns >= NS);
    age.map(|ns| Some(Duration::from_nanos(ns))).ok_or_else(|| {
        Problem::bad_request(format!(
            "against={:?} is not an age such as 1h, 1d or 7d: 1s or more",
            query.against
        ))
    })
}
