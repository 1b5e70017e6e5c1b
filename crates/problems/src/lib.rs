//! What is wrong, worst first: the one judgement that the collector, the web page,
//! the command line, `/metrics` and the agent show.
//!
//! A [`HostJudge`] takes the reports of one host, one after another, and keeps of the
//! last three windows what the kinds are made of.  A kind ([`Kind`]) has one
//! [`Definition`]: threshold, minimum of traffic, formula, source and what to do; from
//! these docs/problems.md is generated.
//!
//! Architecture invariant: pure.  No I/O, no clock; what is judged follows from the
//! reports and thresholds alone.

mod agent;
mod definition;
mod endpoints;
mod headlines;
mod history;
mod host;
mod judge;
mod kind;
mod page;
mod problem;
mod queues;
mod siblings;
mod thresholds;
mod track;
mod words;

pub use definition::{Definition, Unit};
pub use headlines::{headlines, nothing};
pub use judge::{ENDPOINTS_MAX, HostJudge};
pub use kind::Kind;
pub use page::page;
pub use problem::{Evidence, PROBLEMS_MAX, Place, Problem, Problems, Severity, Subject, sort};
pub use thresholds::{BadThreshold, Thresholds};
pub use track::{CLOSE_AFTER, FORGET_AFTER};

/// How many windows are judged together at the most.
pub const WINDOWS: usize = 3;

pub use agent::silence;
