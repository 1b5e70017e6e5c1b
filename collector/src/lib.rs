//! Receives, stores and serves the reports.
//!
//! Reports come in by gRPC (`grpc`), are made durable by one writer thread
//! (`store`), and are read from the store or, the newest of each host, from
//! memory (`fleet`).  HTTP (`http`) serves them as JSON, as Prometheus metrics
//! (`metrics`), as live events (`live`) and as a web page.  `forward` passes them
//! on, by `remote_write` and by `otlp`.
//!
//! Architecture invariant: a report is acknowledged only after the commit that
//! holds it; no reader ever waits for the writer or makes it wait.

pub mod app;
pub mod args;
mod auth;
pub mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod http;
mod idle;
mod limits;
mod listen;
pub mod logging;
mod problem_metrics;
mod problems;
mod reload;
mod self_metrics;
mod self_stats;
mod stop;
mod time;
mod tls;
pub mod tokens;
mod validate;
mod write_timeout;
