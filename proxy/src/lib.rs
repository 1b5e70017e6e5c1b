//! The HTTP/1.1 reverse proxy.
//!
//! The request path holds no counters, clocks or logging for monitoring: the
//! kernel counts. What is here parses strictly, forwards, and bounds everything
//! that comes from outside.

pub mod access_log;
pub mod adaptive;
pub mod admin;
pub mod backend;
pub mod backends_view;
pub mod balance;
pub mod cli;
pub mod collector;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod driver;
pub mod explain;
pub mod fetch;
pub mod health;
pub mod names;
pub mod outliers;
pub mod serve;
pub mod table;
pub mod tls;
pub mod token;
