//! Errors as problem documents (RFC 9457).

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use budget::Exhausted;
use query::{Busy, EngineError, QueryBackendError, ReadError};
use serde::Serialize;

/// When it is worth to ask again where something was in the way.
const RETRY_AFTER_S: &str = "5";

/// What went wrong, for people and programs (RFC 9457).
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Problem {
    /// The name of the status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong, and what to do.
    detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A parameter has none of the values that it may have.
    pub(crate) fn unknown(parameter: &str, value: &str, known: &[&str]) -> Self {
        Self::bad_request(format!(
            "{parameter}={value:?} is not known: use one of {}",
            known.join(", ")
        ))
    }

    /// What went wrong is for the log as well.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %daemon::error_chain(error), "cannot build a response");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = header::HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<Exhausted> for Problem {
    fn from(exhausted: Exhausted) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, exhausted.to_string())
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, busy.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Busy | ReadError::Stopping | ReadError::Exhausted(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            ReadError::TooMuch(_) => Self::bad_request(error.to_string()),
            ReadError::Sqlite(_) => {
                tracing::error!(error = %daemon::error_chain(&error), "cannot read the store");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<QueryBackendError> for Problem {
    fn from(error: QueryBackendError) -> Self {
        match error {
            QueryBackendError::Store(error) => error.into(),
            QueryBackendError::Engine(error) => {
                let status = match error {
                    EngineError::NoAnswer { .. } => StatusCode::BAD_GATEWAY,
                    EngineError::TooMuch(_) => StatusCode::BAD_REQUEST,
                    EngineError::Stopping | EngineError::Exhausted(_) => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                };
                Self::new(status, error.to_string())
            }
        }
    }
}
