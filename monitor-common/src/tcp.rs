//! From the kernel's sequence-space counters to payload.
//!
//! `bytes_acked` counts our SYN where we opened the connection, and our FIN
//! once it was acknowledged; `bytes_received` counts the peer's FIN once it was
//! taken in order.  RFC 9293, section 3.4: SYN and FIN occupy one sequence
//! number each.

/// The states of `tcp_states.h` that matter here.
pub mod state {
    /// Open in both directions.
    pub const ESTABLISHED: u8 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u8 = 2;
    /// A SYN was received.
    pub const SYN_RECV: u8 = 3;
    /// Our FIN is queued or sent.
    pub const FIN_WAIT1: u8 = 4;
    /// Our FIN was acknowledged.
    pub const FIN_WAIT2: u8 = 5;
    /// Both FINs were acknowledged.
    pub const TIME_WAIT: u8 = 6;
    /// The end.
    pub const CLOSE: u8 = 7;
    /// The peer's FIN came first.
    pub const CLOSE_WAIT: u8 = 8;
    /// The peer's FIN came first, and ours is queued or sent.
    pub const LAST_ACK: u8 = 9;
    /// Both sides sent a FIN, ours is not acknowledged yet.
    pub const CLOSING: u8 = 11;
}

/// What the kernel says of a socket at a callback: the fields of
/// `struct bpf_sock_ops` by their own names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Sequence space received in order.
    pub bytes_received: u64,
    /// Sequence space acknowledged by the peer.
    pub bytes_acked: u64,
    /// The next sequence number expected.
    pub rcv_nxt: u32,
    /// The next sequence number to be sent.
    pub snd_nxt: u32,
    /// The oldest sequence number not acknowledged.
    pub snd_una: u32,
    /// Segments received.
    pub segs_in: u32,
    /// Segments sent.
    pub segs_out: u32,
    /// Segments sent again.
    pub total_retrans: u32,
}

/// What came on top since the last fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Payload received in order.
    pub bytes_received: u64,
    /// Payload acknowledged by the peer.
    pub bytes_sent: u64,
    /// Segments received.
    pub packets_received: u64,
    /// Segments sent.
    pub packets_sent: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// A socket's stream: what was folded into its endpoint already, and what must
/// be known to tell payload from SYN and FIN.  In the socket's storage it lies in one
/// cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stream {
    /// Payload received, as folded.
    pub folded_received: u64,
    /// Payload acknowledged, as folded.
    pub folded_sent: u64,
    /// Segments received, as folded.
    pub folded_segs_in: u32,
    /// Segments sent, as folded.
    pub folded_segs_out: u32,
    /// Segments sent again, as folded.
    pub folded_retrans: u32,
    /// When a callback folded last, in ticks of the kernel (`jiffies`).
    pub folded_at: u32,
    /// The sequence number after the peer's FIN, where one was seen.
    pub fin_end_seq: u32,
    /// The flags below.
    pub flags: u16,
    /// Zero.
    pub reserved: [u8; 2],
    /// When the connection was begun, by the monotonic clock.
    pub opened_at_ns: u64,
}

const _: () = assert!(size_of::<Stream>() == 48);

impl Stream {
    /// We opened the connection: our SYN is among the acknowledged bytes.
    pub const ACTIVE_OPEN: u16 = 1;
    /// The handshake was completed.
    pub const ESTABLISHED: u16 = 1 << 1;
    /// The peer's FIN is among the received bytes for sure.
    pub const PEER_FIN: u16 = 1 << 2;
    /// A FIN of the peer was seen; it counts once `fin_end_seq` is reached.
    pub const FIN_SEEN: u16 = 1 << 3;
    /// Our FIN is queued, sent or acknowledged.
    pub const OUR_FIN: u16 = 1 << 4;
    /// Our FIN is among the acknowledged bytes for sure.
    pub const FIN_ACKED: u16 = 1 << 5;
    /// The retransmission timer gave the connection up.
    pub const TIMED_OUT: u16 = 1 << 6;
    /// The end was counted.
    pub const ENDED: u16 = 1 << 7;
    /// The peer sent payload after the process had let go of the socket.
    pub const PAYLOAD_AFTER_FIN: u16 = 1 << 8;

    /// The flags of which one is set where a connection is followed from its
    /// beginning: not of one that was adopted, nor of an attempt without a SYN.
    const FOLLOWED: u16 = Self::ACTIVE_OPEN | Self::ESTABLISHED;

    /// How often a callback folds at most, in ticks: ten times a second at 250 Hz.
    const FOLD_TICKS: u32 = 25;

    /// Whether a callback at so many received segments is worth a look at the
    /// storage: one in four is, scattered so that no rhythm of the segments passes all
    /// of them over.
    #[inline(always)]
    #[must_use]
    pub const fn is_looked_at(segs_in: u32) -> bool {
        let mixed = segs_in.wrapping_mul(0x9e37_79b1);
        (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> 30 == 0
    }

    /// Whether the connection is followed from its beginning.
    #[inline(always)]
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        Self::follows(self.flags)
    }

    /// The same by the flags alone.
    #[inline(always)]
    #[must_use]
    pub const fn follows(flags: u16) -> bool {
        flags & Self::FOLLOWED != 0
    }

    /// Whether it is time to fold again, and notes that it is done.
    #[inline(always)]
    pub const fn is_due(&mut self, ticks: u32) -> bool {
        let due = ticks.wrapping_sub(self.folded_at) >= Self::FOLD_TICKS;
        if due {
            self.folded_at = ticks;
        }
        due
    }

    /// Whether a flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Notes what a state that is being entered says of the FINs.
    #[inline(always)]
    pub fn enter(&mut self, new_state: u8) {
        self.flags |= match new_state {
            state::ESTABLISHED => Self::ESTABLISHED,
            state::FIN_WAIT1 => Self::OUR_FIN,
            state::FIN_WAIT2 | state::TIME_WAIT => Self::OUR_FIN | Self::FIN_ACKED,
            state::CLOSE_WAIT => Self::PEER_FIN,
            state::LAST_ACK | state::CLOSING => Self::PEER_FIN | Self::OUR_FIN,
            _ => 0,
        };
    }

    /// Whether our FIN is among the acknowledged bytes.  Where all that was sent
    /// is acknowledged, the FIN is too.  (A FIN that waits behind a closed
    /// window is not sent; a reset then leaves the count one byte short.)
    #[inline(always)]
    fn fin_acked(&self, now: &Reading) -> bool {
        self.has(Self::FIN_ACKED) || (self.has(Self::OUR_FIN) && now.snd_una == now.snd_nxt)
    }

    /// Whether the peer's FIN was taken.
    #[inline(always)]
    #[must_use]
    pub fn peer_fin(&self, now: &Reading) -> bool {
        self.has(Self::PEER_FIN)
            || (self.has(Self::FIN_SEEN)
                && now.rcv_nxt.wrapping_sub(self.fin_end_seq).cast_signed() >= 0)
    }

    /// Payload received in order and payload acknowledged, since the beginning.
    #[inline(always)]
    #[must_use]
    pub fn payload(&self, now: &Reading) -> (u64, u64) {
        let syn = self.has(Self::ACTIVE_OPEN) && now.bytes_acked > 0;
        let received = now
            .bytes_received
            .saturating_sub(u64::from(self.peer_fin(now)));
        let sent = now
            .bytes_acked
            .saturating_sub(u64::from(syn))
            .saturating_sub(u64::from(self.fin_acked(now)));
        (received, sent)
    }

    /// Payload sent and not acknowledged.
    #[inline(always)]
    #[must_use]
    pub fn unacked(&self, now: &Reading) -> u64 {
        let outstanding = u64::from(now.snd_nxt.wrapping_sub(now.snd_una));
        let fin = self.has(Self::OUR_FIN) && !self.fin_acked(now);
        outstanding.saturating_sub(u64::from(fin))
    }

    /// What came on top since the last fold, noted as folded.  Never negative:
    /// where a figure is smaller than before, nothing is folded.
    #[inline(always)]
    pub fn fold(&mut self, now: &Reading) -> Delta {
        let (received, sent) = self.payload(now);
        let delta = Delta {
            bytes_received: received.saturating_sub(self.folded_received),
            bytes_sent: sent.saturating_sub(self.folded_sent),
            packets_received: u64::from(now.segs_in.wrapping_sub(self.folded_segs_in)),
            packets_sent: u64::from(now.segs_out.wrapping_sub(self.folded_segs_out)),
            retransmits: u64::from(now.total_retrans.wrapping_sub(self.folded_retrans)),
        };
        self.folded_received += delta.bytes_received;
        self.folded_sent += delta.bytes_sent;
        self.folded_segs_in = now.segs_in;
        self.folded_segs_out = now.segs_out;
        self.folded_retrans = now.total_retrans;
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that we opened: sent 100 bytes, received 50, seen from here.
    fn active() -> (Stream, Reading) {
        let mut stream = Stream {
            flags: Stream::ACTIVE_OPEN,
            ..Stream::default()
        };
        stream.enter(state::ESTABLISHED);
        let now = Reading {
            bytes_received: 50,
            bytes_acked: 101,
            rcv_nxt: 1050,
            snd_nxt: 5101,
            snd_una: 5101,
            ..Reading::default()
        };
        (stream, now)
    }

    #[test]
    fn no_rhythm_of_segments_goes_unlooked_at() {
        for (first, step) in (0..100).flat_map(|first| (1..100).map(move |step| (first, step))) {
            let callbacks = (0..1000).map(|n| first + n * step);
            let passed_over = callbacks.map(|segs_in| !Stream::is_looked_at(segs_in));
            let mut longest = 0;
            let mut length = 0;
            for passed_over in passed_over {
                length = if passed_over { length + 1 } else { 0 };
                longest = longest.max(length);
            }
            assert!(longest < 60, "{longest}, every {step} from {first}");
        }
    }

    #[test]
    fn a_callback_folds_again_after_some_ticks_where_they_wrap_too() {
        let mut stream = Stream::default();
        assert!(stream.is_due(u32::MAX - 9));
        assert!(!stream.is_due(14));
        assert!(stream.is_due(15));
        assert_eq!(stream.folded_at, 15);
    }

    #[test]
    fn our_syn_is_no_payload() {
        let (mut stream, now) = active();
        let delta = stream.fold(&now);
        assert_eq!((delta.bytes_received, delta.bytes_sent), (50, 100));
        assert_eq!(stream.fold(&now), Delta::default(), "folded once");
    }

    #[test]
    fn a_passive_close_counts_neither_fin() {
        let (mut stream, mut now) = active();
        now.bytes_received += 1;
        now.rcv_nxt += 1;
        stream.enter(state::CLOSE_WAIT);
        stream.enter(state::LAST_ACK);
        now.snd_nxt += 1;
        assert_eq!(stream.payload(&now), (50, 100), "our FIN is on its way");
        assert_eq!(stream.unacked(&now), 0);
        now.snd_una += 1;
        now.bytes_acked += 1;
        assert_eq!(stream.payload(&now), (50, 100), "our FIN was acknowledged");
    }

    #[test]
    fn an_active_close_counts_the_peers_fin_only_where_it_was_taken() {
        let (mut stream, mut now) = active();
        stream.enter(state::FIN_WAIT1);
        now.snd_nxt += 1;
        now.snd_una += 1;
        now.bytes_acked += 1;
        stream.enter(state::FIN_WAIT2);
        assert_eq!(stream.payload(&now), (50, 100), "no FIN of the peer came");
        stream.flags |= Stream::FIN_SEEN;
        stream.fin_end_seq = 1061;
        now.rcv_nxt = 1060;
        now.bytes_received = 60;
        assert_eq!(
            stream.payload(&now),
            (60, 100),
            "the FIN waits behind a hole"
        );
        now.rcv_nxt = 1061;
        now.bytes_received = 61;
        assert_eq!(stream.payload(&now), (60, 100), "the FIN was taken");
    }

    #[test]
    fn a_reset_leaves_unacknowledged_payload() {
        let (stream, mut now) = active();
        now.snd_nxt += 30;
        assert_eq!(stream.unacked(&now), 30);
        assert_eq!(stream.payload(&now), (50, 100));
    }

    #[test]
    fn folding_never_goes_back() {
        let (mut stream, now) = active();
        stream.fold(&now);
        let less = Reading {
            bytes_received: 40,
            bytes_acked: 90,
            ..now
        };
        let delta = stream.fold(&less);
        assert_eq!((delta.bytes_received, delta.bytes_sent), (0, 0));
    }
}
