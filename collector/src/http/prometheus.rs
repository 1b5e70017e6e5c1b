//! `/metrics`.

use std::{convert::Infallible, fs};

use axum::{
    body::{Body, Bytes},
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};

use super::State;
use crate::{
    metrics::{self, HostSample},
    reading::Reading,
    time::steady_ns,
};

/// Every series, sent in chunks as they are made.
///
/// An engine has the series of the hosts already: scraped from here they would
/// be in it twice, so that this collector then tells of itself alone.
pub(super) async fn scrape(Shared(state): Shared<State>) -> Response {
    let now = steady_ns();
    let hosts = match &state.reading {
        Reading::Store(fleet, _) => fleet.all(),
        Reading::Engine(_) => Vec::new(),
    };
    let store_bytes = fs::metadata(state.store_path.as_path()).map_or(0, |m| m.len());
    let own = metrics::own(&state.stats, state.fleet.len(), store_bytes);
    let of_hosts = metrics::chunks(hosts.len(), move |i| HostSample::new(&hosts[i], now));
    let chunks = std::iter::once(own)
        .chain(of_hosts)
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
