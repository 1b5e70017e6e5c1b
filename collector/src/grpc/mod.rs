//! The gRPC services.

mod export;
mod ingest;
mod loads;
mod problems;
mod query;
mod receive_timeout;
mod server;
mod stream_tracking;

pub(crate) use ingest::Ingest;
use monitor_proto::AUTHORIZATION;
pub(crate) use query::Query;
pub(crate) use server::serve;
use tonic::Request;

use crate::{auth::Peer, listen::Origin};

/// What a request and its connection show of who sent it.
fn shown<T>(request: &Request<T>) -> (Option<&str>, Peer) {
    let header = request
        .metadata()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let origin = request.extensions().get::<Origin>();
    let peer = origin.map(|origin| origin.peer.clone());
    (header, peer.unwrap_or_default())
}
