//! The kernel programs: they count the connections, bytes and HTTP exchanges of
//! the sockets of one cgroup.
//!
//! Six programs, attached to the cgroup that is watched:
//!
//! - `socket_events` (sock_ops) follows each connection from its first SYN to
//!   its end, and folds the kernel's own stream counters into the endpoint's.
//! - `ingress` and `egress` (cgroup_skb, level http) find HTTP exchanges at the
//!   turns of the stream.
//! - `connect4`, `connect6` (cgroup_sock_addr) and `release` (cgroup_sock) note
//!   where an attempt begins and where a process lets go of a socket, which
//!   tells failed attempts apart.
//!
//! Architecture invariant: program types and helpers of the UAPI only, no
//! offset of the running kernel's structures; no packet is ever dropped or
//! changed, no reply to a callback is ever set.  Minimum kernel: 5.15.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod answer;
mod attempts;
mod bench;
mod clients;
mod count;
mod endpoint;
mod events;
mod maps;
mod packets;
mod payload;
mod protocol;
mod proxied;
mod segment;
mod tls;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier would refuse the program.
    loop {}
}

/// Helpers that are marked as GPL-only are not used; the kernel asks all the
/// same.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
