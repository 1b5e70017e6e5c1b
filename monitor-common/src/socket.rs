//! What is kept per socket, in the socket's own storage.

use crate::{http::Exchange, tcp::Stream};

/// The storage of one socket, freed by the kernel with it.
///
/// The exchange comes first: with the storage's own header its hot part fills
/// one cache line, the only one that a packet touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// Written by the packet programs, each direction its own fields.
    pub exchange: Exchange,
    /// Written by the socket's callbacks, under the socket's lock.
    pub stream: Stream,
}

const _: () = assert!(size_of::<Socket>() == size_of::<Exchange>() + size_of::<Stream>());
