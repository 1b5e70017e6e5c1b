//! Real HTTP/1.1 traffic whose every byte is known: an origin server and a
//! load generator.
//!
//! Both count what their sockets carried, so that what the kernel counted on
//! the proxy in between can be compared with `==`.  Bodies have a known
//! pattern, and both ends check it: a proxy that mixes up two streams is found.

mod client;
mod crowd;
mod framing;
mod limited;
mod load;
mod origin;
mod outcome;
mod pattern;
mod plan;
mod poller;
mod transfer;

pub use self::{
    crowd::{Crowd, open_and_end},
    framing::{BodyLength, Decoder, FramingError, Progress},
    limited::LimitedOrigin,
    load::{Ending, Load, RunningLoad},
    origin::{Origin, OriginCounts},
    outcome::{Classes, LoadErrors, Outcome},
    plan::{Body, Exchange, Method, ParseExchangeError},
};
