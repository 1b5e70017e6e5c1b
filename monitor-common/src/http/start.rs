//! The first bytes of a message.

use core::mem::MaybeUninit;

use super::Method;
use crate::{bytes, tls};

/// How many bytes of a message are looked at.
pub const START_BYTES: usize = 16;

/// The first bytes of a message, as two little-endian words: sixteen bytes in
/// the order of the stream, those that were not read zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Start {
    low: u64,
    high: u64,
}

/// Up to eight bytes as they lie in a word.
const fn word(text: &[u8]) -> u64 {
    let mut value = 0;
    let mut i = 0;
    while i < text.len() {
        value |= (text[i] as u64) << (8 * i);
        i += 1;
    }
    value
}

const fn mask(bytes: usize) -> u64 {
    if bytes >= 8 {
        u64::MAX
    } else {
        (1 << (8 * bytes)) - 1
    }
}

impl Start {
    /// From bytes of which those that were not read are zero.
    #[inline(always)]
    #[must_use]
    pub fn new(bytes: &[u8; START_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            low: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            high: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// Zeroes a place by two stores.  On the kernel's target a plain zero would be
    /// a call that goes byte by byte.
    #[inline(always)]
    pub fn zero(place: &mut MaybeUninit<Self>) {
        let words = place.as_mut_ptr().cast::<u64>();
        // SAFETY: the first of two words.
        unsafe { words.write_volatile(0) };
        // SAFETY: the second one lies within the place.
        let high = unsafe { words.add(1) };
        // SAFETY: as above.
        unsafe { high.write_volatile(0) };
    }

    /// These `len` bytes followed by others; what has no place is left out.
    #[inline(always)]
    fn followed_by(self, len: u32, next: Self) -> Self {
        let bits = 8 * (len & 7);
        if len == 0 {
            next
        } else if len < 8 {
            Self {
                low: self.low | next.low << bits,
                high: next.high << bits | next.low >> (64 - bits),
            }
        } else {
            Self {
                low: self.low,
                high: self.high | next.low << bits,
            }
        }
    }

    /// Whether its first `len` bytes begin a request for sure.
    #[inline(always)]
    #[must_use]
    pub fn begins_request(self, len: u32) -> bool {
        len >= 8 && known_method(self).is_some()
    }

    /// Whether its first `len` bytes begin a response for sure.
    #[inline(always)]
    #[must_use]
    pub fn begins_response(self, len: u32) -> bool {
        matches!(response_start(self, len), ResponseStart::Code(_))
    }

    /// From its two words.
    #[inline(always)]
    pub(super) const fn from_words(low: u64, high: u64) -> Self {
        Self { low, high }
    }

    /// The number that three digits from a place on make, whatever they are.
    #[inline(always)]
    pub(super) fn three_digits(self, at: u32) -> u16 {
        let digit = |i| u16::from(self.byte(at + i).wrapping_sub(b'0'));
        digit(0) * 100 + digit(1) * 10 + digit(2)
    }

    /// Whether it is the beginning of a line, and not all of the sixteen bytes.
    #[inline(always)]
    pub(super) fn is_cut_line(self) -> bool {
        let all_differ = |byte| {
            bytes::differs(self.low, byte) & bytes::differs(self.high, byte) | bytes::LOW_BITS
        };
        all_differ(b'\n') == u64::MAX && all_differ(0) != u64::MAX
    }

    /// Its two words.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [self.low, self.high]
    }

    #[inline(always)]
    pub(crate) fn starts_with(self, text: &[u8]) -> bool {
        self.low & mask(text.len()) == word(text)
    }

    /// What is left behind so many bytes, less than sixteen, and zeros.
    #[inline(always)]
    pub(crate) const fn behind(self, at: u32) -> Self {
        let bits = 8 * (at & 7);
        if at == 0 {
            self
        } else if at < 8 {
            Self {
                low: self.low >> bits | self.high << (64 - bits),
                high: self.high >> bits,
            }
        } else {
            Self {
                low: self.high >> bits,
                high: 0,
            }
        }
    }

    /// One byte of it, of sixteen.
    #[inline(always)]
    pub(crate) fn byte(self, i: u32) -> u8 {
        let half = if i < 8 { self.low } else { self.high };
        (half >> (8 * (i & 7))) as u8
    }
}

/// The first bytes of a message of which `kept` came before; these are looked
/// at only where there are any, as they lie in another cache line.
#[inline(always)]
pub(crate) fn join(kept: u32, before: &Start, start: Start, len: u32) -> (Start, u32) {
    if kept == 0 {
        return (start, len);
    }
    let all = kept + len;
    let limit = START_BYTES as u32;
    (
        before.followed_by(kept, start),
        if all < limit { all } else { limit },
    )
}

/// What the start of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestStart {
    /// A method; whether it is a request's the end of its line tells.
    Method(Method),
    /// More bytes are needed to tell.
    Partial,
    /// An empty line of so many bytes, which a server ignores (RFC 9112, section 2.2).
    Blank(u32),
    /// The first line of the PROXY protocol, version 1.
    ProxyLine,
    /// The sixteen bytes before so many of the PROXY protocol, version 2.
    Proxy(u32),
    /// A TLS client's hello.
    Tls,
    NotHttp,
}

#[inline(always)]
fn known_method(start: Start) -> Option<Method> {
    // The commonest first.
    if start.starts_with(b"GET ") {
        Some(Method::Get)
    } else if start.starts_with(b"POST ") {
        Some(Method::Post)
    } else if start.starts_with(b"HEAD ") {
        Some(Method::Head)
    } else if start.starts_with(b"PUT ") {
        Some(Method::Put)
    } else if start.starts_with(b"DELETE ") {
        Some(Method::Delete)
    } else if start.starts_with(b"OPTIONS ") {
        Some(Method::Options)
    } else if start.starts_with(b"PATCH ") {
        Some(Method::Patch)
    } else if start.starts_with(b"CONNECT ") {
        Some(Method::Connect)
    } else if start.starts_with(b"TRACE ") {
        Some(Method::Trace)
    } else {
        None
    }
}

/// What `len` bytes begin; `is_first` where they are the stream's first, before
/// which the PROXY protocol may tell of the client.
#[inline(always)]
pub(super) fn request_start(start: Start, len: u32, is_first: bool) -> RequestStart {
    if let Some(method) = known_method(start) {
        return RequestStart::Method(method);
    }
    if is_first {
        if start.starts_with(b"PROXY ") {
            return RequestStart::ProxyLine;
        }
        if let Some(found) = proxy(start, len) {
            return found;
        }
        match tls::hello(start, len) {
            tls::Hello::Yes => return RequestStart::Tls,
            tls::Hello::Partial => return RequestStart::Partial,
            tls::Hello::No => {}
        }
    }
    if start.starts_with(b"\r\n") {
        return RequestStart::Blank(2);
    }
    match start.byte(0) {
        b'\n' => RequestStart::Blank(1),
        b'\r' if len == 1 => RequestStart::Partial,
        _ => other_method(start, len),
    }
}

/// The header of the PROXY protocol, version 2, or the beginning of one.
#[inline(always)]
fn proxy(start: Start, len: u32) -> Option<RequestStart> {
    const LOW: u64 = word(b"\r\n\r\n\0\r\nQ");
    const HIGH: u64 = word(b"UIT\n");
    let there = mask(if len < 8 { len as usize } else { 8 });
    if start.low & there != LOW & there {
        return None;
    }
    if len <= 8 {
        return Some(RequestStart::Partial);
    }
    let there = mask(if len < 12 { len as usize - 8 } else { 4 });
    if start.high & there != HIGH & there {
        return None;
    }
    if len < START_BYTES as u32 {
        return Some(RequestStart::Partial);
    }
    if start.byte(12) >> 4 != 2 {
        return Some(RequestStart::NotHttp);
    }
    let follows = u32::from(start.byte(14)) << 8 | u32::from(start.byte(15));
    Some(RequestStart::Proxy(follows))
}

/// A method that is not registered: letters, digits and what else methods have in
/// their names, and a space, unless it is longer than what is looked at.
#[inline(always)]
fn other_method(start: Start, len: u32) -> RequestStart {
    // Bytes that were not read are zero, so the method ends there at the latest.
    let mut end = bytes::first(not_of_a_method(start.low));
    if end == 8 {
        end += bytes::first(not_of_a_method(start.high));
    }
    if end == START_BYTES as u32 {
        RequestStart::Method(Method::Other)
    } else if end >= len {
        RequestStart::Partial
    } else if end > 0 && start.byte(end) == b' ' {
        RequestStart::Method(Method::Other)
    } else {
        RequestStart::NotHttp
    }
}

/// The highest bit of each byte that is no letter, digit, hyphen, underscore or dot,
/// and no other bit.
#[inline(always)]
const fn not_of_a_method(word: u64) -> u64 {
    let letter = bytes::within(word | bytes::repeated(0x20), b'a', b'z');
    let digit = bytes::within(word, b'0', b'9');
    let other =
        bytes::differs(word, b'-') & bytes::differs(word, b'_') & bytes::differs(word, b'.');
    !(letter | digit) & other & !bytes::LOW_BITS
}

/// What the start of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseStart {
    Code(u16),
    Partial,
    NotHttp,
}

/// The bytes of "HTTP/1.1 200".
const STATUS_BYTES: u32 = 12;

#[inline(always)]
pub(super) fn response_start(start: Start, len: u32) -> ResponseStart {
    let version = mask(if len < 7 { len as usize } else { 7 });
    if start.low & version != word(b"HTTP/1.") & version {
        return ResponseStart::NotHttp;
    }
    if len < STATUS_BYTES {
        return ResponseStart::Partial;
    }
    let digit = |i| start.byte(i).wrapping_sub(b'0');
    let (hundreds, tens, ones) = (digit(9), digit(10), digit(11));
    if start.byte(8) != b' ' || hundreds > 9 || tens > 9 || ones > 9 {
        return ResponseStart::NotHttp;
    }
    ResponseStart::Code(u16::from(hundreds) * 100 + u16::from(tens) * 10 + u16::from(ones))
}
