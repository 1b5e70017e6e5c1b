//! What the end-to-end tests, `cargo xtask demo` and the benches share: exact
//! traffic, and fixtures that run the products as a user does.
//!
//! Architecture invariant: no product crate is a dependency of this library.
//! It knows the products by their flags, their output and their JSON alone, so
//! that it cannot share their faults, and so that xtask can use it.

mod cgroup;
mod eventually;
pub mod fixtures;
pub mod http;
mod process;
pub mod reports;
pub mod traffic;

pub use self::{
    cgroup::{
        BPFFS, Cgroup, cgroup2_mount, ensure_bpffs, missing_for_kernel_programs, remove_leftovers,
        unique_name,
    },
    eventually::{eventually, try_eventually, wait_until},
    process::{Process, Ready},
};
