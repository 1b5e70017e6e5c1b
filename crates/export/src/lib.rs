//! Passes reports on: as Prometheus text format (`metrics`), by Prometheus remote
//! write and by OTLP.
//!
//! Architecture invariant: a request follows from its reports alone, byte for
//! byte; ingest never waits for a receiver.

mod ended;
mod forward;
pub mod metrics;
mod otlp;
mod receiver;
mod remote_write;
mod scrape;
mod stats;

pub use forward::{Forward, Sources};
pub use metrics::ReportSeries;
pub use otlp::Otlp;
pub use receiver::{Answer, Before, Part, Receiver, Rejection};
pub use remote_write::{BadUrl, RemoteUrl, RemoteWrite};
pub use scrape::report_series;
pub use stats::ForwardStats;
