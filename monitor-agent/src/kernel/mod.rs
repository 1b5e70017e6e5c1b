//! The kernel's side of the agent: programs, maps and pins.
//!
//! Architecture invariant: the only module of this crate that knows of aya.

mod attach;
mod bpffs;
pub mod doctor;
mod error;
mod mapped;
mod object;
mod open;
mod options;
mod pins;
mod sample;
mod syscall;
mod uninstall;
mod watched;

pub use error::KernelError;
pub use open::Kernel;
pub use options::{KernelLog, KernelOptions, Target};
pub use sample::{EndpointAddress, EndpointId, EndpointSample, KernelSample};
pub use uninstall::{Removed, uninstall};
