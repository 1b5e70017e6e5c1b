//! What is watched: named cgroups, or the whole host.

pub mod names;
