//! What the kernel says of sockets, over netlink.

mod conversation;
mod diag;
pub(crate) mod listeners;
mod netlink;
pub(crate) mod unix_diag;

pub(crate) use diag::{Diag, Ends, Listening};
