//! What `cargo xtask bench programs` needs: a program that does nothing, and
//! sockets as a packet would find them.
//!
//! The kernel's test run gives a packet a socket of its own, without storage.
//! Where the constant `BENCH` asks for it, a packet program makes the storage
//! and sets its state, and goes on as ever.  The constant is read-only and zero
//! but in the bench, so the verifier leaves all of this out: what is measured
//! is what runs, and five stores.

use aya_ebpf::{Global, bindings::bpf_sock, macros::cgroup_skb, programs::SkBuffContext};
use monitor_common::{
    http::{Exchange, expects},
    socket::Socket,
    tls::Walk,
};

use crate::maps;

/// Four bytes, the lowest first: which state, the role, how many requests are open, and
/// the method of the newest.  The state is 1 for HTTP/1, 2 for a stream that begins, and
/// from 3 on what the server of a TLS handshake has sent, and 3.
#[unsafe(no_mangle)]
static BENCH: Global<u32> = Global::new(0);

/// What the others are compared with.
#[cgroup_skb]
pub fn empty(_ctx: SkBuffContext) -> i32 {
    1
}

/// A socket's storage, if it is followed; in the bench, one in the state that is
/// asked for, of which the segment is the next.
#[inline(always)]
pub(crate) fn socket(sk: *mut bpf_sock, seq: u32) -> Option<*mut Socket> {
    let bench = BENCH.load();
    if bench == 0 {
        return maps::socket(sk);
    }
    let socket = maps::socket_or_new(sk)?;
    let [state, role, open, method] = bench.to_le_bytes();
    // SAFETY: the storage of a socket that no other program sees.
    let exchange = unsafe { &mut (*socket).exchange };
    exchange.role = role;
    exchange.method = method;
    exchange.request_expects = expects::START;
    if state == 2 {
        exchange.protocol = 0;
        exchange.responses = 0;
    } else if state > 2 {
        exchange.protocol = Exchange::TLS;
        if let Some(tls) = maps::tls_or_new(sk) {
            let mut server = Walk::at(seq);
            server.flags = state - 3;
            // SAFETY: as above.
            unsafe {
                (*tls).ended = 0;
                (*tls).client = Walk::at(seq);
                (*tls).server = server;
            }
        }
    } else {
        exchange.protocol = Exchange::HTTP1;
        // Not the first.
        exchange.responses |= 1 << 31;
    }
    exchange.requests = exchange.responses.wrapping_add(u32::from(open));
    // Amid a body where a request of HTTP/1 is open.
    exchange.request_next_seq = if state == 1 {
        seq.wrapping_add(u32::from(open) << 30)
    } else {
        seq
    };
    exchange.response_next_seq = seq;
    Some(socket)
}
