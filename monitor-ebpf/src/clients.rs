//! Connections that have ended, by their client.
//!
//! All of a connection is added once, at its end, so that nothing else pays for it.
//! Where the map is full nothing is: the listener's counters have it all the same.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, bpf_sock_ops},
    macros::map,
    maps::{Array, HashMap},
};
use monitor_common::{
    client::{CLIENTS_MAX, ClientControl, ClientCounters, ClientKey},
    ending::Ending,
    endpoint::{EndpointKey, Role},
    http::Exchange,
    socket::Socket,
};

use crate::{count::bump_by, endpoint, packets};

/// What the clients' ended connections carried.  Read and emptied by the agent.
#[map]
static CLIENTS: HashMap<ClientKey, ClientCounters> = HashMap::with_max_entries(CLIENTS_MAX, 0);

/// How clients are counted.  Written by the agent, by way of its own memory.
#[map]
static CLIENT_CONTROL: Array<ClientControl> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Adds a connection that has ended, once all of it is folded.
///
/// A function of its own: within its caller it changes what that keeps in registers, and
/// the verifier of Linux 6.1 then sees a place of the stack read that was not written.
#[inline(never)]
pub(crate) fn add_ended(ops: &bpf_sock_ops, socket: *mut Socket, ending: usize) {
    let exchange = packets::exchange(socket);
    if exchange.role != Role::Downstream as u8 {
        return;
    }
    let Some(counters) = counters(ops) else {
        return;
    };
    // SAFETY: the callback holds the socket's lock.
    let stream = unsafe { &(*socket).stream };
    bump_by!(counters, stream.folded_received, bytes_received);
    bump_by!(counters, stream.folded_sent, bytes_sent);
    if exchange.protocol == Exchange::HTTP1 {
        bump_by!(counters, u64::from(exchange.requests), requests);
        let unanswered = packets::unanswered(exchange);
        bump_by!(counters, unanswered, requests_without_response);
    } else if exchange.protocol == Exchange::NOT_HTTP1 {
        bump_by!(counters, u64::from(exchange.responses), exchanges);
    }
    if ending == Ending::ResetReceived as usize {
        bump_by!(counters, 1, closed_reset_received);
    } else if ending == Ending::ResetSent as usize {
        bump_by!(counters, 1, closed_reset_sent);
    }
    bump_by!(counters, 1, connections);
}

/// The entry of a connection's client, made where there is none and room for it.
#[inline(always)]
fn counters(ops: &bpf_sock_ops) -> Option<*mut ClientCounters> {
    let control = CLIENT_CONTROL.get_ptr(0)?;
    // SAFETY: a value of the map; volatile, as the agent writes it.
    let read = |word: *const u64| unsafe { word.read_volatile() };
    // SAFETY: only the addresses of the fields are taken.
    let (is_on, generation, masks) = unsafe {
        let is_on = read(&raw const (*control).is_on);
        let generation = read(&raw const (*control).generation);
        let v4 = (&raw const (*control).mask_v4).cast::<u64>();
        let v6 = (&raw const (*control).mask_v6).cast::<u64>();
        (
            is_on,
            generation,
            [read(v4), read(v4.add(1)), read(v6), read(v6.add(1))],
        )
    };
    if is_on == 0 {
        return None;
    }
    let address = endpoint::remote(ops);
    // As one number: byte by byte it would be loops on the kernel's target.
    let address = u128::from_le_bytes(address);
    let (low, high) = (address as u64, (address >> 64) as u64);
    let [v4_low, v4_high, v6_low, v6_high] = masks;
    let is_v4 = low == 0 && high as u32 == V4_MAPPED;
    let (mask_low, mask_high) = if is_v4 {
        (v4_low, v4_high)
    } else {
        (v6_low, v6_high)
    };
    let key = ClientKey {
        address: [low & mask_low, high & mask_high],
        generation,
    };
    if let Some(counters) = CLIENTS.get_ptr_mut(key) {
        return Some(counters);
    }
    // SAFETY: a part of the map's value that nobody writes.
    let none = unsafe { &(*control).none };
    // Where another CPU was quicker its entry is found.
    let _made = CLIENTS.insert(key, none, u64::from(BPF_NOEXIST));
    CLIENTS.get_ptr_mut(key)
}

/// The first half of the second word of an IPv4 address as it is kept.
const V4_MAPPED: u32 = (u128::from_le_bytes(EndpointKey::v4_mapped([0; 4])) >> 64) as u32;
