//! `/metrics`.

use std::{fs, sync::Arc};

use axum::{
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};
use budget::Use;
use daemon::clock::{steady_ns, unix_ns};
use export::{ReportSeries, metrics};
use query::QueryBackend;
use store::HostState;

use super::{State, hold, problem::Problem};
use crate::{
    problem_metrics::{self, PROBLEMS_MAX},
    problems::Wanted,
};

/// Every series, sent in chunks as they are made.
///
/// An engine has the series of the hosts already: scraped from here they would
/// be in it twice, so that this collector then tells of itself alone.
pub(super) async fn scrape(Shared(state): Shared<State>) -> Result<Response, Problem> {
    let hosts = match &state.query_backend {
        QueryBackend::Store(fleet, _) => fleet.all(),
        QueryBackend::Engine(_) => Vec::new(),
    };
    let store_bytes = fs::metadata(state.store_path.as_path()).map_or(0, |m| m.len());
    let scrapes = "scrapes".into();
    let stream = state
        .budget
        .take(Use::Scrapes, &scrapes, hold::STREAM_BYTES)?;
    let stream = Arc::new(stream);
    let own = crate::self_metrics::own(
        &state.stats,
        &state.budget,
        state.fleet.count(),
        store_bytes,
    );
    let problems = problems(&state).await?;
    let series = report_series(&state, hosts).await?;
    let chunks = [own, problems].into_iter().chain(metrics::chunks(series));
    let counted = chunks.map(move |chunk| Ok(stream.share(chunk)));
    let body = hold::streamed(&state.pool, counted);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// As the hosts', they are told by the collectors that take the reports.
async fn problems(state: &State) -> Result<String, Problem> {
    if matches!(state.query_backend, QueryBackend::Engine(_)) {
        return Ok(String::new());
    }
    let judgement = state.judgement.clone();
    let written = state.pool.run(move || {
        let now = judgement.now(&Wanted::default(), PROBLEMS_MAX);
        problem_metrics::problems(&now, judgement.stats())
    });
    Ok(written.await?)
}

/// Of all hosts as of now; one after another, so that others have their turn.
async fn report_series(
    state: &State,
    hosts: Vec<Arc<HostState>>,
) -> Result<Vec<Arc<ReportSeries>>, Problem> {
    let now = (unix_ns(), steady_ns());
    let mut all = Vec::with_capacity(hosts.len());
    for host in hosts {
        let room = state.budget.open(Use::Scrapes, &"scrapes".into());
        let series = state
            .pool
            .run(move || export::report_series(&host, now, room))
            .await??;
        all.extend(series);
    }
    Ok(all)
}
