//! `/metrics`.

use std::{convert::Infallible, fs, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};

use super::State;
use crate::{
    metrics::{self, HostSample},
    time::now_ns,
};

/// Every series, sent in chunks as they are made.
pub(super) async fn scrape(Shared(state): Shared<State>) -> Response {
    let now = now_ns();
    let hosts: Vec<HostSample> = state
        .fleet
        .all()
        .iter()
        .filter_map(|host| HostSample::new(host, now))
        .collect();
    let store_bytes = fs::metadata(state.store_path.as_path()).map_or(0, |m| m.len());
    let own = metrics::own(&state.stats, hosts.len(), store_bytes);
    let chunks = std::iter::once(own)
        .chain(metrics::chunks(Arc::new(hosts)))
        .filter(|chunk| !chunk.is_empty())
        .map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        Body::from_stream(tokio_stream::iter(chunks)),
    )
        .into_response()
}
