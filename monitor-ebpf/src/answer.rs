//! What is kept of the newest response, and what it tells at the connection's end.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    http::{Answer, Exchange, HEAD_BYTES, Method, Payload as _, START_BYTES, Start, TAIL_BYTES},
    socket::Socket,
    tcp::{Reading, Stream},
};

use crate::{
    count::{bump, bump_at, hide},
    maps, packets,
    payload::{self, Packet},
};

#[inline(always)]
fn answer(socket: *mut Socket) -> *mut Answer {
    // SAFETY: only the address of the field is taken.
    unsafe { &raw mut (*socket).answer }
}

/// Nothing is known of the newest response.
#[inline(always)]
pub(crate) fn forget(socket: *mut Socket) {
    // SAFETY: the storage is the socket's for the run of the program.
    unsafe { (&raw mut (*answer(socket)).head_len).write_volatile(0) };
}

/// Keeps the first bytes of a response that begins at a place in its segment, or
/// forgets the one before where it began in another one.
#[inline(always)]
pub(crate) fn keep_head(
    payload: &Packet<'_>,
    socket: *mut Socket,
    seq: u32,
    at: u32,
    len: u32,
    begins: bool,
) {
    forget(socket);
    if !begins || !maps::reads_heads() {
        return;
    }
    let exchange = packets::exchange(socket);
    let answer = answer(socket);
    // SAFETY: only the address of the field is taken.
    let to = unsafe { (&raw mut (*answer).head).cast() };
    let skb = payload.ctx.skb.skb.cast();
    let from = payload.offset.wrapping_add(at);
    let left = maps::forget(&raw mut exchange.response_scratch, len.wrapping_sub(at));
    let (kept, result) = if left >= HEAD_BYTES as u32 {
        // SAFETY: as many bytes are loaded as the head has.
        let result = unsafe { bpf_skb_load_bytes(skb, from, to, HEAD_BYTES as u32) };
        (HEAD_BYTES as u32, result)
    } else if left >= START_BYTES as u32 {
        let left = payload::part::<{ START_BYTES as i32 }, { HEAD_BYTES as i32 }>(left);
        // SAFETY: fewer bytes are loaded than the head has.
        (left, unsafe { bpf_skb_load_bytes(skb, from, to, left) })
    } else {
        return;
    };
    if result != 0 {
        return;
    }
    // SAFETY: fields of the response's direction.
    unsafe {
        (*answer).seq = seq.wrapping_add(at);
        (*answer).tail_end_seq = seq.wrapping_add(at);
        (*answer).tail_len = 0;
        (*answer).is_to_head = u8::from(exchange.method == Method::Head as u8);
        (&raw mut (*answer).head_len).write_volatile(kept as u8);
    }
}

/// Keeps the last bytes of a segment that belongs to a response.
#[inline(always)]
pub(crate) fn keep_tail(payload: &Packet<'_>, socket: *mut Socket, seq: u32, len: u32) {
    let answer = answer(socket);
    let end_seq = seq.wrapping_add(len);
    // SAFETY: fields of the response's direction.
    let (kept, tail_end) = unsafe { ((*answer).head_len, (*answer).tail_end_seq) };
    if kept == 0 || end_seq.wrapping_sub(tail_end).cast_signed() <= 0 {
        return;
    }
    let skb = payload.ctx.skb.skb.cast();
    let end = payload.offset.wrapping_add(len);
    // SAFETY: only the address of the field is taken.
    let tail = unsafe { &raw mut (*answer).tail };
    let bytes = if len >= TAIL_BYTES {
        // SAFETY: as many bytes are loaded as the tail has.
        unsafe { bpf_skb_load_bytes(skb, end.wrapping_sub(TAIL_BYTES), tail.cast(), TAIL_BYTES) };
        TAIL_BYTES
    } else {
        let Some([low, _]) = payload.start(0, len).map(Start::words) else {
            return;
        };
        // SAFETY: fields of the response's direction.
        let (before, kept) = if tail_end == seq {
            unsafe { (tail.read_volatile(), u32::from((*answer).tail_len)) }
        } else {
            (0, 0)
        };
        let tail_bits = before >> (8 * len) | low << (8 * (TAIL_BYTES - len));
        // SAFETY: as above.
        unsafe { tail.write_volatile(tail_bits) };
        if kept + len < TAIL_BYTES {
            kept + len
        } else {
            TAIL_BYTES
        }
    };
    // SAFETY: as above.
    unsafe {
        (*answer).tail_len = bytes as u8;
        (*answer).tail_end_seq = end_seq;
    }
}

/// At the end of a connection: whether a request awaited its response, or a response
/// was under way.
#[inline(always)]
pub(crate) fn count_open_exchange<const READS: bool>(
    socket: *mut Socket,
    counters: *mut EndpointCounters,
    now: &Reading,
    mut ending: usize,
) {
    let exchange = packets::exchange(socket);
    if !maps::sees_packets()
        || exchange.generation != maps::generation()
        || exchange.protocol != Exchange::HTTP1
        || exchange.response_flags & Exchange::TUNNEL != 0
    {
        return;
    }
    let open = exchange.is_open();
    if exchange.is_pipelined() {
        if open {
            bump!(counters, closed_response_unknown);
        }
        return;
    }
    if open {
        bump_at!(counters, closed_before_response, ending);
        return;
    }
    if exchange.responses == 0 {
        return;
    }
    // SAFETY: the callback holds the socket's lock.
    let stream = unsafe { &(*socket).stream };
    let (end_seq, by_fin) = if exchange.role == Role::Upstream as u8 {
        let fin = stream.peer_fin(now);
        (now.rcv_nxt.wrapping_sub(u32::from(fin)), fin)
    } else {
        let fin = stream.has(Stream::OUR_FIN);
        (now.snd_nxt.wrapping_sub(u32::from(fin)), fin)
    };
    let whole = if READS {
        // SAFETY: written by the response's direction; a reset may overtake it.
        let answer = unsafe { &*answer(socket) };
        let hide = |number| hide(number, answer.tail);
        // Or each way to here would be followed through the whole head.
        let (end_seq, by_fin) = (hide(end_seq.into()) as u32, hide(by_fin.into()) != 0);
        ending = hide(ending as u64) as usize;
        answer.is_whole(end_seq, by_fin, hide)
    } else {
        None
    };
    match whole {
        Some(true) => {}
        Some(false) => bump_at!(counters, closed_within_response, ending),
        None => bump!(counters, closed_response_unknown),
    }
}
