//! From a connection to the slot that it is counted in.

use aya_ebpf::bindings::bpf_sock_ops;
use monitor_common::{
    endpoint::{EndpointKey, Role, other_slot},
    losses::Loss,
};

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
            key.address = address(ops.family, ops.local_ip4, || ops.local_ip6);
        }
        Role::Upstream => {
            // The remote port is in network byte order, in the upper half of
            // the word on a little-endian machine.
            key.port = u32::from_be(ops.remote_port) as u16;
            key.address = address(ops.family, ops.remote_ip4, || ops.remote_ip6);
        }
    }
    key
}

/// IPv4 addresses are kept v4-mapped, so that a dual-stack listener is one
/// endpoint whatever its clients speak.
#[inline(always)]
fn address(family: u32, v4: u32, v6: impl FnOnce() -> [u32; 4]) -> [u8; 16] {
    match family {
        AF_INET => EndpointKey::v4_mapped(v4.to_ne_bytes()),
        AF_INET6 => {
            let [a, b, c, d] = v6();
            words(a, b, c, d)
        }
        _ => [0; 16],
    }
}

#[inline(always)]
pub(crate) fn words(a: u32, b: u32, c: u32, d: u32) -> [u8; 16] {
    let high = u64::from(a) | u64::from(b) << 32;
    let low = u64::from(c) | u64::from(d) << 32;
    (u128::from(high) | u128::from(low) << 64).to_le_bytes()
}

/// The slot of a connection's endpoint; that of `other`, and a loss, where the
/// map is full.
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
    maps::lose(Loss::EndpointMapFull);
    other_slot(role)
}
