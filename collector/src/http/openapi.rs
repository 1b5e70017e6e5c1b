//! `/api/v1/openapi.json`.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

/// The description of this API; a test holds it against what is answered.
pub(super) async fn document() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
        .into_response()
}
