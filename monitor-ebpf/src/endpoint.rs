//! From a connection to the slot that it is counted in.

use aya_ebpf::bindings::bpf_sock_ops;
use monitor_common::endpoint::{EndpointKey, Role, other_slot};

use crate::maps;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The local address of a downstream connection, the remote one of an upstream.
#[inline(always)]
pub(crate) fn key(ops: &bpf_sock_ops, role: Role) -> EndpointKey {
    let mut key = EndpointKey {
        role: role as u8,
        ..EndpointKey::default()
    };
    match role {
        Role::Downstream => {
            // The local port is in host byte order.
            key.port = ops.local_port as u16;
            key.address = address(ops.family, ops.local_ip4, &ops.local_ip6);
        }
        Role::Upstream => {
            // The remote port is in network byte order, in the upper half of
            // the word on a little-endian machine.
            key.port = u32::from_be(ops.remote_port) as u16;
            key.address = remote(ops);
        }
    }
    key
}

/// Whom a connection is with.
#[inline(always)]
pub(crate) fn remote(ops: &bpf_sock_ops) -> [u8; 16] {
    address(ops.family, ops.remote_ip4, &ops.remote_ip6)
}

/// IPv4 addresses are kept v4-mapped, so that a dual-stack listener is one
/// endpoint whatever its clients speak.
#[inline(always)]
fn address(family: u32, v4: u32, v6: &[u32; 4]) -> [u8; 16] {
    match family {
        AF_INET => EndpointKey::v4_mapped(v4.to_ne_bytes()),
        AF_INET6 => words(v6),
        _ => [0; 16],
    }
}

/// An IPv6 address of a program's context, whose words must be read one by one.
#[inline(always)]
pub(crate) fn words(address: &[u32; 4]) -> [u8; 16] {
    let word = |i: usize| {
        // SAFETY: a reference is valid and aligned.
        let word = unsafe { (&raw const address[i]).read_volatile() };
        u128::from(word) << (32 * i)
    };
    (word(0) | word(1) | word(2) | word(3)).to_le_bytes()
}

/// The slot of an endpoint; that of `other` where the map is full.
#[inline(always)]
pub(crate) fn slot(key: &EndpointKey, role: Role) -> u32 {
    if let Some(slot) = maps::slot(key) {
        return slot;
    }
    if let Some(free) = maps::take_free_slot() {
        if maps::assign(key, free) {
            return free;
        }
        // Another CPU was quicker.
        if let Some(slot) = maps::slot(key) {
            return slot;
        }
    }
    other_slot(role)
}
