//! The counters of an endpoint, as they lie in the map.
//!
//! One place per endpoint and CPU.  The programs add to the place of the CPU they
//! run on by atomic additions: a program in process context may be interrupted
//! by one in a soft interrupt on the same CPU, and a plain addition would then
//! lose a count.

use crate::{
    ending::ENDINGS,
    histogram::BUCKETS,
    http,
    protocol::{PROTOCOLS, Protocol},
    tls::{OUTCOMES, Outcome},
};

/// Why an actively opened connection failed, an index into
/// [`EndpointCounters::connections_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// Answered by a reset.
    Refused = 0,
    /// Never answered.
    Timeout = 1,
    /// Reset while the handshake was under way.
    Reset = 2,
    /// Answered by an ICMP error.
    Unreachable = 3,
    /// Closed locally before it was established.
    Aborted = 4,
    /// None of these.
    Other = 5,
}

/// How many failure reasons there are.
pub const FAILURES: usize = 6;

/// How many places a slot has for the programs' additions, one a CPU, where the
/// machine has not fewer CPUs than that: beyond it several CPUs share one, which
/// atomic additions bear. A power of two. Memory follows it: a place has 4,160 bytes.
pub const CPU_PLACES_MAX: u32 = 32;

const _: () = assert!(CPU_PLACES_MAX.is_power_of_two());

/// A histogram of durations; its count is the sum of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Durations {
    /// The sum of the durations.
    pub sum_ns: u64,
    /// Boundaries as [`crate::histogram`] has them.
    pub buckets: [u64; BUCKETS],
}

/// Every counter of an endpoint, by cache lines: what begins and ends with a
/// connection; what it carries and what every exchange adds to, up to the commonest
/// methods; and the rest, the histograms last.  A sample reads the first three lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct EndpointCounters {
    /// Connections begun.
    pub connections_opened: u64,
    /// Established connections that ended, by [`crate::ending::Ending`].
    pub connections_closed: [u64; ENDINGS],
    /// Connections that were open before counting began.
    pub connections_adopted: u64,
    /// Connections that failed, by [`Failure`].
    pub connections_failed: [u64; FAILURES],
    /// Payload that arrived in order.
    pub bytes_received: u64,
    /// Payload that the peer acknowledged.
    pub bytes_sent: u64,
    /// TCP segments received, as `tcp_info`'s `segs_in`.
    pub packets_received: u64,
    /// TCP segments sent, as `tcp_info`'s `segs_out`.
    pub packets_sent: u64,
    /// The sum of the smoothed round-trip times seen at callbacks.
    pub srtt_sum_us: u64,
    /// How many were seen.
    pub srtt_samples: u64,
    /// HTTP/1 requests by [`http::Method`].
    pub requests: [u64; http::METHODS],
    /// Connections whose handshake was completed.
    pub connections_established: u64,
    /// Attempts that died before a SYN; not among the opened ones.
    pub failed_before_syn: u64,
    /// Payload sent and never acknowledged before the end.
    pub bytes_unacked: u64,
    /// Segments sent again, as `tcp_info`'s `total_retrans`.
    pub retransmits: u64,
    /// Requests whose connection ended before a final response.
    pub requests_without_response: u64,
    /// Turns of streams that do not speak HTTP/1.
    pub exchanges: u64,
    /// Start lines that were expected and could not be read.
    pub unparsed: u64,
    /// Sockets on which a request began while another was open.
    pub pipelined: u64,
    /// Turns that may belong to a request that was counted already.
    pub suspected: u64,
    /// HTTP/1 responses by [`http::code_index`].
    pub responses: [u64; http::CODES],
    /// Connections that ended while a request awaited its response, by
    /// [`crate::ending::Ending`].
    pub closed_before_response: [u64; ENDINGS],
    /// Connections that ended within a response, by [`crate::ending::Ending`].
    pub closed_within_response: [u64; ENDINGS],
    /// Connections that ended after a response had begun of which the end could not be
    /// told.
    pub closed_response_unknown: u64,
    /// SYNs and SYN-ACKs sent again until the handshake ended.
    pub syn_retransmits: u64,
    /// TLS handshakes that clients began.
    pub tls_handshakes: u64,
    /// Those that are over, by [`crate::tls::Outcome`].
    pub tls_handshakes_ended: [u64; OUTCOMES],
    /// Connections by [`Protocol`], each once its first bytes tell.
    pub connections_by_protocol: [u64; PROTOCOLS],
    /// First byte of the request to first byte of the final response.
    pub exchange: Durations,
    /// SYN to established.
    pub connect: Durations,
    /// First byte of a TLS client's hello to the end of a handshake that was completed.
    pub tls_handshake: Durations,
}

/// How many counters there are, taken as one array.
pub const WORDS: usize = 20
    + PROTOCOLS
    + FAILURES
    + 3 * ENDINGS
    + OUTCOMES
    + http::METHODS
    + http::CODES
    + 3 * (1 + BUCKETS);

// The counters fill their cache lines exactly: no implicit padding.
const _: () = assert!(size_of::<EndpointCounters>() == 8 * WORDS);

impl EndpointCounters {
    /// All zero.
    pub const ZERO: Self = {
        let durations = Durations {
            sum_ns: 0,
            buckets: [0; BUCKETS],
        };
        Self {
            connections_opened: 0,
            connections_established: 0,
            connections_closed: [0; ENDINGS],
            connections_failed: [0; FAILURES],
            failed_before_syn: 0,
            connections_adopted: 0,
            bytes_received: 0,
            bytes_sent: 0,
            bytes_unacked: 0,
            packets_received: 0,
            packets_sent: 0,
            retransmits: 0,
            srtt_sum_us: 0,
            srtt_samples: 0,
            requests: [0; http::METHODS],
            responses: [0; http::CODES],
            requests_without_response: 0,
            exchanges: 0,
            unparsed: 0,
            pipelined: 0,
            suspected: 0,
            closed_before_response: [0; ENDINGS],
            closed_within_response: [0; ENDINGS],
            closed_response_unknown: 0,
            syn_retransmits: 0,
            tls_handshakes: 0,
            tls_handshakes_ended: [0; OUTCOMES],
            connections_by_protocol: [0; PROTOCOLS],
            exchange: durations,
            connect: durations,
            tls_handshake: durations,
        }
    };

    /// The counters as one array, in the order of their fields.
    #[must_use]
    pub fn words(&self) -> &[u64; WORDS] {
        // SAFETY: the struct is `repr(C)` and holds nothing but WORDS u64
        // (asserted above).
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The counters as one array, in the order of their fields.
    pub fn words_mut(&mut self) -> &mut [u64; WORDS] {
        // SAFETY: as in `words`, and any u64 is valid for every field.
        unsafe { &mut *core::ptr::from_mut(self).cast() }
    }

    /// Adds every counter of another slot.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.words_mut().iter_mut().zip(other.words()) {
            *sum = sum.wrapping_add(*n);
        }
    }

    /// What came on top of an earlier reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = *self;
        for (n, before) in delta.words_mut().iter_mut().zip(earlier.words()) {
            *n = n.saturating_sub(*before);
        }
        delta
    }

    /// Established connections that ended.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.connections_closed.iter().sum()
    }

    /// Connections of this protocol.
    #[must_use]
    pub const fn of_protocol(&self, protocol: Protocol) -> u64 {
        self.connections_by_protocol[protocol as usize]
    }

    /// TLS handshakes that ended so.
    #[must_use]
    pub const fn tls_ended(&self, outcome: Outcome) -> u64 {
        self.tls_handshakes_ended[outcome as usize]
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections_active(&self) -> u64 {
        let ended = self.closed() + self.connections_failed.iter().sum::<u64>();
        (self.connections_adopted + self.connections_opened).saturating_sub(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_cover_every_counter() {
        let mut a = EndpointCounters::ZERO;
        for (n, word) in (1..).zip(a.words_mut()) {
            *word = n;
        }
        let mut twice = a;
        twice.add(&a);
        assert_eq!(twice.since(&a), a);
        assert_eq!(a.tls_handshake.buckets[BUCKETS - 1], WORDS as u64);
    }

    #[test]
    fn active_is_what_was_opened_and_did_not_end() {
        let mut c = EndpointCounters {
            connections_opened: 5,
            ..EndpointCounters::ZERO
        };
        c.connections_closed = [1, 0, 0, 1, 0, 0];
        c.connections_failed[Failure::Timeout as usize] = 1;
        assert_eq!(c.connections_active(), 2);
    }
}
