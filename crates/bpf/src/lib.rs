//! The kernel's side of an agent: programs, maps and pins.
//!
//! Architecture invariant: the only crate that knows of aya.  What is read is
//! plain data of the crate `kernel-sample`, so nothing above this crate needs it but who
//! opens the counters.
//!
//! `loader` brings the programs into the kernel and out of it, `pins` is where they
//! stay, `maps` what they write in this process's memory, `sockdiag` asks for
//! sockets over netlink, `adoption` follows connections older than the programs,
//! `watched` is one cgroup with all of this, and `source` all of them.

mod adoption;
mod capabilities;
mod cgroup2;
#[cfg(feature = "cost")]
pub mod cost;
pub mod doctor;
mod error;
mod loader;
mod maps;
mod namespaces;
mod object;
mod options;
mod pins;
#[cfg(feature = "cost")]
pub mod read_cost;
mod sockdiag;
mod source;
mod syscall;
mod watched;

pub use cgroup2::mount as cgroup2_mount;
pub use error::KernelError;
pub use loader::uninstall::{Removed, uninstall, uninstall_targets};
pub use options::{KernelLog, KernelOptions};
pub use pins::{
    bpffs::make_dir as make_pin_dir,
    pinned::{PinnedTarget, pinned, unwatched},
};
pub use sockdiag::{
    listeners::{Listener, listeners},
    unix_diag::{UnixSocket, unix_sockets},
};
pub use source::Kernel;
