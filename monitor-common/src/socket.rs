//! What is kept per socket, in the socket's own storage.

use crate::{http::Exchange, tcp::Stream};

/// The storage of one socket, freed by the kernel with it.
///
/// With the storage's own header that is three cache lines: the header's own, that of
/// the exchange, the only one that a packet touches, and that of the stream, with
/// the exchange's last field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// Written by the packet programs, each direction its own fields.
    pub exchange: Exchange,
    /// Written by the socket's callbacks, under the socket's lock.
    pub stream: Stream,
}

const _: () = assert!(align_of::<Socket>() == 8);
const _: () = assert!(size_of::<Socket>() == 72 + 48);

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
