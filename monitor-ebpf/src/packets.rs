//! Packets: where a stream turns, and what it says there.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_ops},
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use monitor_common::{
    bytes,
    counters::EndpointCounters,
    endpoint::Role,
    handshake::{HandshakeData, HandshakeKey},
    http::{Direction, Exchange, Interest, RequestEvent, ResponseEvent, START_BYTES, Start},
    losses::Loss,
    socket::Socket,
};

use crate::{
    bench,
    count::{bump, bump_at, bump_by, count_duration},
    maps,
};

/// Lets the packet pass.
const PASS: i32 = 1;

const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
const TCP_HEADER_MIN: usize = 20;
const IPPROTO_HOPOPTS: u8 = 0;
const IPV4_HEADER: usize = 20;
/// Version 4, and a header of five words.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const IPV6_HEADER: usize = 40;
const JUMBO_HEADER: usize = 8;

/// How many heads within one segment are looked at: all but the last are interim.
const HEADS_MAX: u32 = 4;

/// How far an interim response's head is searched for its end.
const INTERIM_BYTES: u32 = 512;

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
    /// Of its payload.
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
    let Some(segment) = segment(skb) else {
        return unreadable(skb);
    };
    if segment.len == 0 {
        return;
    }
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    if sk.is_null() {
        maps::lose(Loss::NoSocket);
        return;
    }
    // Two calls, so that what is rare costs what is usual no register.  An adopted
    // connection begins with a request.
    match bench::socket(sk, segment.seq) {
        Some(socket) => followed(ctx, sk, exchange(socket), &segment, ingress),
        None => {
            if let Some(socket) = untracked(ctx, sk, &segment, ingress) {
                to_server(ctx, sk, exchange(socket), &segment, ingress);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn exchange<'a>(socket: *mut Socket) -> &'a mut Exchange {
    // SAFETY: the storage is the socket's for the run of the program.  The other
    // direction may hold it at the same time: each writes fields of its own, as
    // `monitor_common::http` has it.
    unsafe { &mut (*socket).exchange }
}

/// A packet that is not TCP.  Where its socket is a TCP one it was encapsulated on
/// its way out, and what it carries passes unseen.
#[inline(always)]
fn unreadable(skb: &__sk_buff) {
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    // SAFETY: compared with null first.
    if !sk.is_null() && unsafe { !bpf_tcp_sock(sk).is_null() } {
        maps::lose(Loss::Encapsulated);
    }
}

/// Payload of a socket that is followed.
///
/// The directions part here, once: a choice between their fields further on would
/// be a pointer that needs `CAP_PERFMON`.
#[inline(always)]
fn followed(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    segment: &Segment,
    ingress: bool,
) {
    if (exchange.role == Role::Downstream as u8) == ingress {
        to_server(ctx, sk, exchange, segment, ingress);
    } else {
        to_client(ctx, sk, exchange, segment, ingress);
    }
}

#[inline(always)]
fn to_server(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    segment: &Segment,
    ingress: bool,
) {
    if exchange.generation != maps::generation() {
        // Payload has passed unseen while the level was another one.
        exchange.begin_anew(maps::generation(), next_seq(sk, segment, ingress));
    }
    let Some((counters, new, interest)) = turn(exchange, Direction::Request, sk, segment, ingress)
    else {
        return;
    };
    let event = request(ctx, exchange, interest, &new, now_ns(ctx, ingress));
    count_request(counters, event);
}

#[inline(always)]
fn to_client(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    segment: &Segment,
    ingress: bool,
) {
    if exchange.generation != maps::generation() {
        return;
    }
    let Some((counters, new, interest)) = turn(exchange, Direction::Response, sk, segment, ingress)
    else {
        return;
    };
    let took_ns = exchange.took_ns(now_ns(ctx, ingress));
    let event = response(ctx, exchange, interest, counters, &new);
    count_response(counters, event, took_ns);
}

/// What is new in a segment, where the stream has turned with it.
#[inline(always)]
fn turn(
    exchange: &mut Exchange,
    direction: Direction,
    sk: *mut bpf_sock,
    segment: &Segment,
    ingress: bool,
) -> Option<(*mut EndpointCounters, Segment, Interest)> {
    let kernel_next = || next_seq(sk, segment, ingress);
    let seen = exchange.admit(direction, segment.seq, segment.len, kernel_next)?;
    let interest = exchange.interest(direction);
    if matches!(interest, Interest::None) {
        return None;
    }
    let counters = maps::counters(exchange.slot)?;
    let new = Segment {
        seq: segment.seq,
        offset: segment.offset + seen,
        len: segment.len - seen,
        ports: segment.ports,
    };
    Some((counters, new, interest))
}

/// What TCP itself takes next: of what is sent, anything.
#[inline(always)]
fn next_seq(sk: *mut bpf_sock, segment: &Segment, ingress: bool) -> u32 {
    if ingress { rcv_nxt(sk) } else { segment.seq }
}

/// The monotonic clock.  TCP has just read it where it sends a segment, and left
/// it in the packet: the time at which the segment is due, with pacing too.
/// Reading the clock is dearer than all the rest.
#[inline(always)]
fn now_ns(ctx: &SkBuffContext, ingress: bool) -> u64 {
    // SAFETY: the context is valid for the run of the program.
    let skb = unsafe { &*ctx.skb.skb };
    if !ingress && skb.tstamp != 0 {
        return skb.tstamp;
    }
    // SAFETY: no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The segment in a packet; `None` for what is not TCP.
///
/// Headers are read in place where they lie at a constant distance from the
/// packet's beginning: any other needs `CAP_PERFMON`.
#[inline(always)]
fn segment(skb: &__sk_buff) -> Option<Segment> {
    let data = skb.data as usize;
    let end = skb.data_end as usize;
    // The shortest packet there is: IPv4 and TCP headers without options.
    if data + IPV4_HEADER + TCP_HEADER_MIN > end {
        return None;
    }
    let first = byte(data);
    if first >> 4 == 4 {
        if byte(data + 9) != IPPROTO_TCP {
            return None;
        }
        if first == IPV4_WITHOUT_OPTIONS {
            return in_place::<IPV4_HEADER>(skb, data, end);
        }
        return loaded(skb, u32::from(first & 0x0f) * 4);
    }
    match byte(data + 6) {
        IPPROTO_TCP => in_place::<IPV6_HEADER>(skb, data, end),
        // A segment of more than 64 KiB carries its length in a hop-by-hop
        // header (RFC 2675).  Other extension headers do not occur on TCP
        // sockets' own packets, but for a routing header that a socket
        // option asks for, which is not followed.
        IPPROTO_HOPOPTS if is_jumbo(data, end) => {
            in_place::<{ IPV6_HEADER + JUMBO_HEADER }>(skb, data, end)
        }
        _ => None,
    }
}

/// The segment whose TCP header lies so far from the packet's beginning.
#[inline(always)]
fn in_place<const AT: usize>(skb: &__sk_buff, data: usize, end: usize) -> Option<Segment> {
    if data + AT + TCP_HEADER_MIN > end {
        maps::lose(Loss::Headers);
        return Some(Segment::NOTHING);
    }
    let ports = word(data + AT);
    let seq = word(data + AT + 4);
    let length_and_flags = word(data + AT + 12);
    Some(Segment::of(skb, AT as u32, [ports, seq, length_and_flags]))
}

/// The same behind IPv4 options, which hardly anybody sends.
#[inline(always)]
fn loaded(skb: &__sk_buff, at: u32) -> Option<Segment> {
    let mut header = MaybeUninit::<[u32; 4]>::uninit();
    let to = header.as_mut_ptr().cast();
    let skb_address = core::ptr::from_ref(skb).cast();
    // SAFETY: as many bytes are loaded as `header` has.
    if unsafe { bpf_skb_load_bytes(skb_address, at, to, 16) } != 0 {
        maps::lose(Loss::Headers);
        return Some(Segment::NOTHING);
    }
    // SAFETY: every byte was loaded.
    let [ports, seq, _, length_and_flags] = unsafe { header.assume_init() };
    Some(Segment::of(skb, at, [ports, seq, length_and_flags]))
}

impl Segment {
    /// One whose headers were counted as lost.
    const NOTHING: Self = Self {
        seq: 0,
        offset: 0,
        len: 0,
        ports: 0,
    };

    /// From words of the TCP header, in network byte order.
    #[inline(always)]
    fn of(skb: &__sk_buff, ip_header: u32, header: [u32; 3]) -> Self {
        let [ports, seq, length_and_flags] = header;
        // Four bits of the header's length, and the flags from the ninth bit on.
        let length_and_flags = u32::from_be(length_and_flags);
        let syn = length_and_flags >> 17 & 1;
        let headers = ip_header + (length_and_flags >> 28) * 4;
        Self {
            // Payload follows the SYN that it comes with (RFC 7413).
            seq: u32::from_be(seq).wrapping_add(syn),
            offset: headers,
            len: skb.len.saturating_sub(headers),
            ports,
        }
    }
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
    let word: u64;
    // SAFETY: as above.  One instruction, which the kernel allows at any address of a
    // packet; the compiler does not know, and would put the word together from bytes.
    unsafe {
        asm!("{word} = *(u32 *)({address} + 0)", word = out(reg) word, address = in(reg) address)
    };
    word as u32
}

#[inline(always)]
fn double_word(address: usize) -> u64 {
    let word: u64;
    // SAFETY: as above.
    unsafe {
        asm!("{word} = *(u64 *)({address} + 0)", word = out(reg) word, address = in(reg) address)
    };
    word
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
fn untracked(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    segment: &Segment,
    ingress: bool,
) -> Option<*mut Socket> {
    // SAFETY: `sk` was compared with null.
    let listener = ingress && unsafe { (*sk).state } == TCP_LISTEN;
    let start = load_start(ctx, segment.offset, segment.len)?;
    if !listener {
        return adopted(ctx, sk, segment, start, ingress);
    }
    let key = HandshakeKey {
        seq: segment.seq,
        // Source port first in the packet; the callback has local port first.
        ports: u32::from_be(segment.ports),
    };
    let kept = HandshakeData {
        // SAFETY: no precondition.
        seen_at_ns: unsafe { bpf_ktime_get_ns() },
        start,
        len: segment.len,
        reserved: 0,
    };
    maps::keep_handshake(&key, &kept);
    None
}

/// Makes the storage of an adopted connection where an exchange begins for sure:
/// at a request's first line.  What was open before nobody can tell.
#[inline(always)]
fn adopted(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    segment: &Segment,
    start: Start,
    ingress: bool,
) -> Option<*mut Socket> {
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    let Some(adopted) = maps::adopted(cookie) else {
        maps::lose(Loss::UntrackedSocket);
        return None;
    };
    // SAFETY: written by the agent before the entry was in the map.
    let (slot, role) = unsafe { ((*adopted).slot, (*adopted).role) };
    let client_to_server = (role == Role::Downstream as u8) == ingress;
    // SAFETY: `sk` was compared with null, and the result is.
    let tcp = unsafe { bpf_tcp_sock(sk).as_ref() }?;
    let (next, other_next) = if ingress {
        (tcp.rcv_nxt, tcp.snd_nxt)
    } else {
        (segment.seq, tcp.rcv_nxt)
    };
    if !client_to_server || segment.seq != next || !start.begins_request(segment.len) {
        return None;
    }
    let Some(socket) = maps::socket_or_new(sk) else {
        maps::lose(Loss::SocketStorage);
        return None;
    };
    let exchange = exchange(socket);
    // All else is zero, as in every new storage.
    exchange.slot = slot;
    exchange.role = role;
    exchange.generation = maps::generation();
    exchange.request_next_seq = next;
    exchange.response_next_seq = other_next;
    Some(socket)
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
    // SAFETY: the context is valid for the run of the program.
    let start = start_in_place(unsafe { &*ctx.skb.skb }, offset, len);
    if start.is_some() {
        return start;
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

/// The same where it lies beside the usual headers, those with timestamps, in one
/// piece, as network devices deliver it.
#[inline(always)]
fn start_in_place(skb: &__sk_buff, offset: u32, len: u32) -> Option<Start> {
    const USUAL: usize = IPV4_HEADER + TCP_HEADER_MIN + 12;
    let data = skb.data as usize;
    let usual = offset == USUAL as u32 && len >= START_BYTES as u32;
    if !usual || data + USUAL + START_BYTES > skb.data_end as usize {
        return None;
    }
    Some(Start::of_words(
        double_word(data + USUAL),
        double_word(data + USUAL + 8),
    ))
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

/// A turn towards the server.
#[inline(always)]
fn request(
    ctx: &SkBuffContext,
    exchange: &mut Exchange,
    interest: Interest,
    segment: &Segment,
    now_ns: u64,
) -> RequestEvent {
    if matches!(interest, Interest::Turn) {
        exchange.turn_to_server(now_ns);
        return RequestEvent::None;
    }
    match load_start(ctx, segment.offset, segment.len) {
        Some(start) => exchange.on_request(start, capped(segment.len), now_ns),
        None => RequestEvent::None,
    }
}

/// A turn towards the client; behind interim responses, what follows within the
/// same payload.
#[inline(always)]
fn response(
    ctx: &SkBuffContext,
    exchange: &mut Exchange,
    interest: Interest,
    counters: *mut EndpointCounters,
    segment: &Segment,
) -> ResponseEvent {
    if matches!(interest, Interest::Turn) {
        return exchange.turn_to_client();
    }
    let (mut offset, mut len) = (segment.offset, segment.len);
    let mut heads = 0;
    while heads < HEADS_MAX {
        let Some(start) = load_start(ctx, offset, len) else {
            break;
        };
        let event = exchange.on_response(start, capped(len));
        let ResponseEvent::Interim(code) = event else {
            return event;
        };
        let head = head_len(ctx, offset, offset + len);
        if head == 0 || head >= len {
            return event;
        }
        bump_at!(counters, responses, code);
        offset += head;
        len -= head;
        heads += 1;
    }
    ResponseEvent::None
}

/// The length of a head up to and with its empty line, 0 where there is none
/// within `INTERIM_BYTES` or before `end`.
///
/// Eight places at once, and without a branch: the verifier follows every branch of
/// every round to the program's end.
#[inline(always)]
fn head_len(ctx: &SkBuffContext, begin: u32, end: u32) -> u32 {
    // Eight places, and what follows the last of them.
    const WINDOW: u32 = 12;
    if end - begin < WINDOW {
        return 0;
    }
    let last = u64::from(end - WINDOW);
    let (mut places, mut places_at) = (0u64, 0u64);
    let mut i = 0;
    while i < INTERIM_BYTES {
        let at = earlier(u64::from(begin + i), last);
        let mut window = MaybeUninit::<[u32; 3]>::uninit();
        let to = window.as_mut_ptr().cast();
        // SAFETY: as many bytes are loaded as `window` has; they lie before `end`.
        let _loaded = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), at as u32, to, WINDOW) };
        // SAFETY: every byte was loaded, or zeroed where that failed.
        let window = unsafe { window.assume_init() };
        let [a, b, c] = window.map(|word| u64::from(u32::from_le(word)));
        let found = bytes::empty_lines(a | b << 32, c);
        // All ones where these are the first.
        let first = (not_zero(found) & !not_zero(places)).wrapping_neg();
        places |= found & first;
        places_at |= at & first;
        i += 8;
    }
    if places == 0 {
        return 0;
    }
    places_at as u32 - begin + bytes::first(places) + 4
}

/// The smaller one of two words below 2^63.
#[inline(always)]
fn earlier(a: u64, b: u64) -> u64 {
    let difference = b.wrapping_sub(a);
    let mut negative = difference;
    // SAFETY: one instruction on a register.  Hidden from the compiler, which would
    // make a branch of it.
    unsafe { asm!("{n} s>>= 63", n = inout(reg) negative) };
    a.wrapping_add(difference & negative)
}

/// 1 for any word but zero.
#[inline(always)]
fn not_zero(word: u64) -> u64 {
    let mut negated = word;
    // SAFETY: as above.
    unsafe { asm!("{n} = -{n}", n = inout(reg) negated) };
    (word | negated) >> 63
}

/// Counts what a turn towards the server was.
#[inline(always)]
pub(crate) fn count_request(counters: *mut EndpointCounters, event: RequestEvent) {
    match event {
        RequestEvent::None => {}
        RequestEvent::Request {
            method,
            first_pipelined,
        } => {
            bump_at!(counters, requests, method as usize);
            if first_pipelined {
                bump!(counters, pipelined);
            }
        }
        RequestEvent::Suspected => bump!(counters, suspected),
    }
}

/// Counts what a turn towards the client was.
#[inline(always)]
fn count_response(counters: *mut EndpointCounters, event: ResponseEvent, took_ns: u64) {
    let is_timed = match event {
        ResponseEvent::None => false,
        ResponseEvent::Interim(code) => {
            bump_at!(counters, responses, code);
            false
        }
        ResponseEvent::Final(code, is_timed) => {
            bump_at!(counters, responses, code);
            is_timed
        }
        ResponseEvent::Unparsed(is_timed) => {
            bump!(counters, unparsed);
            is_timed
        }
        ResponseEvent::Exchange => {
            bump!(counters, exchanges);
            true
        }
    };
    if is_timed {
        // SAFETY: only the address of the field is taken.
        count_duration(unsafe { &raw mut (*counters).exchange }, took_ns);
    }
}

/// At the end of a connection: what was asked and not answered.
#[inline(always)]
pub(crate) fn count_unanswered(exchange: &Exchange, counters: *mut EndpointCounters) {
    if exchange.generation != maps::generation() {
        // Nobody saw whether it was answered.
        return;
    }
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
