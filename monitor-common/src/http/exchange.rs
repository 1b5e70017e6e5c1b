//! The state of a socket's exchanges, and which segments matter to it.

use super::Start;
use crate::protocol::Protocol;

/// Which way a packet goes, seen from the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    Request,
    /// Server to client.
    Response,
}

/// What is to be done with new payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing.
    None,
    /// The stream has turned, and what it carries does not matter.
    Turn,
    /// It is to be read.
    Read,
    /// The stream may have turned, and the heads of TLS records are to be read.
    Records,
}

/// Where a segment lies in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// All of it was seen before.
    Seen,
    /// Behind a hole.
    Behind,
    /// It has new payload behind so many bytes.
    New(u32),
}

/// The exchanges of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exchange {
    /// When the open request began.  Of the request's direction.
    pub request_started_ns: u64,
    /// Where the client's next payload begins that matters: behind the body that is
    /// under way.  Written last, when what comes before was read.  Of the request's
    /// direction.
    pub request_next_seq: u32,
    /// Where the server's next payload begins.  Of the response's direction while a
    /// request is open, set by the request's when one begins.
    pub response_next_seq: u32,
    /// How many requests began.  Of the request's direction.
    pub requests: u32,
    /// How many of them were answered.  Of the response's direction.
    pub responses: u32,
    /// The slot of the endpoint's counters.  Set once.
    pub slot: u32,
    /// A [`crate::endpoint::Role`].  Set once.
    pub role: u8,
    /// 0 while unknown, then [`Self::HTTP1`], [`Self::NOT_HTTP1`] or [`Self::TLS`].  Of the
    /// request's direction; either one goes from TLS to what is not HTTP/1.
    pub protocol: u8,
    /// The newest request's [`super::Method`].  Of the request's direction.
    pub method: u8,
    /// [`Self::PIPELINED`], [`Self::JOINED`], [`Self::PROXIED`], [`Self::TOLD`].  Of the request's
    /// direction.
    pub request_flags: u8,
    /// [`Self::TUNNEL`].  Of the response's direction.
    pub response_flags: u8,
    /// How many bytes of a split request line are kept.  Of the request's
    /// direction.
    pub request_start_len: u8,
    /// How many bytes of a split status line are kept.  Of the response's
    /// direction.
    pub response_start_len: u8,
    /// Which time of looking at packets this belongs to; between two of them payload
    /// passes unseen.  Of the request's direction.
    pub generation: u8,
    /// What the client's next payload is, one of [`expects`].  Of the request's
    /// direction.
    pub request_expects: u8,
    /// What the server's next payload is: [`expects::START`], [`expects::FIELDS`] of an
    /// interim response, or [`expects::LOST`].  Of the response's direction.
    pub response_expects: u8,
    /// 1 once the peer sent a reset.  Of the direction that is received.
    pub reset_received: u8,
    /// 1 once a reset was sent.  Of the direction that is sent.
    pub reset_sent: u8,
    /// How long the open request's body is, or what is left of it.  Of the request's
    /// direction.
    pub body_left: u64,
    /// How far the open request's head was read.  Of the request's direction.
    pub request_progress: u64,
    /// How far an interim response's head was read.  Of the response's direction.
    pub response_progress: u64,
    /// Where the server's stream was when this was joined amid its course, or else when
    /// the first request began.  Of the request's direction.
    pub joined_seq: u32,
    /// Where a segment begins that waits for a hole to be filled.  Of the direction
    /// that is received.
    pub held_seq: u32,
    /// How long it is; 0 where there is none.  Of the direction that is received.
    pub held_len: u32,
    /// What the kernel's verifier is to forget.  Of the request's direction.
    pub request_scratch: u32,
    /// The same of the response's direction.
    pub response_scratch: u32,
    /// The sequence number of the newest reset of the peer.  Of the direction that is
    /// received.
    pub reset_received_seq: u32,
    /// The bytes of a split request line.  Of the request's direction.
    pub request_start: Start,
    /// The bytes of a split status line.  Of the response's direction.
    pub response_start: Start,
    /// The first bytes of the segment that waits.  Of the direction that is received.
    pub held_start: Start,
}

const _: () = assert!(size_of::<Exchange>() == 136);

/// What the next payload of a direction may be.
pub mod expects {
    /// A message's first byte, or what follows the bytes that are kept.
    pub const START: u8 = 0;
    /// The rest of a request line, of which not all was seen: no request counts before
    /// its version.
    pub const REQUEST_LINE: u8 = 1;
    /// The rest of a head.
    pub const FIELDS: u8 = 2;
    /// The value of Content-Length.
    pub const LENGTH: u8 = 3;
    /// A body of known length.
    pub const BODY: u8 = 4;
    /// The size of a chunk.
    pub const CHUNK_SIZE: u8 = 5;
    /// The rest of the line that tells it.
    pub const CHUNK_LINE: u8 = 6;
    /// A chunk and the end of its line.
    pub const CHUNK: u8 = 7;
    /// What follows the last chunk, up to an empty line.
    pub const TRAILER: u8 = 8;
    /// The rest of the line of the PROXY protocol, version 1.
    pub const PROXY_LINE: u8 = 9;
    /// Nobody knows: the next turn tells.
    pub const LOST: u8 = 10;
    /// A TLS client's hello was found, and its handshake has not begun yet.
    pub const HELLO: u8 = 11;
}

impl Exchange {
    /// The stream speaks HTTP/1.
    pub const HTTP1: u8 = 1;
    /// The stream speaks something else.
    pub const NOT_HTTP1: u8 = 2;
    /// The same, and a TLS handshake is under way.
    pub const TLS: u8 = 3;
    /// A request began while another was open.
    pub const PIPELINED: u8 = 1;
    /// Payload had passed before anything was looked at.
    pub const JOINED: u8 = 2;
    /// The segment that is read follows a request of which nobody knows the end.
    pub(super) const RECOVERS: u8 = 4;
    /// A header of the PROXY protocol began, and was not kept yet.
    pub const PROXIED: u8 = 8;
    /// The end of the newest request is not known: its head has more parts than are read.
    pub(super) const UNTRACKED: u8 = 16;
    /// What the stream speaks was just told, and is not counted yet.
    pub const TOLD: u8 = 32;
    /// The first segment was so short that it may be any protocol's.
    pub(super) const SHORT: u8 = 64;
    /// After 101, or 2xx to CONNECT: no more exchanges.
    pub const TUNNEL: u8 = 1;

    /// Whether a request is unanswered.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.requests != self.responses
    }

    /// Whether the server's next payload is a response's first byte, so far as is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_response(&self) -> bool {
        self.response_start_len == 0 && self.response_expects == expects::START
    }

    /// Whether requests were pipelined.
    #[inline(always)]
    #[must_use]
    pub const fn is_pipelined(&self) -> bool {
        self.request_flags & Self::PIPELINED != 0
    }

    /// Whether a request line has begun and not ended.
    #[inline(always)]
    #[must_use]
    pub const fn is_amid_start(&self) -> bool {
        self.request_start_len != 0 || self.request_expects == expects::REQUEST_LINE
    }

    /// Whether what the client sends may have begun before it was joined: the server
    /// has sent nothing since.
    #[inline(always)]
    pub(super) const fn is_amid_first(&self) -> bool {
        self.request_flags & Self::JOINED != 0 && self.response_next_seq == self.joined_seq
    }

    /// What the connection speaks, once [`Self::protocol`] is told and is not TLS.
    #[must_use]
    pub fn spoken(&self) -> Protocol {
        if self.protocol == Self::HTTP1 {
            Protocol::Http1
        } else if self.is_joined() {
            Protocol::Unknown
        } else {
            match Protocol::of(self.request_start) {
                Protocol::Other if self.request_flags & Self::SHORT != 0 => Protocol::Unknown,
                protocol => protocol,
            }
        }
    }

    /// Where a direction is read next.  Read from memory each time: segments of one
    /// direction are received on several CPUs at once.
    #[inline(always)]
    fn next_seq(&self, direction: Direction) -> u32 {
        let next = match direction {
            Direction::Request => &raw const self.request_next_seq,
            Direction::Response => &raw const self.response_next_seq,
        };
        // SAFETY: a reference is valid and aligned.
        unsafe { next.read_volatile() }
    }

    /// What comes before was read, or passed over.  Only after this the next segment
    /// is looked at, on whichever CPU.
    #[inline(always)]
    pub fn go_on(&mut self, direction: Direction, next_seq: u32) {
        if self.next_seq(direction) == next_seq {
            return;
        }
        let next = match direction {
            Direction::Request => &raw mut self.request_next_seq,
            Direction::Response => &raw mut self.response_next_seq,
        };
        // SAFETY: as above.
        unsafe { next.write_volatile(next_seq) };
    }

    /// Takes a segment of a direction in.
    ///
    /// `kernel_next` is what TCP itself expects next: where segments were
    /// reordered it has filled the hole since, and its word counts.  `lose` is
    /// called where a message may have begun in what passed unseen.
    #[inline(always)]
    pub fn admit(
        &mut self,
        direction: Direction,
        seq: u32,
        len: u32,
        kernel_next: impl FnOnce() -> u32,
        lose: impl FnOnce(),
    ) -> Admitted {
        let mut next = self.next_seq(direction);
        if seq.wrapping_sub(next).cast_signed() > 0 {
            if matches!(direction, Direction::Response)
                && matches!(self.response_interest(), Interest::None)
            {
                // The rest of a response, in any order.
                return Admitted::New(0);
            }
            // In this order: TCP takes a segment only after it was read, so what it had
            // before `next` was read again, and is behind it, was passed over.
            let kernel_next = kernel_next();
            next = self.next_seq(direction);
            if seq.wrapping_sub(next).cast_signed() > 0 {
                let filled = kernel_next.wrapping_sub(next);
                if filled.cast_signed() <= 0 {
                    return Admitted::Behind;
                }
                let is_loss = match direction {
                    Direction::Request => self.pass_over_request(filled),
                    Direction::Response => self.pass_over_response(),
                };
                if is_loss {
                    lose();
                }
                next = next.wrapping_add(filled);
                self.go_on(direction, next);
            }
        }
        let ahead = seq.wrapping_sub(next).cast_signed();
        if ahead > 0 {
            Admitted::Behind
        } else if ahead.unsigned_abs() >= len {
            Admitted::Seen
        } else {
            Admitted::New(ahead.unsigned_abs())
        }
    }

    /// Whether so many bytes belong to a body.
    #[inline(always)]
    fn is_body(&self, len: u32) -> bool {
        matches!(self.request_expects, expects::BODY | expects::CHUNK)
            && self.body_left >= u64::from(len)
    }

    /// Bytes from the client were not seen; says whether a request may be among them.
    #[inline(always)]
    fn pass_over_request(&mut self, len: u32) -> bool {
        if !self.may_be_http1() || self.response_flags & Self::TUNNEL != 0 {
            return false;
        }
        if self.is_body(len) {
            self.body_left -= u64::from(len);
            return false;
        }
        let expected = self.request_expects;
        self.request_expects = expects::LOST;
        self.request_start_len = 0;
        // What a request that was counted goes on with, the next turn ends.
        matches!(
            expected,
            expects::START | expects::REQUEST_LINE | expects::BODY | expects::PROXY_LINE
        )
    }

    /// Bytes from the server were not seen; says whether a response may have begun.
    #[inline(always)]
    fn pass_over_response(&mut self) -> bool {
        let awaited = matches!(self.response_interest(), Interest::Read) && self.is_open();
        if awaited {
            self.response_expects = expects::LOST;
            self.response_start_len = 0;
        }
        awaited
    }

    /// Keeps the beginning of a segment that lies behind a hole, the first one behind
    /// it.  Says whether the hole was filled meanwhile, so that it is to be read.
    #[inline(always)]
    pub fn hold(&mut self, direction: Direction, seq: u32, len: u32, start: Start) -> bool {
        let next = self.next_seq(direction);
        let is_over = self.held_seq.wrapping_sub(next).cast_signed() <= 0;
        if self.held_len == 0 || is_over || seq.wrapping_sub(self.held_seq).cast_signed() < 0 {
            self.held_seq = seq;
            self.held_start = start;
            self.held_len = len;
        }
        let filled = self.next_seq(direction) == seq;
        if filled && self.held_seq == seq {
            self.held_len = 0;
        }
        filled
    }

    /// The segment that waited, once the hole before it is filled: its length and first
    /// bytes.
    #[inline(always)]
    pub fn release(&mut self, direction: Direction) -> Option<(u32, Start)> {
        let len = self.held_len;
        if len == 0 {
            return None;
        }
        let ahead = self.held_seq.wrapping_sub(self.next_seq(direction));
        if ahead.cast_signed() > 0 {
            return None;
        }
        self.held_len = 0;
        if ahead != 0 {
            // It came again, as a part of another one.
            return None;
        }
        Some((len, self.held_start))
    }

    /// Begins anew with a segment from the client after payload has passed unseen:
    /// what was open may have been answered by now.  Until then nothing from the
    /// server is looked at, so its fields may be set too.
    #[inline(always)]
    pub fn begin_anew(&mut self, generation: u8, request_seq: u32, response_seq: u32) {
        self.generation = generation;
        // Before it is established the server's stream is at no place yet.
        if self.protocol == 0 && response_seq != 0 {
            self.request_flags |= Self::JOINED;
            self.joined_seq = response_seq;
        }
        self.request_next_seq = request_seq;
        self.response_next_seq = response_seq;
        self.requests = self.responses;
        self.request_start_len = 0;
        self.request_expects = expects::LOST;
        self.request_flags &= !Self::UNTRACKED;
        self.response_start_len = 0;
        self.response_expects = expects::START;
        self.held_len = 0;
    }

    /// Whether a segment from the client that is not read may begin a request, as it has
    /// the first bytes of one: the end of the one before is not known.
    #[inline(always)]
    pub fn may_pass_request(&self, len: u32, start: impl FnOnce() -> Option<Start>) -> bool {
        self.is_untracked()
            && self.is_open()
            && start().is_some_and(|start| start.begins_request(len))
    }

    /// Whether a segment from the server that is not read begins a response nobody asked
    /// for: to a request that passed unseen behind one of which the end is not known.
    #[inline(always)]
    pub fn passes_response(&self, len: u32, start: impl FnOnce() -> Option<Start>) -> bool {
        self.is_untracked()
            && !self.is_open()
            && start().is_some_and(|start| start.begins_response(len))
    }

    #[inline(always)]
    const fn is_untracked(&self) -> bool {
        self.request_flags & Self::UNTRACKED != 0
            && self.request_expects == expects::LOST
            && self.response_flags & Self::TUNNEL == 0
    }

    /// What is to be done with new bytes from the client.
    #[inline(always)]
    #[must_use]
    pub const fn request_interest(&self) -> Interest {
        if self.response_flags & Self::TUNNEL != 0 {
            Interest::None
        } else if self.may_be_http1() {
            if self.request_expects == expects::LOST && self.is_open() {
                Interest::None
            } else {
                Interest::Read
            }
        } else if self.protocol == Self::TLS {
            Interest::Records
        } else if self.is_open() {
            Interest::None
        } else {
            Interest::Turn
        }
    }

    /// What is to be done with new bytes from the server.
    #[inline(always)]
    #[must_use]
    pub fn response_interest(&self) -> Interest {
        if self.response_flags & Self::TUNNEL != 0 {
            Interest::None
        } else if self.may_be_http1() {
            // The server may have something to say to who does not ask.
            let unasked = (self.requests == 0 || self.is_amid_start()) && !self.is_joined();
            if self.is_open() || unasked {
                Interest::Read
            } else {
                Interest::None
            }
        } else if self.protocol == Self::TLS {
            Interest::Records
        } else if self.is_open() {
            Interest::Turn
        } else {
            Interest::None
        }
    }

    #[inline(always)]
    const fn may_be_http1(&self) -> bool {
        self.protocol < Self::NOT_HTTP1
    }

    /// The sequence number of the client's hello, given that of the segment in which it was
    /// found.
    #[inline(always)]
    #[must_use]
    pub const fn hello_seq(&self, seq: u32) -> u32 {
        seq.wrapping_add(self.request_progress as u32)
    }

    #[inline(always)]
    pub(super) const fn is_joined(&self) -> bool {
        self.request_flags & Self::JOINED != 0
    }

    /// The time since the open request began.  Not a part of the event: a value
    /// that only some events have confuses older verifiers.
    #[inline(always)]
    #[must_use]
    pub fn took_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.request_started_ns)
    }
}
