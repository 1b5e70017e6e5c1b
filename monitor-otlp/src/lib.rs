//! Reports as OpenTelemetry metrics, and a client that sends them by OTLP.
//!
//! The collector passes reports on by it, and so does an agent that has no
//! collector.  `convert` and `metrics` are pure: the same report gives the same
//! bytes wherever it is converted, so that a request that is sent again after a
//! crash is the one that was sent before.
//!
//! Architecture invariant: nothing here decides when to send or what to do
//! about a failure; a caller has a [`Client`], an [`Answer`], and its own queue.

mod answer;
mod client;
mod convert;
mod metrics;
mod url;
mod wire;

pub use answer::{Answer, retry_after};
pub use client::{Client, ClientError, Headers, HeadersError};
pub use convert::{Part, parts};
pub use metrics::{Kind, Metric, all as metrics};
pub use url::{BadOtlpUrl, OtlpUrl};

/// The largest request that is sent, in bytes: what gRPC servers take unless
/// told otherwise.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
