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

const _: () = assert!(align_of::<Socket>() == 8);
const _: () = assert!(size_of::<Socket>() == size_of::<Exchange>() + size_of::<Stream>());

impl Socket {
    /// Sets everything to zero, word by word.  On the kernel's target a plain zero
    /// would be a call that goes byte by byte.
    #[inline(always)]
    pub fn clear(&mut self) {
        let words = core::ptr::from_mut(self).cast::<u64>();
        let mut i = 0;
        while i < size_of::<Self>() / size_of::<u64>() {
            // SAFETY: within the struct, which is made of whole aligned words.
            let word = unsafe { words.add(i) };
            // SAFETY: as above; zero is a value of every field.
            unsafe { word.write_volatile(0) };
            i += 1;
        }
    }
}
