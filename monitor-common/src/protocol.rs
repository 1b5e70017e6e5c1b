//! The protocol of a connection, by the first bytes that its client sends.
//!
//! Told once for a connection, when its first bytes turn out to be HTTP/1 or not.  TLS is
//! not among these: [`crate::counters::EndpointCounters::tls_handshakes`] has it.

use crate::http::Start;

/// What the first bytes tell, an index into
/// [`crate::counters::EndpointCounters::connections_by_protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// A request line that ends in ` HTTP/1.x`.
    Http1 = 0,
    /// The preface of RFC 9113, section 3.4, without TLS.
    Http2 = 1,
    /// A record `FCGI_BEGIN_REQUEST`.
    Fastcgi = 2,
    /// A header of uwsgi and the name of a variable.
    Uwsgi = 3,
    /// A command in text, or the header of a binary one.
    Memcached = 4,
    /// An array of RESP.
    Redis = 5,
    /// A `StartupMessage` of version 3, an `SSLRequest` or a `GSSENCRequest`.
    Postgresql = 6,
    /// None of these.
    Other = 7,
    /// The first bytes passed unseen, or were too few.
    Unknown = 8,
}

/// How many there are.
pub const PROTOCOLS: usize = 9;

impl Protocol {
    /// What the first sixteen bytes of a connection that is neither HTTP/1 nor TLS tell;
    /// those that were not read are zero.
    #[must_use]
    pub fn of(start: Start) -> Self {
        if is_http2(start) {
            Self::Http2
        } else if is_fastcgi(start) {
            Self::Fastcgi
        } else if is_uwsgi(start) {
            Self::Uwsgi
        } else if is_memcached(start) {
            Self::Memcached
        } else if is_redis(start) {
            Self::Redis
        } else if is_postgresql(start) {
            Self::Postgresql
        } else {
            Self::Other
        }
    }
}

#[inline(always)]
fn is_http2(start: Start) -> bool {
    start.starts_with(b"PRI * HT") && start.behind(8).starts_with(b"TP/2.0\r\n")
}

/// Version 1, type 1, an id, a content of eight bytes, and in it the role.
#[inline(always)]
fn is_fastcgi(start: Start) -> bool {
    start.starts_with(b"\x01\x01")
        && start.behind(4).starts_with(b"\0\x08")
        && start.byte(8) == 0
        && matches!(start.byte(9), 1..=3)
}

/// Modifiers of 0, a length, and the length of a name that begins with a capital letter,
/// as those of CGI variables do.
#[inline(always)]
fn is_uwsgi(start: Start) -> bool {
    start.byte(0) == 0
        && start.byte(3) == 0
        && (start.byte(1) | start.byte(2)) != 0
        && start.byte(4) != 0
        && start.byte(5) == 0
        && start.byte(6).is_ascii_uppercase()
}

#[inline(always)]
fn is_memcached(start: Start) -> bool {
    start.starts_with(b"get ")
        || start.starts_with(b"gets ")
        || start.starts_with(b"gat ")
        || start.starts_with(b"set ")
        || start.starts_with(b"add ")
        || start.starts_with(b"replace ")
        || start.starts_with(b"append ")
        || start.starts_with(b"prepend ")
        || start.starts_with(b"cas ")
        || start.starts_with(b"delete ")
        || start.starts_with(b"incr ")
        || start.starts_with(b"decr ")
        || start.starts_with(b"touch ")
        || start.starts_with(b"mg ")
        || start.starts_with(b"ms ")
        || start.starts_with(b"md ")
        || start.starts_with(b"mn\r\n")
        || is_binary_memcached(start)
}

/// The magic of a request, an opcode of those that are given out, a key of less than 256
/// bytes, and data of type 0.
#[inline(always)]
fn is_binary_memcached(start: Start) -> bool {
    start.byte(0) == 0x80 && start.byte(1) < 0x50 && start.byte(2) == 0 && start.byte(5) == 0
}

/// An array of one to ninety-nine bulk strings.
#[inline(always)]
fn is_redis(start: Start) -> bool {
    let follows = if start.byte(2).is_ascii_digit() { 3 } else { 2 };
    start.byte(0) == b'*'
        && start.byte(1).is_ascii_digit()
        && start.behind(follows).starts_with(b"\r\n$")
}

/// A length below 64 KiB, and version 3.0 or the number of a request before it.
#[inline(always)]
fn is_postgresql(start: Start) -> bool {
    let code = start.behind(4);
    start.starts_with(b"\0\0")
        && (code.starts_with(b"\0\x03\0\0")
            || code.starts_with(b"\x04\xd2\x16\x2f")
            || code.starts_with(b"\x04\xd2\x16\x30"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::START_BYTES;

    fn of(bytes: &[u8]) -> Protocol {
        let mut start = [0; START_BYTES];
        let len = bytes.len().min(START_BYTES);
        start[..len].copy_from_slice(&bytes[..len]);
        Protocol::of(Start::new(&start))
    }

    #[test]
    fn clients_are_told_by_what_they_send_first() {
        use Protocol::{Fastcgi, Http2, Memcached, Other, Postgresql, Redis, Uwsgi};
        for (bytes, protocol) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Http2),
            (b"PRI * HTTP/1.1\r\n", Other),
            // What nginx sends: a responder that is to close.
            (b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0", Fastcgi),
            // An authorizer that is kept alive, under the id 258.
            (b"\x01\x01\x01\x02\0\x08\0\0\0\x02\x01\0\0\0\0\0", Fastcgi),
            (b"\x01\x01\0\x01\0\x08\0\0\0\x04\0\0\0\0\0\0", Other),
            (b"\x01\x05\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0", Other),
            (b"\0\x6f\x01\0\x0c\0QUERY_STRI", Uwsgi),
            (b"\0\x6f\x01\0\x0c\0query_stri", Other),
            (b"\0\0\0\0\x0c\0QUERY_STRI", Other),
            (b"get key\r\n", Memcached),
            (b"gets key another", Memcached),
            (b"set key 0 0 5\r\nh", Memcached),
            (b"mn\r\n", Memcached),
            (b"\x80\x00\0\x05\0\0\0\0\0\0\0\x05\0\0\0\0", Memcached),
            (b"\x80\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Memcached),
            (b"\x81\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Other),
            (b"gettext key\r\n", Other),
            (b"*1\r\n$4\r\nPING\r\n", Redis),
            (b"*12\r\n$4\r\nMSET", Redis),
            (b"*a\r\n$4\r\nPING\r\n", Other),
            (b"*1\r\n+4\r\nPING\r\n", Other),
            (b"\0\0\0\x29\0\x03\0\0user\0me", Postgresql),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Postgresql),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Postgresql),
            (b"\0\0\0\x08\x04\xd2\x16\x2e", Other),
            (b"CONNECT {\"verbos", Other),
            (b"EHLO example.org", Other),
            (b"SSH-2.0-OpenSSH_", Other),
            (b"", Other),
        ] {
            assert_eq!(of(bytes), protocol, "{}", bytes.escape_ascii());
        }
    }
}
