//! TLS handshakes, as far as they can be told without a key.
//!
//! A record's head (RFC 8446, section 5.1) tells its type and its length, and where the
//! next one begins; what a record holds is passed over. That is enough for when a
//! handshake is over, and for alerts:
//!
//! - Up to TLS 1.2 a record of the type handshake behind `ChangeCipherSpec` is Finished, and
//!   the handshake is complete with the second one.
//! - In TLS 1.3 all that follows the server's hello looks like application data. The first
//!   such record of the client is its certificate or its Finished: with it the handshake is
//!   complete. Finished has 45 bytes at the least; a record of [`SEALED_ALERTS`] bytes is an
//!   alert.
//!
//! Each direction walks along its own records. Both read the other's flags, as one tells
//! what the other's records mean.

use core::ptr;

use crate::http::{Exchange, Parts, Payload, START_BYTES, Start, join};

/// What is kept of a socket whose client began a handshake, until it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tls {
    /// When the first byte of the client's hello was seen.
    pub began_ns: u64,
    /// 0 until its end is counted.
    pub ended: u64,
    /// Of the request's direction.
    pub client: Walk,
    /// Of the response's direction.
    pub server: Walk,
}

const _: () = assert!(size_of::<Tls>() == 64);

/// How a handshake ended, an index into
/// [`crate::counters::EndpointCounters::tls_handshakes_ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It is complete.
    Completed = 0,
    /// One side sent an alert.
    Alert = 1,
    /// The connection ended before.
    End = 2,
    /// It cannot be told: records passed unseen.
    Unknown = 3,
}

/// How many there are.
pub const OUTCOMES: usize = 4;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who began the handshake.
    Client,
    /// Who answers.
    Server,
}

/// How far the records of one direction were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Walk {
    /// Where the next record begins, by sequence number.
    pub next_seq: u32,
    /// How many bytes of its head are kept.
    pub kept: u8,
    /// What was seen, of [`flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The bytes that are kept.
    pub head: Start,
}

const _: () = assert!(size_of::<Walk>() == 24);

/// What was seen of a direction.
pub mod flag {
    /// A record of the type handshake.
    pub const HANDSHAKE: u8 = 1;
    /// `ChangeCipherSpec`.
    pub const CIPHER: u8 = 1 << 1;
    /// Finished, up to TLS 1.2.
    pub const FINISHED: u8 = 1 << 2;
    /// Application data of the client, or what looks like it, after the server's hello.
    pub const DATA: u8 = 1 << 3;
    /// An alert that ends the handshake.
    pub const ALERT: u8 = 1 << 4;
    /// Something else than TLS: what follows is no record.
    pub const OTHER: u8 = 1 << 5;
    /// Records passed unseen.
    pub const LOST: u8 = 1 << 6;
    /// Nothing more is read of this direction.
    pub const STOP: u8 = OTHER | LOST;
}

/// How many records are seen within one segment.
pub const RECORDS: u32 = 8;

/// A record's type, version and length.
const HEAD: u32 = 5;

/// What is looked at behind it: a message's type and length, or an alert.
const BODY: u32 = 4;

/// The longest record: 2^14 bytes, and what ciphers add (RFC 5246, section 6.2.3).
const LENGTH_MAX: u32 = (1 << 14) + 2_048;

/// An alert, its type and the tag of the cipher, of 8 or of 16 bytes (RFC 8446,
/// section 5.2).
const SEALED_ALERTS: [u32; 2] = [11, 19];

mod kind {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
    pub(super) const HEARTBEAT: u8 = 24;
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;

/// What the first bytes of a stream say of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// A client's hello begins.
    Yes,
    /// It may.
    Partial,
    No,
}

/// How many bytes tell a client's hello.
const HELLO_BYTES: u32 = 6;

/// Whether the first `len` bytes of a stream begin a client's hello.
#[inline(always)]
pub(crate) fn hello(start: Start, len: u32) -> Hello {
    let [word, _] = start.words();
    // Type, version and the hello's own type; the length between them is looked at apart,
    // as is which minor version it is.
    const MASK: u64 = 0xff00_0000_ffff;
    const WORD: u64 = 0x0100_0000_0316;
    let there = if len < HELLO_BYTES {
        (1 << (8 * len)) - 1
    } else {
        u64::MAX
    };
    if (word ^ WORD) & MASK & there != 0 || start.byte(2) > 4 {
        return Hello::No;
    }
    if len < HELLO_BYTES {
        return Hello::Partial;
    }
    let length = length(start);
    if length == 0 || length > LENGTH_MAX {
        Hello::No
    } else {
        Hello::Yes
    }
}

#[inline(always)]
fn length(head: Start) -> u32 {
    u32::from(head.byte(3)) << 8 | u32::from(head.byte(4))
}

/// What both directions together say; `None` while the handshake is under way.
#[inline(always)]
#[must_use]
pub const fn outcome(client: u8, server: u8) -> Option<Outcome> {
    if (client | server) & flag::ALERT != 0 {
        Some(Outcome::Alert)
    } else if client & flag::DATA != 0 || client & server & flag::FINISHED != 0 {
        Some(Outcome::Completed)
    } else if client & flag::LOST != 0 {
        Some(Outcome::Unknown)
    } else {
        None
    }
}

/// What it was when the connection ended under way.
#[inline(always)]
#[must_use]
pub const fn outcome_at_end(client: u8, server: u8) -> Outcome {
    if (client | server) & flag::LOST != 0 {
        Outcome::Unknown
    } else {
        Outcome::End
    }
}

impl Tls {
    /// Begins with the client's hello, found in a segment at `seq`.
    #[inline(always)]
    pub fn begin(&mut self, exchange: &Exchange, seq: u32) {
        let words = ptr::from_mut(self).cast::<u64>();
        let mut i = 0;
        while i < size_of::<Self>() / size_of::<u64>() {
            // SAFETY: within the struct, which is made of whole aligned words.
            let word = unsafe { words.add(i) };
            // SAFETY: as above; zero is a value of every field.  Volatile, or on the
            // kernel's target it would be a call that goes byte by byte.
            unsafe { word.write_volatile(0) };
            i += 1;
        }
        self.began_ns = exchange.request_started_ns;
        let (hello, seq) = (exchange.request_start, exchange.hello_seq(seq));
        self.client.next_seq = seq.wrapping_add(HEAD).wrapping_add(length(hello));
        self.server.next_seq = exchange.response_next_seq;
    }

    /// Sees the records that begin in a segment, `len` bytes from `seq` on, and tells the
    /// outcome where these do.
    #[inline(always)]
    pub fn read(
        &mut self,
        side: Side,
        payload: &impl Payload,
        seq: u32,
        len: u32,
    ) -> Option<Outcome> {
        match side {
            Side::Client => {
                self.client.read(side, payload, seq, len, &self.server);
            }
            Side::Server => {
                self.server.read(side, payload, seq, len, &self.client);
            }
        }
        let [client, server] = self.flags();
        outcome(client, server)
    }

    /// What was seen of the client, and of the server.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> [u8; 2] {
        [self.client.flags(), self.server.flags()]
    }
}

impl Walk {
    /// From a place in the stream on.
    #[inline(always)]
    #[must_use]
    pub fn at(next_seq: u32) -> Self {
        Self {
            next_seq,
            ..Self::default()
        }
    }

    /// What was seen. Read from memory each time, as the other direction writes it.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> u8 {
        let flags = &raw const self.flags;
        // SAFETY: a reference is valid and aligned.
        unsafe { flags.read_volatile() }
    }

    /// Keeps the bytes of a head, and gives them back. Of what comes from memory the kernel's
    /// verifier knows the same on each way to here, and follows one of them only.
    #[inline(always)]
    fn keep(&mut self, head: Start, bytes: u32) -> (Start, u32) {
        let (to, kept) = (&raw mut self.head, &raw mut self.kept);
        // SAFETY: a reference is valid and aligned.
        unsafe { to.write_volatile(head) };
        // SAFETY: as above.
        unsafe { kept.write_volatile(bytes as u8) };
        // SAFETY: as above.
        let head = unsafe { to.read_volatile() };
        // SAFETY: as above.
        (head, u32::from(unsafe { kept.read_volatile() }))
    }

    #[inline(always)]
    fn see(&mut self, flags: u8) {
        let seen = self.flags() | flags;
        let flags = &raw mut self.flags;
        // SAFETY: a reference is valid and aligned.
        unsafe { flags.write_volatile(seen) };
    }

    /// Sees the records that begin in a segment, `len` bytes from `seq` on; `other` is what
    /// was seen of the other direction. Stops where both together tell the outcome.
    #[inline(always)]
    pub fn read(&mut self, side: Side, payload: &impl Payload, seq: u32, len: u32, other: &Self) {
        let mut records = Parts::new();
        while records.next(payload.records()) {
            if !self.step(side, payload, seq, len, other) {
                return;
            }
        }
        // More of them than anybody sends at once.
        if self.next_seq.wrapping_sub(seq) < len {
            self.see(flag::LOST);
        }
    }

    /// Sees one record's head; says whether there may be another one.
    #[inline(always)]
    fn step(
        &mut self,
        side: Side,
        payload: &impl Payload,
        seq: u32,
        len: u32,
        other: &Self,
    ) -> bool {
        if self.flags() & flag::STOP != 0 {
            return false;
        }
        let kept = u32::from(self.kept & 15);
        // SAFETY: a reference is valid and aligned.
        let next_seq = unsafe { (&raw const self.next_seq).read_volatile() };
        let at = next_seq.wrapping_add(kept).wrapping_sub(seq);
        if at.cast_signed() < 0 {
            self.see(flag::LOST);
            return false;
        }
        if at >= len {
            return false;
        }
        let left = len - at;
        let Some(start) = payload.start(at, left) else {
            self.see(flag::LOST);
            return false;
        };
        let left = if left < START_BYTES as u32 {
            left
        } else {
            START_BYTES as u32
        };
        let (head, all) = join(kept, &self.head, start, left);
        let (head, all) = self.keep(head, all);
        let length = length(head);
        let body = if length < BODY { length } else { BODY };
        if all < HEAD || all < HEAD + body {
            return false;
        }
        self.kept = 0;
        self.next_seq = next_seq.wrapping_add(HEAD).wrapping_add(length);
        self.see(seen(side, head, length, self.flags(), other.flags()));
        let (flags, other) = (self.flags(), other.flags());
        match side {
            Side::Client => outcome(flags, other),
            Side::Server => outcome(other, flags),
        }
        .is_none()
    }
}

/// What a record says, given what was seen before of its direction and of the other one.
#[inline(always)]
fn seen(side: Side, head: Start, length: u32, own: u8, other: u8) -> u8 {
    let is_record = head.byte(1) == 3 && length <= LENGTH_MAX;
    match head.byte(0) {
        kind::HANDSHAKE if is_record => {
            if own & flag::CIPHER != 0 && !is_hello(head, length) {
                flag::HANDSHAKE | flag::FINISHED
            } else {
                flag::HANDSHAKE
            }
        }
        kind::CHANGE_CIPHER_SPEC if is_record => flag::CIPHER,
        kind::APPLICATION_DATA if is_record => {
            let server = match side {
                Side::Client => other,
                Side::Server => own,
            };
            if server & (flag::HANDSHAKE | flag::LOST) == 0 {
                // What TLS 1.3 lets a client send before it was answered.
                0
            } else if length == SEALED_ALERTS[0] || length == SEALED_ALERTS[1] {
                flag::ALERT
            } else if matches!(side, Side::Client) {
                flag::DATA
            } else {
                0
            }
        }
        kind::ALERT if is_record => {
            let is_warning = length == 2 && head.byte(5) == WARNING;
            if is_warning && head.byte(6) != CLOSE_NOTIFY {
                0
            } else {
                flag::ALERT
            }
        }
        kind::HEARTBEAT if is_record => 0,
        _ => flag::OTHER,
    }
}

/// Whether a record holds a hello in the clear, as behind the `ChangeCipherSpec` that follows
/// a `HelloRetryRequest` (RFC 8446, appendix D.4).
#[inline(always)]
fn is_hello(head: Start, length: u32) -> bool {
    let message = head.byte(5);
    let of = u32::from(head.byte(6)) << 16 | u32::from(head.byte(7)) << 8 | u32::from(head.byte(8));
    (message == CLIENT_HELLO || message == SERVER_HELLO) && of + BODY == length
}

/// The first bytes of a segment of which the others are gone.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// These bytes.
    pub start: Start,
    /// How long the segment was.
    pub len: u32,
}

impl Payload for Beginning {
    #[inline(always)]
    fn parts(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn records(&self) -> u32 {
        // Two heads.
        2
    }

    #[inline(always)]
    fn start(&self, at: u32, _len: u32) -> Option<Start> {
        let is_whole = self.len <= START_BYTES as u32;
        if !is_whole && at > START_BYTES as u32 - (HEAD + BODY) {
            return None;
        }
        Some(self.start.behind(at))
    }

    #[inline(always)]
    fn words(&self, _at: u32, _len: u32) -> Option<[u64; 8]> {
        None
    }
}

#[cfg(test)]
mod tests;
