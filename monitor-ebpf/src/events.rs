//! The life of connections.
//!
//! Callbacks of one socket run under its lock, one after the other, so the
//! stream's fields need no care; the endpoint's counters are shared.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG,
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB,
        BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock,
        bpf_sock_ops,
    },
    helpers::{
        bpf_get_socket_cookie, bpf_ktime_get_ns,
        generated::{bpf_get_netns_cookie, bpf_getsockopt, bpf_jiffies64},
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::debug;
use monitor_common::{
    counters::{EndpointCounters, Failure},
    ending::{Close, Resets, ending},
    endpoint::{Role, other_slot},
    handshake::HandshakeKey,
    http::{Exchange, Moment},
    losses::Loss,
    socket::Socket,
    tcp::{Reading, Stream, state},
};

use crate::{
    answer, clients,
    count::{bump, bump_at, bump_by, count_duration},
    endpoint, maps, packets, protocol, segment, tls,
};

const CALLBACKS: u32 =
    BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;

const TCP_FLAG_FIN: u32 = 1;

const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;

/// Lets the kernel go on; anything else would be an error to it.
const GO_ON: u32 = 1;

#[sock_ops]
pub fn socket_events(ctx: SockOpsContext) -> u32 {
    handle::<false, false>(&ctx);
    GO_ON
}

/// The same where responses are read at the end of their connection (level http, with
/// `CAP_PERFMON`).  Switches within one program would cost nothing, but older verifiers
/// refuse what is behind them without `CAP_PERFMON`, switched on or not.
#[sock_ops]
pub fn socket_events_http(ctx: SockOpsContext) -> u32 {
    handle::<false, true>(&ctx);
    GO_ON
}

/// The same with a log, in its place where the agent is asked for one.
#[sock_ops]
pub fn socket_events_logged(ctx: SockOpsContext) -> u32 {
    handle::<true, false>(&ctx);
    GO_ON
}

/// Both.
#[sock_ops]
pub fn socket_events_http_logged(ctx: SockOpsContext) -> u32 {
    handle::<true, true>(&ctx);
    GO_ON
}

#[inline(always)]
fn handle<const LOGS: bool, const READS: bool>(ctx: &SockOpsContext) {
    // SAFETY: the context is valid for the run of the program.
    let ops = unsafe { &*ctx.ops };
    match ops.op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => open::<LOGS>(ctx, ops, Role::Upstream),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => active_established(ctx, ops),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => passive_established::<LOGS>(ctx, ops),
        BPF_SOCK_OPS_RTT_CB => round_trip(ctx, ops),
        BPF_SOCK_OPS_STATE_CB => state_change::<LOGS, READS>(ctx, ops),
        BPF_SOCK_OPS_RTO_CB => timer(ctx, ops),
        BPF_SOCK_OPS_PARSE_HDR_OPT_CB => header(ops),
        // What another program asked for tells of it, too.
        _ => {
            if let Some(socket) = followed(ops) {
                keep_callbacks(ctx, ops, socket);
            }
        }
    }
}

#[inline(always)]
fn sk(ops: &bpf_sock_ops) -> *mut bpf_sock {
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    unsafe { ops.__bindgen_anon_2.sk }
}

/// The socket's storage, where it is followed.
#[inline(always)]
fn followed(ops: &bpf_sock_ops) -> Option<*mut Socket> {
    let sk = sk(ops);
    if sk.is_null() {
        return None;
    }
    // An adopted connection has storage for its exchanges alone; where another
    // program asked for its callbacks they come here, too.
    maps::socket(sk).filter(|&socket| stream(socket).is_followed())
}

/// What callbacks alone write, one after the other.
#[inline(always)]
fn stream<'a>(socket: *mut Socket) -> &'a mut Stream {
    // SAFETY: the storage is the socket's for the run of the program, which holds
    // the socket's lock.
    unsafe { &mut (*socket).stream }
}

/// Which slot a connection is counted in.
#[inline(always)]
fn slot(socket: *mut Socket) -> u32 {
    // SAFETY: written before the first packet comes.
    unsafe { (*socket).exchange.slot }
}

/// What `ss -e` calls the socket.
#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context is the program's own.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn reading(ops: &bpf_sock_ops) -> Reading {
    Reading {
        bytes_received: ops.bytes_received,
        bytes_acked: ops.bytes_acked,
        rcv_nxt: ops.rcv_nxt,
        snd_nxt: ops.snd_nxt,
        snd_una: ops.snd_una,
        segs_in: ops.segs_in,
        segs_out: ops.segs_out,
        total_retrans: ops.total_retrans,
    }
}

#[inline(always)]
fn call_back(ctx: &SockOpsContext, ops: &bpf_sock_ops, flags: u32) {
    // What another program asked for stays asked for.
    if ctx
        .set_cb_flags((ops.bpf_sock_ops_cb_flags | flags).cast_signed())
        .is_err()
    {
        maps::lose(Loss::UntrackedCallback);
    }
}

/// Asks again for the callbacks of a connection that another program took away, by
/// setting flags of its own alone.  Those that it left tell of it, as do those that
/// the kernel makes unasked between the SYN's and the SYN: there nothing was missed.
#[inline(always)]
fn keep_callbacks(ctx: &SockOpsContext, ops: &bpf_sock_ops, socket: *mut Socket) {
    if ops.bpf_sock_ops_cb_flags & CALLBACKS == CALLBACKS {
        return;
    }
    if stream(socket).has(Stream::ESTABLISHED) {
        maps::lose(Loss::CallbacksTaken);
    }
    call_back(ctx, ops, CALLBACKS);
}

/// A handshake was completed by an ACK: that of a connection from outside, or of
/// one that we opened while the peer did the same (RFC 9293, section 3.5).
#[inline(always)]
fn passive_established<const LOGS: bool>(ctx: &SockOpsContext, ops: &bpf_sock_ops) {
    match followed(ops) {
        Some(socket) if !stream(socket).has(Stream::ENDED) => active_established(ctx, ops),
        _ => open::<LOGS>(ctx, ops, Role::Downstream),
    }
}

/// A SYN is about to be sent, or a handshake was completed from outside.
#[inline(always)]
fn open<const LOGS: bool>(ctx: &SockOpsContext, ops: &bpf_sock_ops, role: Role) {
    let sk = sk(ops);
    if sk.is_null() {
        maps::lose(Loss::UntrackedCallback);
        return;
    }
    // SAFETY: the context is the program's own.
    maps::note_namespace(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) });
    let slot = endpoint::slot(&endpoint::key(ops, role), role);
    if slot == other_slot(role) {
        maps::lose(Loss::EndpointMapFull);
    }
    let Some(counters) = maps::counters(slot) else {
        maps::lose(Loss::UntrackedCallback);
        return;
    };
    let Some(socket) = maps::socket_or_new(sk) else {
        maps::lose(Loss::SocketStorage);
        return;
    };
    if matches!(role, Role::Upstream) {
        // A socket that failed to connect may try again: nothing of then remains.
        // SAFETY: no packet of it comes before the SYN that is sent next.
        unsafe { Socket::clear(socket) };
    }
    let stream = stream(socket);
    // SAFETY: no precondition.
    stream.opened_at_ns = unsafe { bpf_ktime_get_ns() };
    let exchange = packets::exchange(socket);
    exchange.slot = slot;
    exchange.role = role as u8;
    bump!(counters, connections_opened);
    if matches!(role, Role::Upstream) {
        stream.flags = Stream::ACTIVE_OPEN;
        stream.folded_segs_in = ops.segs_in;
        stream.folded_segs_out = ops.segs_out;
        stream.folded_retrans = ops.total_retrans;
        // Where our stream begins is not known yet; a SYN with payload tells.
        exchange.generation = maps::generation() ^ 1;
    } else {
        stream.flags = Stream::ESTABLISHED;
        exchange.generation = maps::generation();
        bump!(counters, connections_established);
        exchange.request_next_seq = ops.rcv_nxt;
        exchange.response_next_seq = ops.snd_nxt;
        handshake_data(ops, sk, socket, counters);
    }
    call_back(ctx, ops, CALLBACKS);
    if LOGS {
        let (cookie, role) = (cookie(ctx), role as u8);
        debug!(ctx, "opened cookie={} role={} slot={}", cookie, role, slot);
    }
}

/// Takes up what the packet program kept of a handshake that ended with
/// payload: it saw the listener, not this socket.
#[inline(always)]
fn handshake_data(
    ops: &bpf_sock_ops,
    sk: *mut bpf_sock,
    socket: *mut Socket,
    counters: *mut EndpointCounters,
) {
    let key = HandshakeKey {
        seq: ops.rcv_nxt,
        ports: ports(ops),
    };
    let Some(kept) = maps::take_handshake(&key) else {
        return;
    };
    let exchange = packets::exchange(socket);
    exchange.request_next_seq = key.seq.wrapping_add(kept.len);
    let now = || Moment {
        ns: kept.seen_at_ns,
        // It is there already.
        response_seq: 0,
    };
    let event = exchange.read_request_start(kept.start, kept.len, now);
    packets::count_request(counters, event, exchange.method);
    protocol::count(exchange, counters);
    if exchange.protocol == Exchange::TLS {
        // What follows the hello in its segment is gone, as the next one tells.
        tls::begin(sk, exchange, key.seq);
    }
}

/// Both ports in one word, the remote one in network byte order.
#[inline(always)]
fn ports(ops: &bpf_sock_ops) -> u32 {
    (ops.local_port & 0xffff) | u32::from_be(ops.remote_port) << 16
}

#[inline(always)]
fn active_established(ctx: &SockOpsContext, ops: &bpf_sock_ops) {
    let Some(socket) = followed(ops) else { return };
    let Some(counters) = maps::counters(slot(socket)) else {
        return;
    };
    // Another program may have set flags of its own in their place since the SYN.
    call_back(ctx, ops, CALLBACKS);
    let stream = stream(socket);
    stream.flags |= Stream::ESTABLISHED;
    let exchange = packets::exchange(socket);
    exchange.generation = maps::generation();
    exchange.request_next_seq = ops.snd_nxt;
    exchange.response_next_seq = ops.rcv_nxt;
    bump!(counters, connections_established);
    // SAFETY: no precondition.
    let took_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(stream.opened_at_ns);
    // SAFETY: only the address of the field is taken.
    count_duration(unsafe { &raw mut (*counters).connect }, took_ns);
}

/// A round-trip time was measured: about once per answered request.  Of a busy
/// socket most are passed over: what is not folded now is folded next time, at
/// the end, or added by the agent's dump.
#[inline(always)]
fn round_trip(ctx: &SockOpsContext, ops: &bpf_sock_ops) {
    if !Stream::is_looked_at(ops.segs_in) {
        return;
    }
    let Some(socket) = followed(ops) else { return };
    // SAFETY: no precondition.
    let ticks = unsafe { bpf_jiffies64() } as u32;
    if !stream(socket).is_due(ticks) {
        return;
    }
    keep_callbacks(ctx, ops, socket);
    if let Some(counters) = maps::counters(slot(socket)) {
        fold(ops, socket, counters);
    }
}

/// Adds what came on top since the last time to the endpoint, and the round-trip
/// time as it is now.
#[inline(always)]
fn fold(ops: &bpf_sock_ops, socket: *mut Socket, counters: *mut EndpointCounters) {
    // The kernel keeps eighths of a microsecond; none where none was measured.
    if ops.srtt_us != 0 {
        bump_by!(counters, u64::from(ops.srtt_us >> 3), srtt_sum_us);
        bump!(counters, srtt_samples);
    }
    let delta = stream(socket).fold(&reading(ops));
    bump_by!(counters, delta.bytes_received, bytes_received);
    bump_by!(counters, delta.bytes_sent, bytes_sent);
    bump_by!(counters, delta.packets_received, packets_received);
    bump_by!(counters, delta.packets_sent, packets_sent);
    bump_by!(counters, delta.retransmits, retransmits);
    if is_handshake(ops.state) {
        bump_by!(counters, delta.retransmits, syn_retransmits);
    }
}

/// Whether all that is sent again in this state are SYNs and SYN-ACKs.
#[inline(always)]
fn is_handshake(state: u32) -> bool {
    state == u32::from(state::SYN_SENT) || state == u32::from(state::SYN_RECV)
}

#[inline(always)]
fn state_change<const LOGS: bool, const READS: bool>(ctx: &SockOpsContext, ops: &bpf_sock_ops) {
    let Some(socket) = followed(ops) else { return };
    let Some(counters) = maps::counters(slot(socket)) else {
        return;
    };
    let (old, new) = (ctx.arg(0) as u8, ctx.arg(1) as u8);
    let ends = new == state::CLOSE && !stream(socket).has(Stream::ENDED);
    // From our FIN on the agent's dump does not tell what was not folded.  Before the
    // flags know of it, as it is not sent yet.
    if ends || new == state::FIN_WAIT1 || new == state::LAST_ACK {
        fold(ops, socket, counters);
    } else if new == state::ESTABLISHED {
        // All that was sent again up to here; the next fold has it among the others.
        let sent_again = ops
            .total_retrans
            .wrapping_sub(stream(socket).folded_retrans);
        bump_by!(counters, u64::from(sent_again), syn_retransmits);
    }
    stream(socket).enter(new);
    if !ends {
        keep_callbacks(ctx, ops, socket);
    }
    if new == state::FIN_WAIT1 {
        // From here on only the packet's header tells whether the peer's FIN
        // was taken.
        call_back(ctx, ops, CALLBACKS | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
    }
    if ends {
        stream(socket).flags |= Stream::ENDED;
        end::<READS>(ctx, ops, socket, counters, old);
        if LOGS {
            debug!(ctx, "ended cookie={} old_state={}", cookie(ctx), old);
        }
    }
}

#[inline(always)]
fn end<const READS: bool>(
    ctx: &SockOpsContext,
    ops: &bpf_sock_ops,
    socket: *mut Socket,
    counters: *mut EndpointCounters,
    old: u8,
) {
    // Of an attempt that failed, too: its SYN may have carried a request.
    packets::count_unanswered(packets::exchange(socket), counters);
    tls::end(sk(ops), packets::exchange(socket), counters);
    let stream = stream(socket);
    let released = is_released(socket);
    if !stream.has(Stream::ESTABLISHED) {
        let reason = failure(ops, stream, released, old);
        // Last, so that who sees the connection ended sees all of it counted.
        bump_at!(counters, connections_failed, reason as usize);
        return;
    }
    let now = reading(ops);
    bump_by!(counters, stream.unacked(&now), bytes_unacked);
    let ending = how(ctx, socket, old, released) as usize;
    answer::count_open_exchange::<READS>(socket, counters, &now, ending);
    clients::add_ended(ops, socket, ending);
    // Last, as above.
    bump_at!(counters, connections_closed, ending);
}

/// How an established connection ended.  A function of its own: within its caller the
/// verifier of Linux 6.1 sees places of the stack read that were not written, without
/// `CAP_PERFMON`.
#[inline(never)]
fn how(ctx: &SockOpsContext, socket: *mut Socket, from: u8, released: bool) -> u64 {
    // SAFETY: the kernel hands a valid context to every program.
    let ops = unsafe { &*ctx.ops };
    let close = Close {
        from,
        released,
        packets_out: ops.packets_out,
        data_segs_out: ops.data_segs_out,
        sees_packets: sees_packets(socket),
        resets: resets(socket),
    };
    ending(stream(socket), &reading(ops), &close, || keepalive(ctx)) as u64
}

/// Whether the process has let go of the socket.
#[inline(always)]
fn is_released(socket: *mut Socket) -> bool {
    // SAFETY: written where the process calls, which may be at this moment.
    unsafe { (&raw const (*socket).process.released).read_volatile() != 0 }
}

/// Whether all packets since the last payload of the client were looked at.
#[inline(always)]
fn sees_packets(socket: *mut Socket) -> bool {
    maps::sees_packets() && packets::exchange(socket).generation == maps::generation()
}

/// The resets among the packets, as far as these were looked at; read in any case, so that
/// it is a value in any case.
#[inline(always)]
fn resets(socket: *mut Socket) -> Resets {
    let exchange = packets::exchange(socket);
    // SAFETY: of the socket's storage.
    unsafe {
        Resets {
            received_seq: (&raw const exchange.reset_received_seq).read_volatile(),
            received: (&raw const exchange.reset_received).read_volatile(),
            sent: (&raw const exchange.reset_sent).read_volatile(),
            reserved: [0; 2],
        }
    }
}

/// Whether the kernel probes the connection while it is idle; `None` before Linux 6.1,
/// which does not tell.
#[inline(always)]
fn keepalive(ctx: &SockOpsContext) -> Option<bool> {
    let mut value = 0i32;
    let len = size_of::<i32>() as i32;
    let to = (&raw mut value).cast();
    // SAFETY: as many bytes are written as `value` has.
    let result = unsafe { bpf_getsockopt(ctx.as_ptr(), SOL_SOCKET, SO_KEEPALIVE, to, len) };
    (result == 0).then_some(value != 0)
}

/// Why a connection was never established.
#[inline(always)]
fn failure(ops: &bpf_sock_ops, stream: &Stream, released: bool, old: u8) -> Failure {
    if old == state::SYN_RECV {
        Failure::Reset
    } else if stream.has(Stream::TIMED_OUT) {
        Failure::Timeout
    } else if stream.folded_segs_in != 0 || ops.segs_in != 0 {
        // The only segment that ends an attempt is a reset.
        Failure::Refused
    } else if released {
        Failure::Aborted
    } else {
        // Ended by the kernel without a segment: an ICMP error.
        Failure::Unreachable
    }
}

/// The retransmission timer ran out.
#[inline(always)]
fn timer(ctx: &SockOpsContext, ops: &bpf_sock_ops) {
    let expired = ctx.arg(2) != 0;
    let Some(socket) = followed(ops) else { return };
    if expired {
        stream(socket).flags |= Stream::TIMED_OUT;
    } else {
        keep_callbacks(ctx, ops, socket);
    }
}

/// A packet came after we sent our FIN: does it carry the peer's, or payload that
/// nobody is going to read?
#[inline(always)]
fn header(ops: &bpf_sock_ops) {
    let fin = ops.skb_tcp_flags & TCP_FLAG_FIN;
    let Some(payload_end) = segment::payload_end_seq(ops) else {
        return;
    };
    let is_new = payload_end.wrapping_sub(ops.rcv_nxt).cast_signed() > 0;
    if fin == 0 && !is_new {
        return;
    }
    let Some(socket) = followed(ops) else { return };
    let stream = stream(socket);
    if fin != 0 {
        stream.fin_end_seq = payload_end.wrapping_add(1);
        stream.flags |= Stream::FIN_SEEN;
    }
    if is_new && is_released(socket) {
        stream.flags |= Stream::PAYLOAD_AFTER_FIN;
    }
}
