//! Answers to questions about reports: pages of them, and series of metrics made
//! of them, from the store or from a Prometheus-compatible engine.
//!
//! Architecture invariant: nothing here writes, and every answer has a bound in
//! series, points and bytes.

mod endpoint_filter;
pub mod engine;
#[cfg(test)]
mod flips;
mod named_series;
mod partial;
mod pool;
mod query_backend;
mod read_error;
mod readers;
mod reading;
mod reports;
pub mod series;
mod stored_series;
mod stored_summary;
pub mod summary;
mod top;

pub use endpoint_filter::EndpointFilter;
pub use engine::{Engine, EngineError};
pub use named_series::{EndpointNames, NamedSeries};
pub use partial::Partial;
pub use pool::{Busy, Pool, give_way};
pub use query_backend::{QueryBackend, QueryBackendError};
pub use read_error::ReadError;
pub use readers::Readers;
pub use reports::{Filter, Page, Selection};
pub use stored_summary::Summed;
pub use top::{Clients, TopQuestion, TopSort};
