//! HTTP/1.1 as a reverse proxy needs it: bytes in, decisions and bytes out, no I/O.
//!
//! Nothing here knows of sockets, tasks or time, so the same code is driven by
//! the proxy, by property tests that split streams at every byte, and by fuzz
//! targets. Parsing is strict: whatever two implementations could read in two
//! ways is refused, because a proxy that guesses is how requests are smuggled.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod body;
pub mod chunked;
pub mod fields;
pub mod forward;
pub mod reject;
pub mod request;
pub mod response;
#[cfg(test)]
mod split_tests;

/// Most header fields one head may carry; the configured limit is at most this.
pub const HEADERS_MAX: usize = 128;

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, connections close unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a message's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// Exactly so many bytes.
    Length(u64),
    /// The chunked coding, trailers included.
    Chunked,
    /// Everything until the sender closes; responses only.
    UntilClose,
}

/// What a message's head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Most bytes of start line and fields together, the empty line included.
    pub head_bytes_max: usize,
    /// Most header fields, at most [`HEADERS_MAX`].
    pub headers_max: usize,
    /// Whether CONNECT is understood; who lets it through has to judge its target.
    pub connect: bool,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            headers_max: 100,
            connect: false,
        }
    }
}

/// Whether every line of a head ends in CRLF.
///
/// `httparse` also takes a lone LF. Accepting it would be harmless here, since
/// heads are written anew, but a front that refuses what others may read
/// differently is the simpler promise.
fn lines_end_in_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}
