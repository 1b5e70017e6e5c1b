//! HTTP/1 exchanges, found in the segments of a stream.
//!
//! Requests are followed by their framing (RFC 9112): a request begins where the one
//! before it ends, wherever in a segment that is, and whether it was answered by
//! then or not.  A body is never looked at, so one that looks like a request does not
//! count.  Where the framing is lost, as segments came in another order or a head is
//! beyond all bounds, the next request begins with the first payload after the
//! response.  Responses are found so always: with the first payload after the stream
//! has turned back, past interim ones.
//!
//! Payload is judged by its sequence number, as the packet programs run before TCP's
//! own checks: what was seen before does not count again, and what lies behind a hole
//! waits for it to be filled, or is told as passed over.
//!
//! The same code runs in the kernel and in the tests of the host.  The two
//! directions run at the same time on different CPUs, so each field belongs to
//! one direction, which alone writes it.

mod answer;
mod exchange;
mod head;
mod method;
mod number;
mod place;
mod request;
mod response;
mod start;
mod status;

pub use self::{
    answer::{Answer, Extent, HEAD_BYTES, TAIL_BYTES},
    exchange::{Admitted, Direction, Exchange, Interest, expects},
    method::{METHODS, Method},
    request::{Moment, RequestEvent},
    response::ResponseEvent,
    start::{START_BYTES, Start},
    status::{CODE_NAMES, CODES, code_index, code_name},
};

pub(crate) use self::{place::Parts, start::join};
use crate::tls::RECORDS;

/// As many parts of a segment as are read where heads are not.
pub const FEW_PARTS: u32 = 1;

/// New payload of a segment, of which any part can be had.
pub trait Payload {
    /// How many parts of it are read: a request's head takes one for its beginning, one
    /// for each 64 bytes, one for what is less than eight, and two for a length that it
    /// tells; a chunk takes four.
    fn parts(&self) -> u32;

    /// How many TLS records in it are seen.
    fn records(&self) -> u32 {
        RECORDS
    }

    /// Whether heads are read to their ends.  Where the kernel's verifier does not let
    /// them be, a request begins with its method, after the stream has turned.
    fn reads_heads(&self) -> bool {
        self.parts() > FEW_PARTS
    }

    /// The first bytes of the `len`, at least one, that there are at a place; what
    /// there is not is zero.  `None` where they cannot be read.
    fn start(&self, at: u32, len: u32) -> Option<Start>;

    /// The first `len` bytes at a place, from 8 to 64, and zeros.
    fn words(&self, at: u32, len: u32) -> Option<[u64; 8]>;
}

#[cfg(test)]
pub(crate) mod tests;
