//! Packets: where a stream turns, and what it says there.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_ops},
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    histogram,
    http::{Direction, Exchange, Interest, ResponseEvent, START_BYTES, Start},
    losses::Loss,
};

use crate::{
    bench,
    count::{bump, bump_by},
    events::count_request,
    maps,
};

/// Lets the packet pass.
const PASS: i32 = 1;

const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
const TCP_HEADER_MIN: usize = 20;
const IPPROTO_HOPOPTS: u8 = 0;
const IPV6_HEADER: usize = 40;
const JUMBO_HEADER: usize = 8;

/// How far an interim response's head is searched for its end.
const INTERIM_BYTES: u32 = 256;

#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, true);
    PASS
}

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet(&ctx, false);
    PASS
}

/// A segment with payload.
struct Segment {
    seq: u32,
    /// Where the payload begins in the packet.
    offset: u32,
    len: u32,
    ports: u32,
}

#[inline(always)]
fn packet(ctx: &SkBuffContext, ingress: bool) {
    // SAFETY: the context is valid for the run of the program.
    let skb = unsafe { &*ctx.skb.skb };
    let Some(segment) = segment(skb) else { return };
    if segment.len == 0 {
        return;
    }
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    if sk.is_null() {
        maps::lose(Loss::NoSocket);
        return;
    }
    let Some(socket) = bench::socket(sk, segment.seq) else {
        untracked(ctx, sk, &segment, ingress);
        return;
    };
    let exchange = &mut socket.exchange;
    let client_to_server = (exchange.role == Role::Downstream as u8) == ingress;
    let direction = if client_to_server {
        Direction::Request
    } else {
        Direction::Response
    };
    let kernel_next = || if ingress { rcv_nxt(sk) } else { segment.seq };
    let Some(seen) = exchange.admit(direction, segment.seq, segment.len, kernel_next) else {
        return;
    };
    let interest = exchange.interest(direction);
    if matches!(interest, Interest::None) {
        return;
    }
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    // SAFETY: no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let new = Segment {
        seq: segment.seq,
        offset: segment.offset + seen,
        len: segment.len - seen,
        ports: segment.ports,
    };
    match (interest, direction) {
        (Interest::None, _) => {}
        (Interest::Turn, Direction::Request) => exchange.turn_to_server(now_ns),
        (Interest::Turn, Direction::Response) => {
            let event = exchange.turn_to_client(now_ns);
            count_response(counters, event);
        }
        (Interest::Start, Direction::Request) => {
            let Some(start) = load_start(ctx, new.offset, new.len) else {
                return;
            };
            count_request(
                counters,
                exchange.on_request(start, capped(new.len), now_ns),
            );
        }
        (Interest::Start, Direction::Response) => {
            response(ctx, exchange, counters, &new, now_ns);
        }
    }
}

/// The segment in a packet; `None` for what is not TCP.
#[inline(always)]
fn segment(skb: &__sk_buff) -> Option<Segment> {
    let data = skb.data as usize;
    let end = skb.data_end as usize;
    // The shortest packet there is: IPv4 and TCP headers without options.
    if data + 20 + TCP_HEADER_MIN > end {
        return None;
    }
    let version = byte(data) >> 4;
    let ip_header = if version == 4 {
        if byte(data + 9) != IPPROTO_TCP {
            return None;
        }
        usize::from(byte(data) & 0x0f) * 4
    } else {
        match byte(data + 6) {
            IPPROTO_TCP => IPV6_HEADER,
            // A segment of more than 64 KiB carries its length in a hop-by-hop
            // header (RFC 2675).  Other extension headers do not occur on TCP
            // sockets' own packets, but for a routing header that a socket
            // option asks for, which is not followed.
            IPPROTO_HOPOPTS if is_jumbo(data, end) => IPV6_HEADER + JUMBO_HEADER,
            _ => return None,
        }
    };
    let tcp = data + ip_header;
    if tcp + TCP_HEADER_MIN > end {
        maps::lose(Loss::Headers);
        return None;
    }
    let tcp_header = usize::from(byte(tcp + 12) >> 4) * 4;
    let headers = (ip_header + tcp_header) as u32;
    Some(Segment {
        seq: u32::from_be(word(tcp + 4)),
        offset: headers,
        len: skb.len.saturating_sub(headers),
        ports: word(tcp),
    })
}

/// Whether the hop-by-hop header is of the shortest length and TCP follows.
#[inline(always)]
fn is_jumbo(data: usize, end: usize) -> bool {
    let header = data + IPV6_HEADER;
    header + JUMBO_HEADER <= end && byte(header) == IPPROTO_TCP && byte(header + 1) == 0
}

#[inline(always)]
fn byte(address: usize) -> u8 {
    // SAFETY: callers have compared the address with the packet's end; the
    // verifier proves it.
    unsafe { *(address as *const u8) }
}

#[inline(always)]
fn word(address: usize) -> u32 {
    // SAFETY: as above; packets may be read unaligned on this target.
    unsafe { (address as *const u32).read_unaligned() }
}

/// The sequence number after a packet's FIN, from the header that a callback
/// shows.
#[inline(always)]
pub(crate) fn fin_end_seq(ops: &bpf_sock_ops) -> Option<u32> {
    // SAFETY: the unions' only members of pointer size, as the UAPI has it.
    let tcp = unsafe { ops.__bindgen_anon_3.skb_data } as usize;
    // SAFETY: as above.
    let end = unsafe { ops.__bindgen_anon_4.skb_data_end } as usize;
    if tcp + TCP_HEADER_MIN > end {
        return None;
    }
    let header = u32::from(byte(tcp + 12) >> 4) * 4;
    let payload = ops.skb_len.wrapping_sub(header);
    Some(
        u32::from_be(word(tcp + 4))
            .wrapping_add(payload)
            .wrapping_add(1),
    )
}

#[inline(always)]
fn rcv_nxt(sk: *mut bpf_sock) -> u32 {
    // SAFETY: `sk` was compared with null, and the result is.
    unsafe { bpf_tcp_sock(sk).as_ref() }.map_or(0, |tcp| tcp.rcv_nxt)
}

/// Payload without a socket that is followed: either it completes a handshake,
/// and the socket is made in a moment, or the connection is older than us.
#[inline(always)]
fn untracked(ctx: &SkBuffContext, sk: *mut bpf_sock, segment: &Segment, ingress: bool) {
    // SAFETY: `sk` was compared with null.
    let listener = ingress && unsafe { (*sk).state } == TCP_LISTEN;
    if !listener {
        maps::lose(Loss::UntrackedSocket);
        return;
    }
    let Some(start) = load_start(ctx, segment.offset, segment.len) else {
        return;
    };
    let Some(kept) = maps::handshake() else {
        return;
    };
    kept.start = start;
    kept.seq = segment.seq;
    kept.len = segment.len;
    // Source port first in the packet; the callback has local port first.
    kept.ports = u32::from_be(segment.ports);
    // SAFETY: no precondition.
    kept.seen_at_ns = unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
fn capped(len: u32) -> u32 {
    if len < START_BYTES as u32 {
        len
    } else {
        START_BYTES as u32
    }
}

/// The first bytes of payload; what there is not is zero.
#[inline(always)]
fn load_start(ctx: &SkBuffContext, offset: u32, len: u32) -> Option<Start> {
    if len == 0 {
        return None;
    }
    let mut start = MaybeUninit::<Start>::uninit();
    let to = start.as_mut_ptr().cast();
    let skb = ctx.skb.skb.cast();
    let result = if len >= START_BYTES as u32 {
        // SAFETY: as many bytes are loaded as `start` has.
        unsafe { bpf_skb_load_bytes(skb, offset, to, START_BYTES as u32) }
    } else {
        Start::zero(&mut start);
        // SAFETY: not more bytes are loaded than `start` has.
        unsafe { bpf_skb_load_bytes(skb, offset, to, one_to_16(len)) }
    };
    if result == 0 {
        // SAFETY: every byte was zeroed or loaded.
        Some(unsafe { start.assume_init() })
    } else {
        maps::lose(Loss::Headers);
        None
    }
}

/// Shows the verifier the bounds of a length from 1 to 16, which the compiler
/// knows and would not write.
#[inline(always)]
fn one_to_16(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: three instructions on a register.
    unsafe { asm!("{len} += -1", "{len} &= 15", "{len} += 1", len = inout(reg) len) };
    len as u32
}

/// The start of a response, and of those that follow interim ones within the
/// same payload.
#[inline(always)]
fn response(
    ctx: &SkBuffContext,
    exchange: &mut Exchange,
    counters: *mut EndpointCounters,
    segment: &Segment,
    now_ns: u64,
) {
    let Some(start) = load_start(ctx, segment.offset, segment.len) else {
        return;
    };
    let event = exchange.on_response(start, capped(segment.len), now_ns);
    count_response(counters, event);
    if !matches!(event, ResponseEvent::Interim(_)) {
        return;
    }
    // What follows an interim head within the same payload: the final response,
    // or a second interim one, behind which no third is looked for.
    let head = head_len(ctx, segment.offset);
    if head == 0 || head >= segment.len {
        return;
    }
    let rest = segment.len - head;
    let Some(start) = load_start(ctx, segment.offset + head, rest) else {
        return;
    };
    count_response(counters, exchange.on_response(start, capped(rest), now_ns));
}

/// The length of a head up to and with its empty line, 0 where there is none
/// within `INTERIM_BYTES`.
///
/// Without a branch in its loop: the verifier follows every branch of every
/// round to the program's end.
#[inline(always)]
fn head_len(ctx: &SkBuffContext, begin: u32) -> u32 {
    let mut window = 0u64;
    let mut len = 0u64;
    let mut i = 0u32;
    while i < INTERIM_BYTES {
        let mut byte = 0u8;
        let to = (&raw mut byte).cast();
        // SAFETY: one byte is loaded into one byte; beyond the packet's end it
        // is zeroed.
        let _beyond = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), begin + i, to, 1) };
        window = (window << 8 | u64::from(byte)) & 0xffff_ffff;
        let end = is_zero(window ^ u64::from(u32::from_be_bytes(*b"\r\n\r\n")));
        len |= (end & is_zero(len)).wrapping_neg() & u64::from(i + 1);
        i += 1;
    }
    len as u32
}

/// 1 for zero and 0 for any other word below 2^63, hidden from the compiler,
/// which would make a branch of it.
#[inline(always)]
fn is_zero(word: u64) -> u64 {
    let mut bit = word.wrapping_sub(1) >> 63;
    // SAFETY: one instruction on a register, which changes nothing.
    unsafe { asm!("{bit} &= 1", bit = inout(reg) bit) };
    bit
}

/// Counts what a turn towards the client was.
#[inline(always)]
fn count_response(counters: *mut EndpointCounters, event: ResponseEvent) {
    match event {
        ResponseEvent::None => {}
        ResponseEvent::Interim(code) => count_code(counters, code),
        ResponseEvent::Final(code, took_ns) => {
            count_code(counters, code);
            if let Some(took_ns) = took_ns {
                count_duration(counters, took_ns);
            }
        }
        ResponseEvent::Unparsed(took_ns) => {
            bump!(counters, unparsed);
            if let Some(took_ns) = took_ns {
                count_duration(counters, took_ns);
            }
        }
        ResponseEvent::Exchange(took_ns) => {
            bump!(counters, exchanges);
            count_duration(counters, took_ns);
        }
    }
}

#[inline(always)]
fn count_code(counters: *mut EndpointCounters, code: usize) {
    if code < monitor_common::http::CODES {
        bump!(counters, responses[code]);
    }
}

#[inline(always)]
fn count_duration(counters: *mut EndpointCounters, took_ns: u64) {
    bump_by!(counters, took_ns, exchange.sum_ns);
    bump!(counters, exchange.buckets[histogram::bucket(took_ns)]);
}

/// At the end of a connection: what was asked and not answered.
#[inline(always)]
pub(crate) fn count_unanswered(exchange: &Exchange, counters: *mut EndpointCounters) {
    if exchange.request_start_len != 0 {
        bump!(counters, unparsed);
    }
    let unanswered = u64::from(exchange.requests.wrapping_sub(exchange.responses));
    if unanswered == 0 || exchange.response_flags & Exchange::TUNNEL != 0 {
        return;
    }
    if exchange.is_pipelined() {
        bump_by!(counters, unanswered, suspected);
    } else if exchange.protocol == Exchange::HTTP1 {
        bump_by!(counters, unanswered, requests_without_response);
    }
}
