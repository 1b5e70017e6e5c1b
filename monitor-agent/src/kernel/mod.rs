//! The kernel's side of the agent: programs, maps and pins.
//!
//! Architecture invariant: the only module of this crate that knows of aya.

mod adoption;
mod attach;
mod bpffs;
mod conversation;
pub mod cost;
mod counts;
mod diag;
pub mod doctor;
mod error;
mod floors;
mod glance;
mod layouts;
mod ledger;
mod listeners;
mod live;
mod mapped;
mod namespaces;
mod netlink;
mod object;
mod open;
mod options;
mod pinned;
mod pins;
mod prepare;
pub mod read_cost;
mod reading;
mod retirement;
mod sample;
mod slots;
mod sockets;
mod syscall;
mod uninstall;
mod unix_diag;
mod watched;

pub use bpffs::make_dir as make_pin_dir;
pub use error::KernelError;
pub use glance::{EndpointGlance, Figures, Glance};
pub use listeners::{Listener, listeners};
pub use open::Kernel;
pub use options::{KernelLog, KernelOptions, Target};
pub use pinned::{PinnedTarget, pinned, unwatched};
pub use sample::{EndpointAddress, EndpointId, EndpointSample, KernelSample, SocketSample};
pub use sockets::LiveSocket;
pub use uninstall::{Removed, uninstall, uninstall_targets};
pub use unix_diag::{UnixSocket, unix_sockets};
