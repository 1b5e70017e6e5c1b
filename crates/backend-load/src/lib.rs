//! What a backend costs, from what the kernel measured of it.
//!
//! [`feed`] is the contract between the agent, which writes cumulative counters of
//! every backend, and those who balance by them.  [`Estimator`] makes of successive
//! counters a peak EWMA of the exchange time and a share of failures; [`seconds`]
//! makes one figure of both, which a balancer multiplies with the requests in flight.
//!
//! Architecture invariant: pure functions of what they are told; no clock, no I/O.

mod estimate;
pub mod feed;

pub use estimate::{
    Estimate, Estimator, FAILURE_SECONDS, IDLE_AFTER, Settings, Totals, UNKNOWN_SECONDS, median,
    pressure, seconds, slow_start_share, weight_percent,
};
