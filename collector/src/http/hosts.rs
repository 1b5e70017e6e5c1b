//! `/api/v1/hosts` and what is below it.

use axum::{
    Json,
    extract::{Path, State as Shared},
};
use monitor_proto::json;

use super::{State, partly::Told, problem::Problem};

/// Every host.
pub(super) async fn list(Shared(state): Shared<State>) -> Result<Json<Told<json::Hosts>>, Problem> {
    let hosts = state.reading.hosts().await?;
    Ok(Json(Told::of(hosts, |hosts| json::Hosts {
        hosts: hosts.iter().map(Into::into).collect(),
    })))
}

/// The newest figures of one host, given by id or by a name it alone has.
pub(super) async fn stats(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
) -> Result<Json<Told<json::StatsResponse>>, Problem> {
    let found = state.reading.newest(&id).await?;
    match found.value.as_slice() {
        [] => Err(Problem::not_found(format!(
            "no host has the id or name {id:?}: see /api/v1/hosts"
        ))),
        [report] => {
            let stats = json::Stats::from(report);
            Ok(Json(Told::of(found, |_| json::StatsResponse { stats })))
        }
        several => Err(Problem::bad_request(format!(
            "{} hosts have the name {id:?}: give one of their ids, see /api/v1/hosts",
            several.len()
        ))),
    }
}
