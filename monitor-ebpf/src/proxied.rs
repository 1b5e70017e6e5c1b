//! Headers of the PROXY protocol, kept as they come: the agent reads them.

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_skb_load_bytes};
use monitor_common::{
    http::{Exchange, START_BYTES},
    proxy_header::HEADER_BYTES,
};

use crate::{
    maps,
    payload::{self, Packet},
};

/// Keeps a header that begins at a place in a segment, where one was just found.
#[inline(always)]
pub(crate) fn keep(
    payload: &Packet<'_>,
    exchange: &mut Exchange,
    sk: *mut bpf_sock,
    at: u32,
    len: u32,
) {
    if exchange.request_flags & Exchange::PROXIED == 0 {
        return;
    }
    exchange.request_flags &= !Exchange::PROXIED;
    // As for responses' heads.
    if !maps::reads_heads() {
        return;
    }
    let Some(header) = maps::proxy_header_or_new(sk) else {
        return;
    };
    // SAFETY: only the address of the field is taken.
    let to = unsafe { (&raw mut (*header).bytes).cast() };
    let skb = payload.ctx.skb.skb.cast();
    let from = payload.offset.wrapping_add(at);
    let left = maps::forget(&raw mut exchange.request_scratch, len.wrapping_sub(at));
    let (kept, result) = if left >= HEADER_BYTES as u32 {
        // SAFETY: as many bytes are loaded as there is room for.
        let result = unsafe { bpf_skb_load_bytes(skb, from, to, HEADER_BYTES as u32) };
        (HEADER_BYTES as u32, result)
    } else if left >= START_BYTES as u32 {
        let left = payload::part::<{ START_BYTES as i32 }, { HEADER_BYTES as i32 }>(left);
        // SAFETY: fewer bytes are loaded than there is room for.
        (left, unsafe { bpf_skb_load_bytes(skb, from, to, left) })
    } else {
        return;
    };
    if result == 0 {
        // SAFETY: the storage is the socket's for the run of the program.
        unsafe { (&raw mut (*header).len).write_volatile(kept) };
    }
}
