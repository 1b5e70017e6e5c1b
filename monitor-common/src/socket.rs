//! What is kept per socket, in the socket's own storage.

use crate::{
    http::{Answer, Exchange},
    tcp::Stream,
};

/// The storage of one socket, freed by the kernel with it.
///
/// With the storage's own header that is eight cache lines: the header's own, two of the
/// exchange, of which the first has what every packet needs, and that of the stream,
/// with the exchange's last field.  Behind them is where the process itself calls, and
/// what is kept of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// Written by the packet programs, each direction its own fields.
    pub exchange: Exchange,
    /// Written by the socket's callbacks, under the socket's lock.
    pub stream: Stream,
    /// Written where the process itself calls, without the socket's lock.
    pub process: Process,
    /// Written by the packet program of the response's direction.
    pub answer: Answer,
}

const _: () = assert!(align_of::<Socket>() == 8);
const _: () = assert!(size_of::<Socket>() == size_of::<Exchange>() + 48 + 8 + 248);

/// What the process does with the socket: one call at a time, as the kernel lets go
/// of a socket only when no call uses it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    /// The generation of the attempt's slot, which may be another endpoint's when
    /// the attempt turns out to have failed.
    pub slot_generation: u32,
    /// 1 while `connect` was called and no SYN was sent yet.
    pub attempted: u8,
    /// 1 once the process let go of the socket.
    pub released: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Process>() == 8);

impl Socket {
    /// Sets everything to zero, word by word.  On the kernel's target a plain zero
    /// would be a call that goes byte by byte.
    ///
    /// # Safety
    /// It is valid and aligned.
    #[inline(always)]
    pub unsafe fn clear(socket: *mut Self) {
        let words = socket.cast::<u64>();
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
