//! What the kernel programs and the agent share: the layouts of the maps and
//! the pure logic that runs in both, so that it is tested on the host.
//!
//! Architecture invariant: `no_std`, no allocation, no I/O, no clock.  Every
//! layout is `repr(C)` without implicit padding, and its size is asserted at
//! compile time; a change of any of them raises [`LAYOUT_VERSION`].

#![cfg_attr(not(test), no_std)]

pub mod adopted;
pub mod bytes;
pub mod client;
pub mod counters;
pub mod ending;
pub mod endpoint;
pub mod handshake;
pub mod histogram;
pub mod http;
pub mod losses;
pub mod meta;
pub mod protocol;
pub mod proxy_header;
pub mod slot_key;
pub mod socket;
pub mod tcp;
pub mod tls;

/// The version of the layouts, part of the pins' path: programs and agents of
/// one layout are compatible with each other.
pub const LAYOUT_VERSION: u32 = 12;

/// How many endpoints one target can have unless told otherwise; what comes
/// beyond is counted under the endpoint `other` of its role.
pub const ENDPOINTS_MAX_DEFAULT: u32 = 1024;

#[cfg(feature = "user")]
mod pod {
    use crate::{
        adopted::Adopted,
        client::{ClientCounters, ClientKey},
        endpoint::EndpointKey,
        meta::Meta,
        proxy_header::ProxyHeader,
        socket::Socket,
    };

    // SAFETY: `repr(C)`, without padding (asserted where it is defined), and
    // every bit pattern is a value.
    unsafe impl aya::Pod for Meta {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EndpointKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Socket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Adopted {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClientKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClientCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ProxyHeader {}
}
