//! The gRPC services.

mod ingest;

pub(crate) use ingest::Ingest;
