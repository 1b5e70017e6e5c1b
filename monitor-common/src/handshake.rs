//! Payload that completes a handshake.
//!
//! With `TCP_DEFER_ACCEPT`, or where the bare acknowledgement was lost, the first
//! request comes with the packet that makes the connection; the packet program
//! then sees the listener, as the new socket does not exist yet.  What it
//! sees is kept for the callback of the new socket, which follows within the
//! same soft interrupt: by connection, as another one may come in between on a
//! kernel whose soft interrupts give way to each other (`PREEMPT_RT`).

use crate::http::Start;

/// How many of them are kept.  Each is taken up within microseconds; the oldest ones
/// are those of handshakes that the kernel refused.
pub const HANDSHAKES_MAX: u32 = 4_096;

/// The payload that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandshakeKey {
    /// Its sequence number.
    pub seq: u32,
    /// The local port in the lower half, the remote one in the upper.
    pub ports: u32,
}

/// What is kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandshakeData {
    /// When it was seen, by the monotonic clock.
    pub seen_at_ns: u64,
    /// Its first bytes.
    pub start: Start,
    /// Its length.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<HandshakeKey>() == 8);
const _: () = assert!(size_of::<HandshakeData>() == 32);
