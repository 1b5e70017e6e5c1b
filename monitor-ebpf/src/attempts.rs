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
    endpoint::{EndpointKey, Role},
    losses::Loss,
    socket::Socket,
    tcp::Stream,
};

use crate::{count::bump, endpoint, maps};

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
    socket.exchange.slot = slot;
    socket.stream.flags |= Stream::ATTEMPTED;
}

/// Counts the attempt that never became a SYN.
#[inline(always)]
fn count_failed_attempt(socket: &mut Socket) {
    if !socket.stream.has(Stream::ATTEMPTED) {
        return;
    }
    socket.stream.flags &= !Stream::ATTEMPTED;
    if let Some(counters) = maps::counters(socket.exchange.slot) {
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
        socket.stream.released = 1;
        opened = socket.stream.is_followed();
    }
    if !opened {
        adopted_released(&ctx);
    }
    1
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
        adopted.released_state = sock.state as u8;
    }
}
