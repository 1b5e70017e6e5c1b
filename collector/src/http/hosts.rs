//! `/api/v1/hosts` and what is below it.

use axum::{
    Extension,
    extract::{Path, State as Shared},
    response::Response,
};
use budget::Use;
use monitor_proto::json;

use super::{State, hold, partial::PartialAnswer, problem::Problem};
use crate::auth::Peer;

/// Every host.
pub(super) async fn list(Shared(state): Shared<State>) -> Result<Response, Problem> {
    let hosts = state.query_backend.hosts().await?;
    let body = move || {
        PartialAnswer::of(hosts, |hosts| json::Hosts {
            hosts: hosts.iter().map(Into::into).collect(),
        })
    };
    hold::json(&state.pool, body).await
}

/// The newest figures of one host, given by id or by a name it alone has.
pub(super) async fn stats(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let room = state.budget.open(Use::Answers, &peer.name());
    let (found, _held) = state.query_backend.newest(&id, &state.pool, room).await?;
    match found.value.len() {
        0 => Err(Problem::not_found(format!(
            "no host has the id or name {id:?}: see /api/v1/hosts"
        ))),
        1 => {
            let body = || {
                PartialAnswer::of(found, |reports| json::StatsResponse {
                    stats: reports.first().map(json::Stats::from).unwrap_or_default(),
                })
            };
            hold::json(&state.pool, body).await
        }
        several => Err(Problem::bad_request(format!(
            "{several} hosts have the name {id:?}: use a host id, see /api/v1/hosts"
        ))),
    }
}
