//! One live TCP socket, as a dump tells it.
//!
//! The dump takes each socket's `tcp_info` before its storage, so what a callback
//! folds in between makes a remainder too small, never too large.

use std::net::SocketAddr;

use monitor_common::{
    endpoint::Role,
    socket::Socket,
    tcp::{Delta, Reading, Stream, state},
};

/// One live socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSocket {
    /// As `ss -e` has it.
    pub cookie: u64,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// One of [`monitor_common::tcp::state`].
    pub state: u8,
    /// The cgroup that it was made in.
    pub cgroup_id: u64,
    /// `tcpi_rtt`
    pub srtt_us: u32,
    /// `tcpi_last_ack_recv`
    pub last_ack_recv_ms: u32,
    /// The kernel's counters, as far as `tcp_info` has them.
    pub reading: Reading,
    /// Payload that was sent, each byte once.
    pub payload_sent: u64,
    /// Sequence space received and not yet read by the process.
    pub receive_queue: u32,
    /// Sequence space written by the process and not acknowledged.
    pub send_queue: u32,
    /// What the programs keep of it; `None` where they do not follow it.
    pub storage: Option<Socket>,
    /// The client on whose behalf a balancer opened it, where its stream began with a
    /// header of the PROXY protocol.
    pub client: Option<SocketAddr>,
}

impl LiveSocket {
    /// Payload received and acknowledged by the peer: without SYN and FIN, as one
    /// dump alone tells them.
    #[must_use]
    pub fn payload(&self, role: Role) -> (u64, u64) {
        let closing = [state::CLOSE_WAIT, state::LAST_ACK, state::CLOSING];
        let peer_fin = u64::from(closing.contains(&self.state));
        let received = self.reading.bytes_received.saturating_sub(peer_fin);
        (received, self.acknowledged(role))
    }

    /// Payload that was acknowledged: without our SYN, and without our FIN where
    /// there may be one.
    #[must_use]
    pub fn acknowledged(&self, role: Role) -> u64 {
        self.acknowledged_without_syn(role) - u64::from(self.our_fin_acknowledged(role))
    }

    /// Whether our FIN was acknowledged.
    #[must_use]
    pub fn our_fin_acknowledged(&self, role: Role) -> bool {
        let none = [state::ESTABLISHED, state::CLOSE_WAIT, state::SYN_SENT];
        !none.contains(&self.state) && self.acknowledged_without_syn(role) > self.payload_sent
    }

    fn acknowledged_without_syn(&self, role: Role) -> u64 {
        let acked = self.reading.bytes_acked;
        acked - u64::from(role == Role::Upstream && acked > 0)
    }

    /// What came on top of what the callbacks have folded.
    ///
    /// Only in the two states in which the counters hold no FIN that is not told
    /// by the storage; in the others callbacks come anyway.  And only of a connection
    /// that is followed from its beginning: of an older one nothing is folded, and
    /// all that it ever carried would be taken for what came on top.
    #[must_use]
    pub fn remainder(&self) -> Delta {
        let settled = matches!(self.state, state::ESTABLISHED | state::CLOSE_WAIT);
        match self.storage {
            Some(socket) if settled && socket.stream.is_followed() => {
                let mut stream: Stream = socket.stream;
                // Counters of 32 bits may be behind what was folded since.
                let behind = |now: u32, folded: u32| now.wrapping_sub(folded).cast_signed() < 0;
                let mut reading = self.reading;
                if behind(reading.segs_in, stream.folded_segs_in) {
                    reading.segs_in = stream.folded_segs_in;
                }
                if behind(reading.segs_out, stream.folded_segs_out) {
                    reading.segs_out = stream.folded_segs_out;
                }
                if behind(reading.total_retrans, stream.folded_retrans) {
                    reading.total_retrans = stream.folded_retrans;
                }
                stream.fold(&reading)
            }
            _ => Delta::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// We opened a connection, sent 100 bytes and received 50.
    #[test]
    fn a_sockets_payload_holds_neither_syn_nor_fin() {
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let live = |state, bytes_acked, bytes_received| LiveSocket {
            cookie: 1,
            local: address,
            remote: address,
            state,
            cgroup_id: 1,
            srtt_us: 0,
            last_ack_recv_ms: 0,
            reading: Reading {
                bytes_received,
                bytes_acked,
                ..Reading::default()
            },
            payload_sent: 100,
            receive_queue: 0,
            send_queue: 0,
            storage: None,
            client: None,
        };
        for socket in [
            live(state::ESTABLISHED, 101, 50),
            live(state::FIN_WAIT1, 101, 50),
            live(state::FIN_WAIT2, 102, 50),
            live(state::CLOSE_WAIT, 101, 51),
            live(state::LAST_ACK, 101, 51),
            live(state::CLOSING, 101, 51),
        ] {
            assert_eq!(socket.payload(Role::Upstream), (50, 100), "{socket:?}");
        }
        let accepted = live(state::ESTABLISHED, 100, 50);
        assert_eq!(accepted.payload(Role::Downstream), (50, 100));
        let opening = live(state::SYN_SENT, 0, 0);
        assert_eq!(opening.payload(Role::Upstream), (0, 0));
    }

    #[test]
    fn a_remainder_is_what_was_not_folded_and_never_negative() {
        let mut socket = Socket::default();
        socket.stream.flags = Stream::ACTIVE_OPEN | Stream::ESTABLISHED;
        socket.stream.folded_received = 40;
        socket.stream.folded_segs_in = 7;
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let live = LiveSocket {
            cookie: 1,
            local: address,
            remote: address,
            state: state::ESTABLISHED,
            cgroup_id: 1,
            srtt_us: 0,
            last_ack_recv_ms: 0,
            reading: Reading {
                bytes_received: 100,
                bytes_acked: 11,
                segs_in: 5,
                ..Reading::default()
            },
            payload_sent: 10,
            receive_queue: 0,
            send_queue: 0,
            storage: Some(socket),
            client: None,
        };
        let remainder = live.remainder();
        assert_eq!((remainder.bytes_received, remainder.bytes_sent), (60, 10));
        assert_eq!(remainder.packets_received, 0, "folded since the reading");
        let closing = LiveSocket {
            state: state::FIN_WAIT2,
            ..live
        };
        assert_eq!(closing.remainder(), Delta::default());
        socket.stream.flags = 0;
        let older = LiveSocket {
            storage: Some(socket),
            ..live
        };
        assert_eq!(older.remainder(), Delta::default());
        assert_eq!(
            LiveSocket {
                storage: None,
                ..live
            }
            .remainder(),
            Delta::default()
        );
    }
}
