//! The gRPC server and the bounds of one connection.

use std::{io, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Error, Server};

use super::{Ingest, Query, timely::Timely};
use crate::{
    listen::Connection,
    stop::{Stopping, stopped},
};

/// A peer that does not answer a ping within the timeout is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one connection at once: an agent has one, a reader a few.
const STREAMS_MAX: u32 = 256;
/// Ours have less than a tenth of it.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Streams that were reset before they were looked at; more is an attack.
const RESETS_MAX: usize = 64;

/// Serves until the collector stops.
pub(crate) async fn serve(
    connections: mpsc::Receiver<Connection>,
    ingest: Ingest,
    query: Query,
    mut stopping: Stopping,
) -> Result<(), Error> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_header_list_size(Some(HEADERS_BYTES_MAX))
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .add_service(Timely(ingest.into_server()))
        .add_service(Timely(query.into_server()))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(Ok::<_, io::Error>),
            async move { stopped(&mut stopping).await },
        )
        .await
}
