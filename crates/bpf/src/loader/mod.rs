//! Programs on their way into the kernel, and out of it.

pub(crate) mod attach;
pub(crate) mod layouts;
pub(crate) mod prepare;
pub(crate) mod uninstall;
