//! Maps in this process's memory, and the slots in them.

mod mapped;
mod slots;

pub(crate) use mapped::{Access, Mapped};
pub(crate) use slots::{Slots, stripes, withdraw};
