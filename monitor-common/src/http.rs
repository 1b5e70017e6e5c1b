//! HTTP/1 exchanges, found at the turns of a stream.
//!
//! A request begins with the first payload after the stream has turned towards
//! the server, and its response with the first payload after it has turned
//! back; what lies between is never looked at, so a body that looks like a
//! request line does not count.  Payload is judged by its sequence number, as
//! the packet programs run before TCP's own checks: what was seen before, or
//! lies behind a hole, does not turn the stream.
//!
//! The same code runs in the kernel and in the tests of the host.  The two
//! directions run at the same time on different CPUs, so each field belongs to
//! one direction, which alone writes it.

use core::mem::MaybeUninit;

use crate::bytes;

/// How many methods are told apart.
pub const METHODS: usize = 10;

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// RFC 9110, section 9.3.1.
    Get = 0,
    /// RFC 9110, section 9.3.2.
    Head = 1,
    /// RFC 9110, section 9.3.3.
    Post = 2,
    /// RFC 9110, section 9.3.4.
    Put = 3,
    /// RFC 9110, section 9.3.5.
    Delete = 4,
    /// RFC 9110, section 9.3.6.
    Connect = 5,
    /// RFC 9110, section 9.3.7.
    Options = 6,
    /// RFC 9110, section 9.3.8.
    Trace = 7,
    /// RFC 5789.
    Patch = 8,
    /// Any other.
    Other = 9,
}

impl Method {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; METHODS] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// Its name, as OpenTelemetry's `http.request.method` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

macro_rules! codes {
    ($($code:literal)*) => {
        /// The names of the status codes that are told apart: first the rest of
        /// each class, then the codes of IANA's registry.
        pub const CODE_NAMES: [&str; CODES] =
            ["1XX", "2XX", "3XX", "4XX", "5XX", $(stringify!($code)),*];

        const REGISTERED: [u16; CODES - 5] = [$($code),*];
    };
}

/// How many status codes are told apart.
pub const CODES: usize = 66;

codes! {
    100 101 102 103
    200 201 202 203 204 205 206 207 208 226
    300 301 302 303 304 305 307 308
    400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417
    421 422 423 424 425 426 428 429 431 451
    500 501 502 503 504 505 506 507 508 510 511
}

/// From a status code less 100 to its counter.
static CODE_INDEX: [u8; 500] = {
    let mut table = [0u8; 500];
    let mut code = 0;
    while code < 500 {
        // Below 5, so the cast keeps the value.
        table[code] = (code / 100) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < REGISTERED.len() {
        table[(REGISTERED[i] - 100) as usize] = i as u8 + 5;
        i += 1;
    }
    table
};

/// The counter of a status code; `None` for what is no status code.
#[inline(always)]
#[must_use]
pub fn code_index(code: u16) -> Option<usize> {
    let index = usize::from(code.wrapping_sub(100));
    if index < CODE_INDEX.len() {
        Some(usize::from(CODE_INDEX[index]))
    } else {
        None
    }
}

/// The name of a counter of status codes: "200", or "2XX" for the rest of a
/// class; `None` beyond the last.
#[must_use]
pub fn code_name(index: usize) -> Option<&'static str> {
    CODE_NAMES.get(index).copied()
}

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

    /// From two words as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn of_words(low: u64, high: u64) -> Self {
        Self { low, high }
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

    /// Without its first two bytes.
    #[inline(always)]
    fn skip_two(self) -> Self {
        Self {
            low: self.low >> 16 | self.high << 48,
            high: self.high >> 16,
        }
    }

    #[inline(always)]
    fn starts_with(self, text: &[u8]) -> bool {
        self.low & mask(text.len()) == word(text)
    }

    #[inline(always)]
    fn byte(self, i: u32) -> u8 {
        let half = if i < 8 { self.low } else { self.high };
        (half >> (8 * (i & 7))) as u8
    }
}

/// The first bytes of a message of which `kept` came before; these are looked
/// at only where there are any, as they lie in another cache line.
#[inline(always)]
fn join(kept: u32, before: &Start, start: Start, len: u32) -> (Start, u32) {
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
enum RequestStart {
    Method(Method),
    /// More bytes are needed to tell.
    Partial,
    /// Nothing but an empty line.
    Blank,
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

#[inline(always)]
fn request_start(mut start: Start, mut len: u32) -> RequestStart {
    // RFC 9112, section 2.2: a server ignores an empty line or two before.
    let mut blank = 0;
    while blank < 2 && len >= 2 && start.starts_with(b"\r\n") {
        start = start.skip_two();
        len -= 2;
        blank += 1;
    }
    if len == 0 {
        return RequestStart::Blank;
    }
    if let Some(method) = known_method(start) {
        return RequestStart::Method(method);
    }
    other_method(start, len)
}

/// A method that is not registered: three or more capitals, hyphens or
/// underscores, a space, and a path.  Anything weaker would take other
/// protocols' greetings for requests.
#[inline(always)]
fn other_method(start: Start, len: u32) -> RequestStart {
    // Bytes that were not read are zero, so the method ends there at the latest.
    let mut end = bytes::first(not_of_a_method(start.low));
    if end == 8 {
        end += bytes::first(not_of_a_method(start.high));
    }
    if end >= len && end < START_BYTES as u32 {
        return RequestStart::Partial;
    }
    if end < 3 || end >= START_BYTES as u32 - 1 || start.byte(end) != b' ' {
        return RequestStart::NotHttp;
    }
    if end + 1 >= len {
        RequestStart::Partial
    } else if start.byte(end + 1) == b'/' {
        RequestStart::Method(Method::Other)
    } else {
        RequestStart::NotHttp
    }
}

/// The highest bit of each byte that is no capital, hyphen or underscore, and no
/// other bit.
#[inline(always)]
const fn not_of_a_method(word: u64) -> u64 {
    let low = word & bytes::LOW_BITS;
    // The highest bit of a sum says that a byte is not below what was added to.
    let from_a = low + bytes::repeated(0x80 - b'A');
    let above_z = low + bytes::repeated(0x7f - b'Z');
    let capital = from_a & !above_z & !word;
    let other = bytes::differs(word, b'-') & bytes::differs(word, b'_');
    !capital & other & !bytes::LOW_BITS
}

/// What the start of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseStart {
    Code(u16),
    Partial,
    NotHttp,
}

/// The bytes of "HTTP/1.1 200".
const STATUS_BYTES: u32 = 12;

#[inline(always)]
fn response_start(start: Start, len: u32) -> ResponseStart {
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
    /// Nothing: the stream has not turned.
    None,
    /// The stream has turned, and what it carries does not matter.
    Turn,
    /// Its first bytes are needed.
    Start,
}

/// What a turn towards the server was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEvent {
    /// Nothing to count.
    None,
    /// A request began.
    Request {
        /// Its method.
        method: Method,
        /// It is the first on this socket that came while another was open.
        first_pipelined: bool,
    },
    /// It may be the rest of a body whose response came early.
    Suspected,
}

/// What a turn towards the client was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEvent {
    /// Nothing to count.
    None,
    /// An interim response, by [`code_index`]; the exchange goes on, and its
    /// final response may begin within the same payload.
    Interim(usize),
    /// A final response, by [`code_index`], and whether its time counts: not
    /// where requests were pipelined.
    Final(usize, bool),
    /// Payload that is no response to an HTTP/1 request, and the same.
    Unparsed(bool),
    /// The answer within a stream that does not speak HTTP/1.
    Exchange,
}

/// The exchanges of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exchange {
    /// When the open request began.  Of the request's direction.
    pub request_started_ns: u64,
    /// Where the client's next payload begins.  Of the request's direction.
    pub request_next_seq: u32,
    /// Where the server's next payload begins.  Of the response's direction.
    pub response_next_seq: u32,
    /// How many requests began.  Of the request's direction.
    pub requests: u32,
    /// How many of them were answered.  Of the response's direction.
    pub responses: u32,
    /// The slot of the endpoint's counters.  Set once.
    pub slot: u32,
    /// A [`crate::endpoint::Role`].  Set once.
    pub role: u8,
    /// 0 while unknown, then [`Self::HTTP1`] or [`Self::NOT_HTTP1`].  Of the
    /// request's direction.
    pub protocol: u8,
    /// The newest request's [`Method`].  Of the request's direction.
    pub method: u8,
    /// [`Self::PIPELINED`], [`Self::JOINED`].  Of the request's direction.
    pub request_flags: u8,
    /// [`Self::TUNNEL`], [`Self::INTERIM`].  Of the response's direction.
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
    /// Where the server's stream was when this was joined amid its course.  Of the
    /// request's direction.
    pub joined_seq: u32,
    /// The bytes of a split request line.  Of the request's direction.
    pub request_start: Start,
    /// The bytes of a split status line.  Of the response's direction.
    pub response_start: Start,
}

const _: () = assert!(size_of::<Exchange>() == 72);

impl Exchange {
    /// The stream speaks HTTP/1.
    pub const HTTP1: u8 = 1;
    /// The stream speaks something else.
    pub const NOT_HTTP1: u8 = 2;
    /// A request began while another was open.
    pub const PIPELINED: u8 = 1;
    /// Payload had passed before anything was looked at.
    pub const JOINED: u8 = 2;
    /// After 101, or 2xx to CONNECT: no more exchanges.
    pub const TUNNEL: u8 = 1;
    /// The last response was interim, its head may still be under way.
    pub const INTERIM: u8 = 2;

    /// Whether a request is unanswered.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.requests != self.responses
    }

    /// Whether requests were pipelined.
    #[inline(always)]
    #[must_use]
    pub const fn is_pipelined(&self) -> bool {
        self.request_flags & Self::PIPELINED != 0
    }

    /// Whether what the client sends may have begun before it was joined: the server
    /// has sent nothing since.
    #[inline(always)]
    const fn is_amid_first(&self) -> bool {
        self.request_flags & Self::JOINED != 0 && self.response_next_seq == self.joined_seq
    }

    /// Takes a segment in, and says where its new payload begins; `None` where
    /// all of it was seen before, or it lies behind a hole.
    ///
    /// `kernel_next` is what TCP itself expects next: where segments were
    /// reordered it has filled the hole since, and its word counts.
    #[inline(always)]
    pub fn admit(
        &mut self,
        direction: Direction,
        seq: u32,
        len: u32,
        kernel_next: impl FnOnce() -> u32,
    ) -> Option<u32> {
        let next = match direction {
            Direction::Request => &mut self.request_next_seq,
            Direction::Response => &mut self.response_next_seq,
        };
        let mut ahead = seq.wrapping_sub(*next).cast_signed();
        if ahead > 0 {
            let kernel_next = kernel_next();
            if kernel_next.wrapping_sub(*next).cast_signed() <= 0 {
                return None;
            }
            *next = kernel_next;
            ahead = seq.wrapping_sub(kernel_next).cast_signed();
            if ahead > 0 {
                return None;
            }
        }
        let seen = ahead.unsigned_abs();
        if seen >= len {
            return None;
        }
        *next = seq.wrapping_add(len);
        Some(seen)
    }

    /// Begins anew with a segment from the client after payload has passed unseen:
    /// what was open may have been answered by now.  Until then nothing from the
    /// server is looked at, so its fields may be set too.
    #[inline(always)]
    pub fn begin_anew(&mut self, generation: u8, next_seq: u32) {
        self.generation = generation;
        // Before it is established the server's stream is at no place yet.
        if self.protocol == 0 && self.response_next_seq != 0 {
            self.request_flags |= Self::JOINED;
            self.joined_seq = self.response_next_seq;
        }
        self.request_next_seq = next_seq;
        self.requests = self.responses;
        self.request_start_len = 0;
        self.response_start_len = 0;
        self.response_flags &= !Self::INTERIM;
    }

    /// What is to be done with new payload of a direction.
    #[inline(always)]
    #[must_use]
    pub fn interest(&self, direction: Direction) -> Interest {
        if self.response_flags & Self::TUNNEL != 0 {
            return Interest::None;
        }
        let http1 = self.protocol != Self::NOT_HTTP1;
        match direction {
            Direction::Request if !self.is_open() && http1 => Interest::Start,
            Direction::Request if !self.is_open() => Interest::Turn,
            // A request without a body may be followed by a pipelined one.
            Direction::Request if http1 && self.method <= Method::Head as u8 => Interest::Start,
            Direction::Response if self.is_open() && http1 => Interest::Start,
            Direction::Response if self.is_open() => Interest::Turn,
            Direction::Request | Direction::Response => Interest::None,
        }
    }

    /// The stream turned towards the server, and does not speak HTTP/1.
    #[inline(always)]
    pub fn turn_to_server(&mut self, now_ns: u64) {
        self.request_started_ns = now_ns;
        self.requests = self.requests.wrapping_add(1);
    }

    /// New payload from the client: its first `len` bytes, at most 16.
    #[inline(always)]
    pub fn on_request(&mut self, start: Start, len: u32, now_ns: u64) -> RequestEvent {
        let open = self.is_open();
        let kept = u32::from(self.request_start_len) & 15;
        if kept == 0 && !open {
            self.request_started_ns = now_ns;
        }
        let (start, len) = join(kept, &self.request_start, start, len);
        let found = request_start(start, len);
        if open {
            return match found {
                RequestStart::Method(method) => self.begin(method, true),
                _ => RequestEvent::None,
            };
        }
        self.request_start_len = 0;
        match found {
            RequestStart::Method(method) => self.begin(method, false),
            RequestStart::Partial => {
                self.request_start = start;
                self.request_start_len = len as u8;
                RequestEvent::None
            }
            RequestStart::Blank => RequestEvent::None,
            RequestStart::NotHttp if self.protocol == Self::HTTP1 => RequestEvent::Suspected,
            // The rest of a body, or another protocol: the next turn tells.
            RequestStart::NotHttp if self.is_amid_first() => RequestEvent::None,
            RequestStart::NotHttp => {
                self.protocol = Self::NOT_HTTP1;
                self.requests = self.requests.wrapping_add(1);
                RequestEvent::None
            }
        }
    }

    #[inline(always)]
    fn begin(&mut self, method: Method, pipelined: bool) -> RequestEvent {
        let first_pipelined = pipelined && !self.is_pipelined();
        if pipelined {
            self.request_flags |= Self::PIPELINED;
        }
        self.protocol = Self::HTTP1;
        self.method = method as u8;
        self.requests = self.requests.wrapping_add(1);
        RequestEvent::Request {
            method,
            first_pipelined,
        }
    }

    /// The stream turned towards the client, and does not speak HTTP/1.
    #[inline(always)]
    pub fn turn_to_client(&mut self) -> ResponseEvent {
        self.responses = self.requests;
        ResponseEvent::Exchange
    }

    /// The time since the open request began.  Not a part of the event: a value
    /// that only some events have confuses older verifiers.
    #[inline(always)]
    #[must_use]
    pub fn took_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.request_started_ns)
    }

    /// New payload from the server: its first `len` bytes, at most 16.
    #[inline(always)]
    pub fn on_response(&mut self, start: Start, len: u32) -> ResponseEvent {
        let kept = u32::from(self.response_start_len) & 15;
        let (start, len) = join(kept, &self.response_start, start, len);
        self.response_start_len = 0;
        let found = match response_start(start, len) {
            ResponseStart::Code(code) => code_index(code).map(|index| (code, index)),
            ResponseStart::Partial => {
                self.response_start = start;
                self.response_start_len = len as u8;
                return ResponseEvent::None;
            }
            ResponseStart::NotHttp => None,
        };
        match found {
            Some((code, index)) if code < 200 && code != 101 => {
                self.response_flags |= Self::INTERIM;
                ResponseEvent::Interim(index)
            }
            Some((code, index)) => {
                let tunnel = code == 101
                    || (self.method == Method::Connect as u8 && (200..300).contains(&code));
                self.response_flags = if tunnel { Self::TUNNEL } else { 0 };
                ResponseEvent::Final(index, self.answer())
            }
            // The rest of an interim head, or of a pipelined response's body.
            None if self.response_flags & Self::INTERIM != 0 || self.is_pipelined() => {
                ResponseEvent::None
            }
            None => ResponseEvent::Unparsed(self.answer()),
        }
    }

    /// Takes the open request as answered, the oldest one where there are more,
    /// and says whether its time counts.
    #[inline(always)]
    fn answer(&mut self) -> bool {
        if self.is_pipelined() {
            self.responses = self.responses.wrapping_add(1);
            return false;
        }
        self.responses = self.requests;
        true
    }
}

#[cfg(test)]
mod tests;
