//! The HTTP/1.1 server and the bounds of one connection.

use std::{io, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::sync::mpsc;

use crate::listen::Connection;

/// The longest that a request's head may take; also how long a connection may
/// wait for its next request.
const HEAD_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
/// Of a request's head, and of what waits to be sent.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Serves until there is no connection to come, and then ends what is open.
pub(super) async fn serve(
    mut connections: mpsc::Receiver<Connection>,
    router: Router,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    while let Some(connection) = connections.recv().await {
        let service = router.clone().layer(Extension(connection.peer().clone()));
        let served =
            http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
        let served = graceful.watch(served);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "an HTTP connection broke");
            }
        });
    }
    graceful.shutdown().await;
    Ok(())
}
