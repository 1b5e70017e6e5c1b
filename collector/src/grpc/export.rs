//! `ReportService`, which takes reports as the bytes they are.
//!
//! The generated service hands over decoded messages; what a report takes in memory
//! has to be known before that.

use std::{convert::Infallible, sync::Arc, task::Poll};

use monitor_proto::{
    EXPORT, EncodedExportRequest,
    v1::{self, report_service_server::SERVICE_NAME},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Context, Service, http},
    server::{Grpc, NamedService, StreamingService},
};

use super::ingest::{Answers, Ingest};

/// What tells one report from another, without the rest of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identity {
    #[prost(message, optional, tag = "2")]
    pub(super) agent: Option<v1::Agent>,
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
}

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ExportServer {
    pub(super) ingest: Arc<Ingest>,
    /// The largest message.
    pub(super) bytes_max: usize,
}

impl NamedService for ExportServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for ExportServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { ingest, bytes_max } = self.clone();
        Box::pin(async move {
            if request.uri().path() != EXPORT {
                return Ok(Status::unimplemented("").into_http());
            }
            let codec = tonic_prost::ProstCodec::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(bytes_max), None);
            Ok(grpc.streaming(Export(ingest), request).await)
        })
    }
}

struct Export(Arc<Ingest>);

impl StreamingService<EncodedExportRequest> for Export {
    type Response = v1::ExportResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<EncodedExportRequest>>) -> Self::Future {
        let ingest = Arc::clone(&self.0);
        Box::pin(async move { ingest.export(request) })
    }
}
