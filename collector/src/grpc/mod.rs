//! The gRPC services.

mod ingest;
mod loads;
mod query;

pub(crate) use ingest::Ingest;
pub(crate) use query::Query;
