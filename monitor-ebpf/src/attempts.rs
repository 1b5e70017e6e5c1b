//! Connection attempts that die before a SYN: no free port, no route.
//!
//! The attempt is noted on the socket when `connect` begins, and taken back when
//! the SYN is sent.  Where it is still there when the socket tries again, or is
//! let go of, no SYN was sent.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::bpf_get_socket_cookie,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use monitor_common::{
    counters::Failure,
    ending::Ending,
    endpoint::{EndpointKey, Role, other_slot},
    http::Exchange,
    losses::Loss,
    socket::Socket,
    tcp::{Stream, state},
    tls::Outcome,
};

use crate::{count::bump, endpoint, maps, packets};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the run of the program.
    let addr = unsafe { &*ctx.sock_addr };
    attempt(addr, || EndpointKey::v4_mapped(addr.user_ip4.to_ne_bytes()));
    1
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the run of the program.
    let addr = unsafe { &*ctx.sock_addr };
    attempt(addr, || endpoint::words(&addr.user_ip6));
    1
}

#[inline(always)]
fn attempt(addr: &bpf_sock_addr, address: impl FnOnce() -> [u8; 16]) {
    if addr.type_ != SOCK_STREAM || addr.protocol != IPPROTO_TCP {
        return;
    }
    // SAFETY: the union's only member of pointer size, as the UAPI has it.
    let sk: *mut bpf_sock = unsafe { addr.__bindgen_anon_1.sk };
    if sk.is_null() {
        return;
    }
    let key = EndpointKey {
        address: address(),
        port: u16::from_be(addr.user_port as u16),
        role: Role::Upstream as u8,
        flags: 0,
    };
    let slot = endpoint::slot(&key, Role::Upstream);
    let Some(socket) = maps::socket_or_new(sk) else {
        maps::lose(Loss::SocketStorage);
        return;
    };
    count_failed_attempt(socket);
    let slot_generation = maps::slot_generation(slot);
    // SAFETY: the storage of a socket that this process connects; no packet or
    // callback of it comes before the SYN.
    unsafe {
        (*socket).exchange.slot = slot;
        (*socket).process.slot_generation = slot_generation;
        (*socket).process.attempted = 1;
    }
}

/// Counts the attempt that never became a SYN: under its endpoint, or under `other`
/// where the slot was given away since.
#[inline(always)]
fn count_failed_attempt(socket: *mut Socket) {
    // SAFETY: the fields of the process, which makes one call at a time.
    let process = unsafe { &mut (*socket).process };
    if process.attempted == 0 {
        return;
    }
    process.attempted = 0;
    // SAFETY: written at the attempt, by this process.
    let mut slot = unsafe { (*socket).exchange.slot };
    if maps::slot_generation(slot) != process.slot_generation {
        slot = other_slot(Role::Upstream);
    }
    if let Some(counters) = maps::counters(slot) {
        bump!(counters, failed_before_syn);
    }
}

/// A process lets go of a socket.  Runs before TCP closes it: an attempt that
/// ends now was aborted, not unreachable.
#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    let mut opened = false;
    if let Some(socket) = maps::socket(ctx.sock) {
        count_failed_attempt(socket);
        // SAFETY: a field of the process; callbacks of the socket, which may come at
        // the same time, only read it.
        unsafe { (&raw mut (*socket).process.released).write_volatile(1) };
        opened = is_followed(&ctx, socket);
    }
    if !opened {
        adopted_released(&ctx);
    }
    1
}

/// Whether callbacks are asked for; counts an end that they should have told of.
///
/// The callback runs before the state is entered: a socket that is closed and not
/// ended had none, as another program set flags of its own in the place of ours.
#[inline(always)]
fn is_followed(ctx: &SockContext, socket: *mut Socket) -> bool {
    // SAFETY: the context is valid for the run of the program.
    let state = unsafe { (*ctx.sock).state };
    // SAFETY: written by callbacks, under a lock that is not held here.
    let flags = unsafe { &raw mut (*socket).stream.flags };
    // SAFETY: as above; after the state.
    let now = unsafe { flags.read_volatile() };
    if !Stream::follows(now) || state != u32::from(state::CLOSE) || now & Stream::ENDED != 0 {
        return Stream::follows(now);
    }
    // SAFETY: of a closed socket nothing else is told.
    unsafe { flags.write_volatile(now | Stream::ENDED) };
    maps::lose(Loss::CallbacksTaken);
    let exchange = packets::exchange(socket);
    if let Some(counters) = maps::counters(exchange.slot) {
        if exchange.protocol == Exchange::TLS {
            exchange.protocol = Exchange::NOT_HTTP1;
            bump!(counters, tls_handshakes_ended[Outcome::Unknown as usize]);
        }
        if now & Stream::ESTABLISHED != 0 {
            bump!(counters, connections_closed[Ending::Other as usize]);
        } else {
            bump!(counters, connections_failed[Failure::Other as usize]);
        }
    }
    true
}

/// Notes the state that a connection older than the programs is let go in: it
/// tells whether the peer's FIN came before ours.
#[inline(always)]
fn adopted_released(ctx: &SockContext) {
    // SAFETY: the context is valid for the run of the program.
    let sock = unsafe { &*ctx.sock };
    if sock.protocol != IPPROTO_TCP {
        return;
    }
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if let Some(adopted) = maps::adopted(cookie) {
        // SAFETY: one byte, which only this program writes.
        unsafe { (&raw mut (*adopted).released_state).write_volatile(sock.state as u8) };
    }
}
