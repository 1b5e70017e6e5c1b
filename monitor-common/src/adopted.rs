//! Connections that are older than the programs.
//!
//! They get no callbacks, so the agent counts them from socket dumps.  The
//! programs know them by this entry alone, which the agent makes and removes.

/// How many of them one target can have at a time.
pub const ADOPTED_MAX: u32 = 1 << 17;

/// One of them, by its cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Adopted {
    /// The slot of its endpoint's counters.
    pub slot: u32,
    /// A [`crate::endpoint::Role`].
    pub role: u8,
    /// The state, one of [`crate::tcp::state`], that it was in when the process
    /// let go of it; 0 before.  Written by the programs.
    pub released_state: u8,
    /// 1 once the peer sent a reset.  Written by the programs.
    pub reset_received: u8,
    /// 1 once a reset was sent.  Written by the programs.
    pub reset_sent: u8,
}

const _: () = assert!(size_of::<Adopted>() == 8);
