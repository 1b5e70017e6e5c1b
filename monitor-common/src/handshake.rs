//! Payload that completes a handshake.
//!
//! With `TCP_DEFER_ACCEPT`, or where the bare acknowledgement was lost, the first
//! request comes with the packet that makes the connection; the packet program
//! then sees the listener, as the new socket does not exist yet.  What it
//! sees is kept for the callback of the new socket, which follows within the
//! same soft interrupt on the same CPU.

use crate::http::Start;

/// What is kept, one place per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandshakeData {
    /// When it was seen, by the monotonic clock.
    pub seen_at_ns: u64,
    /// Its sequence number.
    pub seq: u32,
    /// Its length; 0 where nothing is kept.
    pub len: u32,
    /// The local port in the lower half, the remote one in the upper.
    pub ports: u32,
    /// Zero.
    pub reserved: u32,
    /// Its first bytes.
    pub start: Start,
}

const _: () = assert!(size_of::<HandshakeData>() == 40);
