//! Answers count against the budget of memory until they are taken.
//!
//! A reader that asks and does not read would hold all of its answers for as long as
//! it is waited for.

use axum::{
    Extension,
    body::{Body, Bytes, HttpBody as _, to_bytes},
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use budget::{Budget, Exhausted, Use};
use query::{Busy, Pool};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::problem::Problem;
use crate::auth::Peer;

/// What is sent at once of an answer that is made as it is taken.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// What such an answer takes until its end: chunks that are made, compressed and sent.
pub(super) const STREAM_BYTES: u64 = 512 << 10;
/// Smaller answers pass in any case: they tell why others do not.
const SMALL_BYTES: u64 = 4096;
/// What a compressor keeps.
const COMPRESSOR_BYTES: u64 = 320 << 10;

/// Counts an answer that is there as a whole; one that is made as it is taken has its
/// room before it begins.
pub(super) async fn whole(
    State(budget): State<Budget>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let compressed = request.headers().contains_key(header::ACCEPT_ENCODING);
    let response = next.run(request).await;
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    if bytes <= SMALL_BYTES {
        return response;
    }
    let more = if compressed { COMPRESSOR_BYTES } else { 0 };
    let held = match budget.take(Use::Answers, &peer.name(), bytes + more) {
        Ok(held) => held,
        Err(exhausted) => return Problem::from(exhausted).into_response(),
    };
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(held.around(bytes))),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// A body whose chunks are made one after another, on the pool's threads, as they are
/// taken.
pub(super) fn streamed<I>(pool: &Pool, chunks: I) -> Body
where
    I: Iterator<Item = Result<Bytes, Exhausted>> + Send + Unpin + 'static,
{
    let chunks = pool.stream(chunks);
    Body::from_stream(chunks.map(|chunk| -> Result<Bytes, Broken> { Ok(chunk??) }))
}

/// JSON that is made on the pool's threads.
pub(super) async fn json<T: Serialize>(
    pool: &Pool,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<Response, Problem> {
    let made = pool.run(move || serde_json::to_vec(&make())).await?;
    let text = made.map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
