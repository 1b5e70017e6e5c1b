//! TLS handshakes, from the client's hello to their end.
//!
//! What is kept of one is in a storage of its own, made at the hello, so that other
//! sockets have none.  Once the handshake is over the stream is like any that is not
//! HTTP/1, and the storage is not looked at again.

use aya_ebpf::bindings::bpf_sock;
use monitor_common::{
    counters::EndpointCounters,
    http::{Exchange, Payload, expects},
    losses::Loss,
    tls::{Beginning, Outcome, Side, Tls, outcome_at_end},
};

use crate::{
    count::{bump, bump_at, count_duration, fetch_or},
    maps,
};

/// Begins a handshake where the first bytes of a stream, in a segment at `seq`, were a
/// client's hello.
#[inline(always)]
pub(crate) fn begin(sk: *mut bpf_sock, exchange: &mut Exchange, seq: u32) {
    exchange.request_expects = expects::LOST;
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    let Some(tls) = maps::tls_or_new(sk) else {
        exchange.protocol = Exchange::NOT_HTTP1;
        maps::lose(Loss::TlsStorage);
        return;
    };
    // SAFETY: the storage is the socket's for the run of the program, and nobody else
    // looks at it before the hello has passed.
    unsafe { (*tls).begin(exchange, seq) };
    bump!(counters, tls_handshakes);
}

/// Counts a handshake whose records are not seen: nobody knows how it ends.
#[inline(always)]
pub(crate) fn give_up(sk: *mut bpf_sock, exchange: &mut Exchange) {
    exchange.protocol = Exchange::NOT_HTTP1;
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    if exchange.request_expects == expects::HELLO {
        exchange.request_expects = expects::LOST;
        bump!(counters, tls_handshakes);
        bump!(counters, tls_handshakes_ended[Outcome::Unknown as usize]);
    } else if let Some(tls) = maps::tls(sk) {
        count(tls, counters, Outcome::Unknown);
    }
}

/// Sees the records that begin in a segment.
#[inline(always)]
pub(crate) fn read(
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    side: Side,
    payload: &impl Payload,
    seq: u32,
    len: u32,
    now_ns: impl FnOnce() -> u64,
) {
    let Some(tls) = maps::tls(sk) else { return };
    // SAFETY: as above.  The other direction may hold it at the same time: each writes
    // fields of its own, as `monitor_common::tls` has it.
    let read = unsafe { (*tls).read(side, payload, seq, len) };
    let Some(outcome) = read else { return };
    exchange.protocol = Exchange::NOT_HTTP1;
    let Some(counters) = maps::counters(exchange.slot) else {
        return;
    };
    if !count(tls, counters, outcome) || !matches!(outcome, Outcome::Completed) {
        return;
    }
    // SAFETY: written before the handshake was begun.
    let took_ns = now_ns().saturating_sub(unsafe { (*tls).began_ns });
    // SAFETY: only the address of the field is taken.
    count_duration(unsafe { &raw mut (*counters).tls_handshake }, took_ns);
}

/// The segment that waited for the one before it.
#[inline(always)]
pub(crate) fn read_held(
    sk: *mut bpf_sock,
    exchange: &mut Exchange,
    side: Side,
    held: Beginning,
    now_ns: impl FnOnce() -> u64,
) {
    read(
        sk,
        exchange,
        side,
        &held,
        exchange.held_seq,
        held.len,
        now_ns,
    );
}

/// At the end of a connection: a handshake that is under way.  A function of its own, as
/// what clients' connections add up to is.
#[inline(never)]
pub(crate) fn end(sk: *mut bpf_sock, exchange: &Exchange, counters: *mut EndpointCounters) {
    if exchange.protocol != Exchange::TLS || sk.is_null() {
        return;
    }
    let Some(tls) = maps::tls(sk) else { return };
    let outcome = if !maps::sees_packets() || exchange.generation != maps::generation() {
        Outcome::Unknown
    } else {
        // SAFETY: as above.
        let [client, server] = unsafe { (*tls).flags() };
        outcome_at_end(client, server)
    };
    count(tls, counters, outcome);
}

/// Counts how a handshake ended, once, whoever sees it first.
#[inline(always)]
fn count(tls: *mut Tls, counters: *mut EndpointCounters, outcome: Outcome) -> bool {
    // SAFETY: only the address of the field is taken.
    let is_first = fetch_or(unsafe { &raw mut (*tls).ended }, 1) == 0;
    if is_first {
        bump_at!(counters, tls_handshakes_ended, outcome as usize);
    }
    is_first
}
