//! Whether the collector lives and can answer.

use axum::{Json, extract::State as Shared};
use serde_json::{Value, json};

use super::{State, problem::Problem};

/// The process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// The store answers too.
pub(super) async fn ready(Shared(state): Shared<State>) -> Result<Json<Value>, Problem> {
    state
        .readers
        .read(|connection| {
            connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))?;
            Ok(())
        })
        .await?;
    Ok(Json(json!({"status": "ready"})))
}
