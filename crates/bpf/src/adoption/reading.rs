//! What a connection that gets no callbacks carried, from `tcp_info` alone.
//!
//! `bytes_acked` and `bytes_received` count SYN and FIN as well.  What was sent
//! is told from them by the payload that left the socket (`tcpi_bytes_sent` less
//! `tcpi_bytes_retrans`): our FIN is acknowledged where more is acknowledged than
//! was sent, and who opened the connection has its SYN acknowledged.  The peer's
//! FIN is told by the states that were seen, by the state in which the process let
//! go of the socket, and by what is left in its receive queue.
//!
//! Architecture invariant: pure.

use std::collections::HashSet;

use kernel_sample::LiveSocket;
use monitor_common::{adopted::Adopted, ending::Ending, endpoint::Role, tcp::state};

use super::journal::{Entry, StreamCounters};

/// Who opened a connection.  Where nothing is on its way the acknowledged SYN
/// tells; else the ports that the cgroup listens on.
pub(crate) fn role(socket: &LiveSocket, listening: &HashSet<u16>) -> Role {
    let settled = matches!(socket.state, state::ESTABLISHED | state::CLOSE_WAIT);
    let syn = socket.reading.bytes_acked.wrapping_sub(socket.payload_sent);
    match syn {
        _ if socket.state == state::SYN_SENT => Role::Upstream,
        0 if settled && socket.send_queue == 0 => Role::Downstream,
        1 if settled && socket.send_queue == 0 => Role::Upstream,
        _ if listening.contains(&socket.local.port()) => Role::Downstream,
        _ => Role::Upstream,
    }
}

/// What the state in a dump says, as an entry's flags.
pub(crate) fn flags(socket: &LiveSocket) -> u8 {
    match socket.state {
        state::SYN_SENT => 0,
        state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING => {
            Entry::ESTABLISHED | Entry::PEER_FIN
        }
        _ => Entry::ESTABLISHED,
    }
}

/// What a connection carried so far.  The kernel's counts of segments have 32
/// bits; they go on from the counters before.
pub(crate) fn counters(
    socket: &LiveSocket,
    role: Role,
    flags: u8,
    before: &StreamCounters,
) -> StreamCounters {
    let reading = &socket.reading;
    let peer_fin = u64::from(flags & Entry::PEER_FIN != 0);
    let wide = |now: u32, before: u64| {
        // The lower half.
        let ahead = now.wrapping_sub(before as u32);
        // A message may be older than the dump before it.
        let behind = before != 0 && ahead.cast_signed() < 0;
        before + if behind { 0 } else { u64::from(ahead) }
    };
    [
        reading.bytes_received.saturating_sub(peer_fin),
        socket.acknowledged(role),
        wide(reading.segs_in, before[2]),
        wide(reading.segs_out, before[3]),
        wide(reading.total_retrans, before[4]),
    ]
}

/// What a connection had carried at its end.
pub(crate) struct Last {
    pub(crate) counters: StreamCounters,
    pub(crate) unacked: u64,
    pub(crate) flags: u8,
    /// The kernel had erased what the connection carried, as it does where a
    /// process resets one: what it carried since the last dump is not to be had.
    pub(crate) erased: bool,
}

/// Reads the last word on a connection, given the state in which its process let
/// go of it; 0 where that is not known.
pub(crate) fn last(socket: &LiveSocket, role: Role, entry: &Entry, released: u8) -> Last {
    let reading = &socket.reading;
    if reading.segs_in == 0 && entry.last[2] > 0 {
        return Last {
            counters: entry.last,
            unacked: 0,
            flags: 0,
            erased: true,
        };
    }
    let mut flags = 0;
    if reading.bytes_received > 0 || reading.bytes_acked > 0 {
        flags |= Entry::ESTABLISHED;
    }
    if peer_fin(socket, role, entry, released) {
        flags |= Entry::PEER_FIN;
    }
    let sent = socket.acknowledged(role);
    Last {
        counters: counters(socket, role, entry.flags | flags, &entry.last),
        unacked: socket.payload_sent.saturating_sub(sent),
        flags,
        erased: false,
    }
}

/// The reset that a connection's mark tells of.
pub(crate) fn reset(mark: &Adopted) -> Option<Ending> {
    match (mark.reset_received, mark.reset_sent) {
        (0, 0) => None,
        (0, _) => Some(Ending::ResetSent),
        _ => Some(Ending::ResetReceived),
    }
}

/// How a connection ended, given what its mark says of resets and of the state in which
/// its process let go of it.
pub(crate) fn ending(socket: &LiveSocket, role: Role, last: &Last, mark: &Adopted) -> Ending {
    if let Some(reset) = reset(mark) {
        return reset;
    }
    if last.erased {
        return Ending::ResetSent;
    }
    let closed = socket.our_fin_acknowledged(role);
    match mark.released_state {
        state::CLOSE_WAIT | state::LAST_ACK if closed => Ending::FinReceived,
        state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING if closed => {
            Ending::FinSent
        }
        _ => Ending::Other,
    }
}

/// Whether the peer's FIN is among what was received.
///
/// After the process let go of a socket that had no FIN of the peer, nothing but
/// that FIN can come on top of what was read.  A connection that is reset by its
/// peer after both sides had begun to close it may be taken for one that was
/// closed, or the other way round: then the count is one byte off.
fn peer_fin(socket: &LiveSocket, role: Role, entry: &Entry, released: u8) -> bool {
    let ours = socket.our_fin_acknowledged(role);
    entry.has(Entry::PEER_FIN)
        || match released {
            state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING => true,
            state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 => {
                ours && socket.receive_queue == 1
            }
            // It had ended before, or nobody saw it let go.
            _ => ours,
        }
}

#[cfg(test)]
mod tests {
    use monitor_common::tcp::Reading;

    use super::*;

    fn live(state: u8, bytes_acked: u64, bytes_received: u64, payload_sent: u64) -> LiveSocket {
        LiveSocket {
            cookie: 1,
            local: ([127, 0, 0, 1], 80).into(),
            remote: ([127, 0, 0, 1], 40_000).into(),
            state,
            cgroup_id: 1,
            srtt_us: 0,
            last_ack_recv_ms: 0,
            reading: Reading {
                bytes_acked,
                bytes_received,
                segs_in: 3,
                segs_out: 4,
                ..Reading::default()
            },
            payload_sent,
            receive_queue: 0,
            send_queue: 0,
            storage: None,
            client: None,
        }
    }

    #[test]
    fn who_opened_a_connection_is_told_by_its_syn() {
        let none = HashSet::new();
        let listening = HashSet::from([80]);
        let passive = live(state::ESTABLISHED, 100, 0, 100);
        let active = live(state::ESTABLISHED, 101, 0, 100);
        assert_eq!(role(&passive, &none), Role::Downstream);
        assert_eq!(role(&active, &listening), Role::Upstream);
        // With payload on its way only the listener tells.
        let busy = LiveSocket {
            send_queue: 5,
            ..live(state::ESTABLISHED, 95, 0, 100)
        };
        assert_eq!(role(&busy, &listening), Role::Downstream);
        assert_eq!(role(&busy, &none), Role::Upstream);
        let opening = live(state::SYN_SENT, 0, 0, 0);
        assert_eq!(role(&opening, &listening), Role::Upstream);
    }

    #[test]
    fn syn_and_fin_are_no_payload() {
        let entry = Entry::default();
        let of = |socket: &LiveSocket, released| {
            let last = last(socket, Role::Upstream, &entry, released);
            (last.counters[0], last.counters[1], last.unacked)
        };
        // Our SYN and our FIN, and the peer's FIN that was read.
        let closed = live(state::CLOSE, 102, 51, 100);
        assert_eq!(of(&closed, state::CLOSE_WAIT), (50, 100, 0));
        // Our FIN came first, and the peer's was not taken.
        let closed = live(state::CLOSE, 102, 50, 100);
        assert_eq!(of(&closed, state::ESTABLISHED), (50, 100, 0));
        // Our FIN came first, and the peer's was taken but not read.
        let closed = LiveSocket {
            receive_queue: 1,
            ..live(state::CLOSE, 102, 51, 100)
        };
        assert_eq!(of(&closed, state::ESTABLISHED), (50, 100, 0));
        // Reset with payload on its way.
        let reset = live(state::CLOSE, 71, 50, 100);
        assert_eq!(of(&reset, state::ESTABLISHED), (50, 70, 30));
    }

    #[test]
    fn counts_of_32_bits_go_on() {
        let before = [0, 0, u64::from(u32::MAX) - 1, 4, 0];
        let socket = live(state::ESTABLISHED, 0, 0, 0);
        let counters = counters(&socket, Role::Downstream, 0, &before);
        assert_eq!(counters[2..], [u64::from(u32::MAX) + 4, 4, 0]);
        let older = [0, 0, 5, 4, 0];
        let behind = super::counters(&socket, Role::Downstream, 0, &older);
        assert_eq!(behind[2], 5);
    }

    #[test]
    fn what_the_kernel_erased_is_what_was_seen_last() {
        let entry = Entry {
            last: [10, 20, 3, 4, 0],
            ..Entry::default()
        };
        let mut erased = live(state::CLOSE, 0, 0, 0);
        erased.reading = Reading::default();
        let last = last(&erased, Role::Downstream, &entry, state::ESTABLISHED);
        assert!(last.erased && last.counters == entry.last);
    }
}
