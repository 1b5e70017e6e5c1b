//! What the end-to-end tests, `cargo xtask demo` and the benches share: exact
//! traffic, and fixtures that run the products as a user does.
//!
//! Architecture invariant: no product crate is a dependency of this library.
//! It knows the products by their flags, their output and their JSON alone, so
//! that it cannot share their faults, and so that xtask can use it.

pub mod traffic;

mod eventually;

pub use self::eventually::{eventually, try_eventually};
