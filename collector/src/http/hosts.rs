//! `/api/v1/hosts` and what is below it.

use axum::{
    Json,
    extract::{Path, State as Shared},
};
use monitor_proto::json;

use super::{State, problem::Problem};

/// Every host.
pub(super) async fn list(Shared(state): Shared<State>) -> Json<json::Hosts> {
    Json(json::Hosts {
        hosts: state
            .fleet
            .all()
            .iter()
            .map(|host| json::HostSummary::from(&host.summary()))
            .collect(),
    })
}

/// The newest figures of one host, given by id or by a name it alone has.
pub(super) async fn stats(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
) -> Result<Json<json::StatsResponse>, Problem> {
    let found = state.fleet.find(&id);
    match found.as_slice() {
        [] => Err(Problem::not_found(format!(
            "no host has the id or name {id:?}: see /api/v1/hosts"
        ))),
        [host] => {
            let report = host.report().ok_or_else(|| {
                Problem::not_found("the newest report of this host is unreadable")
            })?;
            Ok(Json(json::StatsResponse {
                stats: json::Stats::from(&report),
            }))
        }
        several => Err(Problem::bad_request(format!(
            "{} hosts have the name {id:?}: give one of their ids, see /api/v1/hosts",
            several.len()
        ))),
    }
}
