//! Whether the collector lives and can answer.

use axum::{Json, extract::State as Shared};
use serde_json::{Value, json};

use super::{State, problem::Problem};

/// The process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// Where answers come from answers too.
pub(super) async fn ready(Shared(state): Shared<State>) -> Result<Json<Value>, Problem> {
    state.query_backend.ready().await?;
    Ok(Json(json!({"status": "ready"})))
}
