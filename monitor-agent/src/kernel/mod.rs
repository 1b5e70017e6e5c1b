//! The kernel's side of the agent: programs, maps and pins.
//!
//! Architecture invariant: the only module of this crate that knows of aya.

mod sample;

pub use sample::{EndpointAddress, EndpointId, EndpointSample, KernelSample};
