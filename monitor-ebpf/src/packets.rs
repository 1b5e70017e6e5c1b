//! Packets: where a stream turns, and what it says there.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    handshake::{HandshakeData, HandshakeKey},
    http::{
        Admitted, Direction, Exchange, Interest, Moment, Payload, RequestEvent, ResponseEvent,
        Start, expects,
    },
    losses::Loss,
    socket::Socket,
    tcp::state,
    tls::{Beginning, Side},
};

use crate::{
    answer, bench,
    count::{bump, bump_at, bump_by, count_duration},
    maps,
    payload::Packet,
    protocol, proxied,
    segment::{Segment, segment},
    tls,
};

/// Lets the packet pass.
const PASS: i32 = 1;

const TCP_LISTEN: u32 = 10;
// Inlined, though the compiler finds it too large: as a call it cost 7 ns, which is
// three times what all else of an ACK costs.
#[cgroup_skb]
#[inline(always)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet::<false>(&ctx, true);
    PASS
}

#[cgroup_skb]
#[inline(always)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet::<false>(&ctx, false);
    PASS
}

/// The same where the records of TLS handshakes are seen, with `CAP_PERFMON`: without it
/// the verifier follows too many ways through all of it.
#[cgroup_skb]
#[inline(always)]
pub fn ingress_tls(ctx: SkBuffContext) -> i32 {
    packet::<true>(&ctx, true);
    PASS
}

/// The same of what is sent.
#[cgroup_skb]
#[inline(always)]
pub fn egress_tls(ctx: SkBuffContext) -> i32 {
    packet::<true>(&ctx, false);
    PASS
}

#[inline(always)]
fn packet<const TLS: bool>(ctx: &SkBuffContext, ingress: bool) {
    // SAFETY: the context is valid for the run of the program.
    let skb = unsafe { &*ctx.skb.skb };
    let Some(segment) = segment(skb) else {
        return unreadable(skb);
    };
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    let sk = unsafe { skb.__bindgen_anon_2.sk };
    if segment.is_reset {
        return reset(ctx, sk, &segment, ingress);
    }
    if segment.len == 0 {
        return;
    }
    if sk.is_null() {
        maps::lose(Loss::NoSocket);
        return;
    }
    let socket = match bench::socket(sk, segment.seq) {
        Some(socket) => socket,
        None => match untracked(ctx, sk, &segment, ingress) {
            Some(socket) => socket,
            None => return,
        },
    };
    followed::<TLS>(ctx, sk, socket, &segment, ingress);
}

/// Notes a reset for the end that it brings about, or that it tells of.
#[inline(always)]
fn reset(ctx: &SkBuffContext, sk: *mut bpf_sock, segment: &Segment, ingress: bool) {
    if sk.is_null() {
        return;
    }
    if let Some(socket) = maps::socket(sk) {
        // SAFETY: each direction writes fields of its own.
        unsafe {
            let exchange = &raw mut (*socket).exchange;
            if ingress {
                (&raw mut (*exchange).reset_received_seq).write_volatile(segment.seq);
                (&raw mut (*exchange).reset_received).write_volatile(1);
            } else {
                (&raw mut (*exchange).reset_sent).write_volatile(1);
            }
        }
    }
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    if let Some(adopted) = maps::adopted(cookie) {
        // SAFETY: each direction writes a byte of its own.
        unsafe {
            if ingress {
                (&raw mut (*adopted).reset_received).write_volatile(1);
            } else {
                (&raw mut (*adopted).reset_sent).write_volatile(1);
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
fn followed<const TLS: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: *mut Socket,
    segment: &Segment,
    ingress: bool,
) {
    if (exchange(socket).role == Role::Downstream as u8) == ingress {
        to_server::<TLS>(ctx, sk, socket, segment, ingress);
    } else {
        to_client::<TLS>(ctx, sk, socket, segment, ingress);
    }
}

#[inline(always)]
fn to_server<const TLS: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: *mut Socket,
    segment: &Segment,
    ingress: bool,
) {
    let exchange = exchange(socket);
    if exchange.generation != maps::generation() {
        // Payload has passed unseen while the level was another one.
        let [own, other] = next_seqs(sk, segment, ingress);
        exchange.begin_anew(maps::generation(), own, other);
        answer::forget(socket);
    }
    let payload = Packet {
        ctx,
        offset: segment.offset,
    };
    let Some(seen) = admit(&payload, exchange, Direction::Request, sk, segment, ingress) else {
        return;
    };
    let end_seq = segment.seq.wrapping_add(segment.len);
    let mut beyond = 0;
    match exchange.request_interest() {
        Interest::None => passed_request(&payload, exchange, segment.len, seen),
        Interest::Turn => exchange.turn_to_server(moment(ctx, sk, segment, ingress)),
        Interest::Read => {
            // What comes after the process has closed is never read.
            if !ingress || !is_closed(sk) {
                beyond = requests(&payload, exchange, sk, segment, seen, ingress);
            }
        }
        Interest::Records => {
            if !exchange.is_open() {
                exchange.turn_to_server(moment(ctx, sk, segment, ingress));
            }
        }
    }
    if !TLS {
        if exchange.protocol == Exchange::TLS {
            tls::give_up(sk, exchange);
        }
    } else if exchange.protocol == Exchange::TLS && (!ingress || !is_closed(sk)) {
        let place = Place::of(segment, ingress);
        records::<CLIENT>(ctx, sk, exchange, place);
    }
    exchange.go_on(Direction::Request, end_seq.wrapping_add(beyond));
    if ingress && let Some((len, start)) = exchange.release(Direction::Request) {
        held_requests::<TLS>(ctx, sk, exchange, segment, start, len);
        let next = exchange.held_seq.wrapping_add(len);
        exchange.go_on(Direction::Request, next);
    }
}

/// A segment that belongs to a request of which the end is not known, unless it begins
/// another one.
#[inline(always)]
fn passed_request(payload: &Packet<'_>, exchange: &Exchange, len: u32, at: u32) {
    let left = len.wrapping_sub(at);
    if exchange.may_pass_request(left, || payload.start(at, left))
        && let Some(counters) = maps::counters(exchange.slot)
    {
        bump!(counters, suspected);
    }
}

#[inline(always)]
fn requests(
    payload: &Packet<'_>,
    exchange: &mut Exchange,
    sk: *mut bpf_sock,
    segment: &Segment,
    at: u32,
    ingress: bool,
) -> u32 {
    let Some(counters) = maps::counters(exchange.slot) else {
        return 0;
    };
    let now = || moment(payload.ctx, sk, segment, ingress);
    let count = |event, method| count_request(counters, event, method);
    let beyond = exchange.read_requests(payload, at, segment.len, now, count);
    proxied::keep(payload, exchange, sk, at, segment.len);
    protocol::count(exchange, counters);
    beyond
}

/// Where a segment of a TLS handshake lies, in two words: pointers on the stack would be
/// in the way of what else is kept there, which older verifiers and those without
/// `CAP_PERFMON` refuse, and all that is there is slower for what is no TLS.
#[derive(Clone, Copy)]
struct Place {
    seq_and_len: u64,
    offset_and_flags: u64,
}

impl Place {
    const INGRESS: u64 = 1 << 32;

    #[inline(always)]
    fn of(segment: &Segment, ingress: bool) -> Self {
        let ingress = if ingress { Self::INGRESS } else { 0 };
        Self {
            seq_and_len: u64::from(segment.seq) << 32 | u64::from(segment.len),
            offset_and_flags: u64::from(segment.offset) | ingress,
        }
    }
}

/// Reads TLS records.  A call, as handshakes are rare and there is much of it.
#[inline(always)]
fn records<const BY_CLIENT: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    place: Place,
) {
    let skb = ctx.skb.skb;
    records_of::<BY_CLIENT>(skb, sk, exchange, place.seq_and_len, place.offset_and_flags);
}

#[inline(never)]
fn records_of<const BY_CLIENT: bool>(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    seq_and_len: u64,
    offset_and_flags: u64,
) {
    let ctx = &SkBuffContext::new(skb);
    let (seq, len) = ((seq_and_len >> 32) as u32, seq_and_len as u32);
    let ingress = offset_and_flags & Place::INGRESS != 0;
    if BY_CLIENT && exchange.request_expects == expects::HELLO {
        tls::begin(sk, exchange, seq);
    }
    let payload = Packet {
        ctx,
        offset: offset_and_flags as u32,
    };
    let side = if BY_CLIENT {
        Side::Client
    } else {
        Side::Server
    };
    let now = || now_ns(ctx, ingress);
    tls::read(sk, exchange, side, &payload, seq, len, now);
}

const CLIENT: bool = true;
const SERVER: bool = false;

/// When a segment from the client is seen.
#[inline(always)]
fn moment(ctx: &SkBuffContext, sk: *mut bpf_sock, segment: &Segment, ingress: bool) -> Moment {
    // What is sent passes here in its order, and TCP moves its own number on only later:
    // the next request may be here before.  What is received may pass on several CPUs at
    // once, and there TCP's number is exact, as its lock is held.
    let response_seq = if ingress {
        0
    } else {
        let [_, other] = next_seqs(sk, segment, ingress);
        other
    };
    Moment {
        ns: now_ns(ctx, ingress),
        response_seq,
    }
}

/// The segment that waited for the one before it.
#[inline(always)]
fn held_requests<const TLS: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    segment: &Segment,
    start: Start,
    len: u32,
) {
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    let now = || moment(ctx, sk, segment, true);
    match exchange.request_interest() {
        Interest::None => {}
        Interest::Turn => exchange.turn_to_server(now()),
        Interest::Read => {
            let event = exchange.read_request_start(start, len, now);
            count_request(counters, event, exchange.method);
            protocol::count(exchange, counters);
            if exchange.protocol == Exchange::TLS {
                if TLS {
                    tls::begin(sk, exchange, exchange.held_seq);
                } else {
                    tls::give_up(sk, exchange);
                }
            }
        }
        Interest::Records => {
            if !exchange.is_open() {
                exchange.turn_to_server(now());
            }
            if TLS {
                held_records::<CLIENT>(ctx.skb.skb, sk, exchange, len);
            }
        }
    }
}

/// The same of TLS records.
#[inline(never)]
fn held_records<const BY_CLIENT: bool>(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    len: u32,
) {
    let ctx = &SkBuffContext::new(skb);
    let side = if BY_CLIENT {
        Side::Client
    } else {
        Side::Server
    };
    let held = Beginning {
        start: exchange.held_start,
        len,
    };
    tls::read_held(sk, exchange, side, held, || now_ns(ctx, true));
}

#[inline(always)]
fn to_client<const TLS: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: *mut Socket,
    segment: &Segment,
    ingress: bool,
) {
    let exchange = exchange(socket);
    if exchange.generation != maps::generation() {
        return;
    }
    let payload = Packet {
        ctx,
        offset: segment.offset,
    };
    let Some(seen) = admit(
        &payload,
        exchange,
        Direction::Response,
        sk,
        segment,
        ingress,
    ) else {
        return;
    };
    responses::<TLS>(&payload, sk, socket, seen, segment, ingress);
    answer::keep_tail(&payload, socket, segment.seq, segment.len);
    let next = segment.seq.wrapping_add(segment.len);
    exchange.go_on(Direction::Response, next);
    if ingress && let Some((len, start)) = exchange.release(Direction::Response) {
        held_response::<TLS>(ctx, sk, exchange, start, len);
        answer::forget(socket);
        let next = exchange.held_seq.wrapping_add(len);
        exchange.go_on(Direction::Response, next);
    }
}

#[inline(always)]
fn responses<const TLS: bool>(
    payload: &Packet<'_>,
    sk: *mut bpf_sock,
    socket: *mut Socket,
    at: u32,
    segment: &Segment,
    ingress: bool,
) {
    let exchange = exchange(socket);
    let interest = exchange.response_interest();
    if matches!(interest, Interest::None) {
        let left = segment.len.wrapping_sub(at);
        if exchange.passes_response(left, || payload.start(at, left)) {
            maps::lose(Loss::PassedOver);
        }
        return;
    }
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    let took_ns = exchange.took_ns(now_ns(payload.ctx, ingress));
    let event = if matches!(interest, Interest::Turn) {
        exchange.turn_to_client()
    } else if matches!(interest, Interest::Records) {
        if TLS {
            let place = Place::of(segment, ingress);
            records::<SERVER>(payload.ctx, sk, exchange, place);
        }
        if !exchange.is_open() {
            return;
        }
        exchange.turn_to_client()
    } else {
        let count = |code| bump_at!(counters, responses, code);
        let begins = exchange.is_at_response();
        let lose = || maps::lose(Loss::PassedOver);
        let event = exchange.read_responses(payload, at, segment.len, count, lose);
        if matches!(event, ResponseEvent::Final(..)) {
            answer::keep_head(payload, socket, segment.seq, at, segment.len, begins);
        }
        event
    };
    count_response(counters, event, took_ns);
}

/// The segment that waited for the one before it.
#[inline(always)]
fn held_response<const TLS: bool>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    start: Start,
    len: u32,
) {
    let interest = exchange.response_interest();
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    let event = match interest {
        Interest::None => return,
        Interest::Turn => exchange.turn_to_client(),
        Interest::Read => exchange.read_response_start(start, len),
        Interest::Records => {
            if TLS {
                held_records::<SERVER>(ctx.skb.skb, sk, exchange, len);
            }
            if !exchange.is_open() {
                return;
            }
            exchange.turn_to_client()
        }
    };
    let took_ns = exchange.took_ns(now_ns(ctx, true));
    count_response(counters, event, took_ns);
}

/// How much of a segment was seen before; `None` where there is nothing new, or it
/// has to wait.
#[inline(always)]
fn admit(
    payload: &Packet<'_>,
    exchange: &mut Exchange,
    direction: Direction,
    sk: *mut bpf_sock,
    segment: &Segment,
    ingress: bool,
) -> Option<u32> {
    let kernel_next = || next_seqs(sk, segment, ingress)[0];
    let lose = || maps::lose(Loss::PassedOver);
    match exchange.admit(direction, segment.seq, segment.len, kernel_next, lose) {
        Admitted::New(seen) => Some(seen),
        Admitted::Behind if ingress => {
            let start = payload.start(0, segment.len)?;
            let filled = exchange.hold(direction, segment.seq, segment.len, start);
            filled.then_some(0)
        }
        Admitted::Behind | Admitted::Seen => None,
    }
}

/// Whether the process has closed its side: what a client sends now is answered by a
/// reset, or thrown away.
#[inline(always)]
fn is_closed(sk: *mut bpf_sock) -> bool {
    // SAFETY: `sk` was compared with null.
    let state = unsafe { (*sk).state } as u8;
    matches!(
        state,
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING
    )
}

/// What TCP itself takes next, of this direction and of the other one: of what is
/// sent, anything.
#[inline(always)]
fn next_seqs(sk: *mut bpf_sock, segment: &Segment, ingress: bool) -> [u32; 2] {
    // SAFETY: `sk` was compared with null, and the result is.
    let Some(tcp) = (unsafe { bpf_tcp_sock(sk).as_ref() }) else {
        return [segment.seq, 0];
    };
    // Volatile, or the compiler may choose between addresses, which the verifier refuses.
    // SAFETY: a reference is valid and aligned.
    let rcv_nxt = unsafe { (&raw const tcp.rcv_nxt).read_volatile() };
    if ingress {
        // SAFETY: as above.
        [rcv_nxt, unsafe { (&raw const tcp.snd_nxt).read_volatile() }]
    } else {
        [segment.seq, rcv_nxt]
    }
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
    let payload = Packet {
        ctx,
        offset: segment.offset,
    };
    let start = payload.start(0, segment.len)?;
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
    let [next, other_next] = next_seqs(sk, segment, ingress);
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

/// Counts what a turn towards the server was.
#[inline(always)]
pub(crate) fn count_request(counters: *mut EndpointCounters, event: RequestEvent, method: u8) {
    match event {
        RequestEvent::None => {}
        RequestEvent::Request | RequestEvent::FirstPipelined => {
            bump_at!(counters, requests, usize::from(method));
            if matches!(event, RequestEvent::FirstPipelined) {
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
    if exchange.is_amid_start() {
        bump!(counters, unparsed);
    }
    if exchange.response_flags & Exchange::TUNNEL != 0 {
        return;
    }
    if exchange.is_pipelined() {
        bump_by!(counters, open_requests(exchange), suspected);
    } else if exchange.protocol == Exchange::HTTP1 {
        bump_by!(counters, open_requests(exchange), requests_without_response);
    }
}

#[inline(always)]
fn open_requests(exchange: &Exchange) -> u64 {
    u64::from(exchange.requests.wrapping_sub(exchange.responses))
}

/// What `count_unanswered` counts as requests without a response.
#[inline(always)]
pub(crate) fn unanswered(exchange: &Exchange) -> u64 {
    let is_unknown = exchange.generation != maps::generation()
        || exchange.response_flags & Exchange::TUNNEL != 0
        || exchange.is_pipelined();
    if is_unknown {
        0
    } else {
        open_requests(exchange)
    }
}
