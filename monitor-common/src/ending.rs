//! How an established connection ended.
//!
//! The kernel tells a callback the state that is left for CLOSE, and no reason.  It is
//! told from what came before: the FINs, the retransmission timer, whether the process
//! had let go of the socket, and the resets among the packets where these are looked
//! at (level http).  Where they are not, what the kernel does to its own counts before
//! it enters the state tells most of it, and the rest is [`Ending::Other`].

use crate::tcp::{Reading, Stream, state};

/// Why an established connection ended, an index into
/// [`crate::counters::EndpointCounters::connections_closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// Both sides closed, this host first.
    FinSent = 0,
    /// Both sides closed, the peer first.
    FinReceived = 1,
    /// This host sent a reset.
    ResetSent = 2,
    /// The peer sent a reset.
    ResetReceived = 3,
    /// The peer did not answer any more.
    Timeout = 4,
    /// It cannot be told.
    Other = 5,
}

/// How many there are.
pub const ENDINGS: usize = 6;

impl Ending {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; ENDINGS] = [
        Self::FinSent,
        Self::FinReceived,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Timeout,
        Self::Other,
    ];
}

/// The resets among the packets of one socket.  Each field is written by the program
/// of its direction alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Resets {
    /// The sequence number of the newest one that was received.
    pub received_seq: u32,
    /// 1 once one was received.
    pub received: u8,
    /// 1 once one was sent.
    pub sent: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Resets>() == 8);

impl Resets {
    /// Whether TCP took the reset that came, given what it expected next (RFC 5961,
    /// section 3.2): of one before that, it did not.  A closed stream's expected
    /// number is behind the FIN, and the peer's reset may be before it.
    #[inline(always)]
    const fn is_taken(self, rcv_nxt: u32) -> bool {
        let ahead = self.received_seq.wrapping_sub(rcv_nxt).cast_signed();
        self.received != 0 && ahead >= -1
    }
}

/// What is known of a connection when its socket enters CLOSE.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    /// The state before.
    pub from: u8,
    /// The process had let go of the socket.
    pub released: bool,
    /// Segments that were sent and not acknowledged, as the kernel counts them: none
    /// once it threw them away, which it does before a reset of the peer or a timeout
    /// ends the connection, and after its own reset.
    pub packets_out: u32,
    /// Segments with payload that were sent.
    pub data_segs_out: u32,
    /// Whether packets are looked at.  An `Option` would leave its value to chance where
    /// there is none, which verifiers take for a read of what was not written.
    pub sees_packets: bool,
    /// Those among the packets, where these are looked at.
    pub resets: Resets,
}

/// How the connection ended whose socket enters CLOSE now.  `keepalive` says whether
/// the kernel probes it while it is idle; `None` where it cannot be asked.
#[inline(always)]
#[must_use]
pub fn ending(
    stream: &Stream,
    now: &Reading,
    close: &Close,
    keepalive: impl FnOnce() -> Option<bool>,
) -> Ending {
    if stream.has(Stream::TIMED_OUT) {
        return Ending::Timeout;
    }
    if close.sees_packets && close.resets.is_taken(now.rcv_nxt) {
        return Ending::ResetReceived;
    }
    let outstanding = now.snd_nxt != now.snd_una;
    match close.from {
        state::LAST_ACK if !outstanding => Ending::FinReceived,
        state::CLOSING if !outstanding => Ending::FinSent,
        state::FIN_WAIT2 if stream.peer_fin(now) => Ending::FinSent,
        // RFC 1122, section 4.2.2.13: who has let go of it does not want the rest.
        state::FIN_WAIT1 | state::FIN_WAIT2
            if close.released && stream.has(Stream::PAYLOAD_AFTER_FIN) =>
        {
            Ending::ResetSent
        }
        // It waits for the peer's FIN without its socket.
        state::FIN_WAIT2 if close.released => Ending::FinSent,
        state::ESTABLISHED | state::CLOSE_WAIT if close.released => Ending::ResetSent,
        // Only its own reset leaves them there.
        _ if outstanding && close.packets_out != 0 => Ending::ResetSent,
        _ => abrupt(stream, now, close, keepalive()),
    }
}

/// An end without a FIN, of which neither side's doing is sure.
#[inline(always)]
fn abrupt(stream: &Stream, now: &Reading, close: &Close, keepalive: Option<bool>) -> Ending {
    let never_used = !stream.has(Stream::ACTIVE_OPEN | Stream::OUR_FIN) && close.data_segs_out == 0;
    match close.sees_packets {
        // Sent before the state changes: the peer has not answered a probe.
        true if close.resets.sent != 0 => match keepalive {
            Some(true) => Ending::Timeout,
            Some(false) => Ending::ResetSent,
            None => Ending::Other,
        },
        // Nobody has accepted it when the listener was closed.
        true if never_used => Ending::ResetSent,
        // Our FIN waited behind a closed window.
        true if close.from == state::FIN_WAIT1 => Ending::Timeout,
        // Thrown away, and not by the timer.
        false if now.snd_nxt != now.snd_una => Ending::ResetReceived,
        // Nor by a probe, of a window that stayed closed to our FIN or of an idle peer.
        false if keepalive == Some(false) && !never_used && close.from != state::FIN_WAIT1 => {
            Ending::ResetReceived
        }
        _ => Ending::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that was accepted, has sent all, and leaves a state for CLOSE.
    struct Case {
        flags: u16,
        now: Reading,
        close: Close,
        keepalive: Option<bool>,
    }

    impl Case {
        fn from(from: u8) -> Self {
            Self {
                flags: Stream::ESTABLISHED,
                now: Reading {
                    snd_nxt: 100,
                    snd_una: 100,
                    rcv_nxt: 500,
                    ..Reading::default()
                },
                close: Close {
                    from,
                    released: false,
                    packets_out: 0,
                    data_segs_out: 1,
                    sees_packets: true,
                    resets: Resets::default(),
                },
                keepalive: Some(false),
            }
        }

        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        /// What is told where packets are looked at, and where they are not.
        fn told(&self) -> (Ending, Ending) {
            let stream = Stream {
                flags: self.flags,
                ..Stream::default()
            };
            let blind = Close {
                sees_packets: false,
                ..self.close
            };
            let told = |close: &Close| ending(&stream, &self.now, close, || self.keepalive);
            (told(&self.close), told(&blind))
        }
    }

    fn received(seq: u32) -> Resets {
        Resets {
            received_seq: seq,
            received: 1,
            ..Resets::default()
        }
    }

    #[test]
    fn what_both_sides_closed_is_told_by_who_was_first() {
        let both = |ending| (ending, ending);
        assert_eq!(
            Case::from(state::LAST_ACK).told(),
            both(Ending::FinReceived)
        );
        assert_eq!(Case::from(state::CLOSING).told(), both(Ending::FinSent));
        let waits = Case::from(state::FIN_WAIT2).with(|c| c.close.released = true);
        assert_eq!(waits.told(), both(Ending::FinSent));
        let closed = Case::from(state::FIN_WAIT2).with(|c| c.flags |= Stream::PEER_FIN);
        assert_eq!(closed.told(), both(Ending::FinSent));
        let late = waits.with(|c| c.flags |= Stream::PAYLOAD_AFTER_FIN);
        assert_eq!(late.told(), both(Ending::ResetSent));
    }

    #[test]
    fn a_reset_counts_where_tcp_took_it() {
        for (seq, ending) in [
            (500, Ending::ResetReceived),
            (499, Ending::ResetReceived),
            (400, Ending::ResetSent),
        ] {
            let case = Case::from(state::ESTABLISHED).with(|c| {
                c.close.released = true;
                c.close.resets = received(seq);
            });
            assert_eq!(case.told().0, ending, "{seq}");
        }
    }

    #[test]
    fn without_packets_what_the_kernel_threw_away_tells() {
        let thrown_away = Case::from(state::CLOSE_WAIT).with(|c| c.now.snd_nxt += 9);
        assert_eq!(thrown_away.told(), (Ending::Other, Ending::ResetReceived));
        let kept = thrown_away.with(|c| c.close.packets_out = 1);
        assert_eq!(kept.told(), (Ending::ResetSent, Ending::ResetSent));
        let idle = Case::from(state::ESTABLISHED);
        assert_eq!(idle.told().1, Ending::ResetReceived);
        let probed = idle.with(|c| c.keepalive = Some(true));
        assert_eq!(probed.told().1, Ending::Other);
        let old_kernel = probed.with(|c| c.keepalive = None);
        assert_eq!(old_kernel.told().1, Ending::Other);
        let unused = Case::from(state::ESTABLISHED).with(|c| c.close.data_segs_out = 0);
        assert_eq!(unused.told(), (Ending::ResetSent, Ending::Other));
    }

    #[test]
    fn who_does_not_answer_has_timed_out() {
        let timer = Case::from(state::LAST_ACK).with(|c| c.flags |= Stream::TIMED_OUT);
        assert_eq!(timer.told(), (Ending::Timeout, Ending::Timeout));
        let probed = |keepalive| {
            let sent = Resets {
                sent: 1,
                ..Resets::default()
            };
            let case = Case::from(state::ESTABLISHED).with(|c| {
                c.close.resets = sent;
                c.keepalive = keepalive;
            });
            case.told().0
        };
        let told = [Some(true), Some(false), None].map(probed);
        assert_eq!(told, [Ending::Timeout, Ending::ResetSent, Ending::Other]);
    }
}
