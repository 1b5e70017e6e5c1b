//! Requests, from head to body to head.

use super::{
    Exchange, Method, Payload, Start,
    exchange::expects,
    head::{self, FirstLine, Found, Read},
    number,
    place::{Parts, Place, forget},
    start::{RequestStart, START_BYTES, join, request_start},
};

/// So many bytes tell every protocol that is looked for and does not begin with a line.
const TELLING_BYTES: u32 = 10;

/// What was found in payload from the client.  Without values of its own: one that only
/// some events have confuses the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEvent {
    /// Nothing to count.
    None,
    /// A request began, of the exchange's method.
    Request,
    /// The same, the first on this socket that came while another was open.
    FirstPipelined,
    /// It may be a request, or the rest of one that was counted already.
    Suspected,
}

/// When a segment from the client came, and where the server's stream was, as TCP has it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock.
    pub ns: u64,
    /// The sequence number of what the server sends next; 0 where it is not known.
    pub response_seq: u32,
}

impl Exchange {
    /// The stream turned towards the server, and does not speak HTTP/1.
    #[inline(always)]
    pub fn turn_to_server(&mut self, now: Moment) {
        self.set_out(now);
        self.requests = self.requests.wrapping_add(1);
    }

    /// A request may begin, and none is open.  What the server sends next answers it,
    /// so nothing is missing of what it sent before.
    #[inline(always)]
    fn set_out(&mut self, now: Moment) {
        self.request_started_ns = now.ns;
        // Before it is established the server's stream is at no place yet.
        if now.response_seq != 0 {
            self.response_next_seq = now.response_seq;
        }
    }

    /// Reads new payload from the client, from a place in its segment to another, and
    /// says how many bytes behind its end are passed over.
    #[inline(always)]
    pub fn read_requests(
        &mut self,
        payload: &impl Payload,
        at: u32,
        end: u32,
        now: impl Fn() -> Moment,
        mut on: impl FnMut(RequestEvent, u8),
    ) -> u32 {
        if self.turn(&now) {
            return 0;
        }
        let mut place = Place::new(&mut self.request_scratch, at, end);
        let mut parts = Parts::new();
        while place.left() != 0 && parts.next(payload.parts()) {
            let mut event = RequestEvent::None;
            let bytes = self.read_request_part(payload, place.at(), place.left(), &mut event);
            on(event, self.method);
            place.go_on(&mut self.request_scratch, bytes);
        }
        if matches!(self.request_expects(), expects::BODY | expects::CHUNK) {
            let bytes = self.read_body();
            place.go_on(&mut self.request_scratch, bytes);
        }
        if place.left() != 0 {
            place.end();
            on(self.lose_track(), self.method);
        } else {
            on(self.end_recovery(), self.method);
        }
        place.at().wrapping_sub(end)
    }

    /// Reads the first bytes of a segment from the client of which the others are gone.
    #[inline(always)]
    pub fn read_request_start(
        &mut self,
        start: Start,
        len: u32,
        now: impl Fn() -> Moment,
    ) -> RequestEvent {
        if self.turn(&now) {
            return RequestEvent::None;
        }
        self.request_flags &= !Self::RECOVERS;
        let mut event = RequestEvent::None;
        let mut read = 0;
        if self.request_expects() == expects::START {
            read = self.read_start(start, 0, len, &mut event);
        }
        if read == len {
            return event;
        }
        let may_hide_one = self.request_expects() != expects::REQUEST_LINE
            && self.protocol == 0
            && self.request_expects() != expects::LOST;
        event = self.unreadable();
        if may_hide_one {
            // Behind the PROXY protocol.
            RequestEvent::Suspected
        } else {
            event
        }
    }

    /// Where the stream has turned and the end of the request before is not known, the
    /// next one begins here.  Says whether the stream turns out to speak something else.
    #[inline(always)]
    fn turn(&mut self, now: &impl Fn() -> Moment) -> bool {
        let expected = self.request_expects();
        let unknown = matches!(expected, expects::LOST | expects::FIELDS | expects::LENGTH);
        if unknown && !self.is_open() {
            self.request_flags |= Self::RECOVERS;
            self.request_flags &= !Self::UNTRACKED;
            self.request_expects = expects::START;
            self.request_start_len = 0;
            self.set_out(now());
            return false;
        }
        let undecided = expected == expects::REQUEST_LINE && self.protocol == 0;
        if undecided && self.response_next_seq != self.joined_seq {
            // It was answered amid its line, so it was none.
            self.request_flags |= Self::TOLD;
            self.protocol = Self::NOT_HTTP1;
            self.turn_to_server(now());
            return true;
        }
        if !self.is_open() && !self.is_amid_start() {
            self.set_out(now());
        }
        false
    }

    /// What has no registered method, nor a line that ends within its segment, may be
    /// anything.
    #[inline(always)]
    fn end_recovery(&mut self) -> RequestEvent {
        let recovers = self.request_flags & Self::RECOVERS != 0;
        self.request_flags &= !Self::RECOVERS;
        let is_other = self.method == Method::Other as u8;
        if recovers && is_other && self.request_expects() == expects::REQUEST_LINE {
            self.not_http()
        } else {
            RequestEvent::None
        }
    }

    /// Read from memory each time: what the verifier would know of it on each path
    /// would make it follow all of them.
    #[inline(always)]
    fn request_expects(&self) -> u8 {
        // SAFETY: a reference is valid and aligned.
        unsafe { (&raw const self.request_expects).read_volatile() }
    }

    #[inline(always)]
    fn read_request_part(
        &mut self,
        payload: &impl Payload,
        at: u32,
        len: u32,
        event: &mut RequestEvent,
    ) -> u32 {
        match self.request_expects() {
            expects::START => match payload.start(at, len) {
                Some(start) => self.read_start(start, at, len, event),
                None => {
                    *event = self.unreadable();
                    len
                }
            },
            expects::REQUEST_LINE | expects::FIELDS | expects::TRAILER => {
                self.read_head(payload, at, len, event)
            }
            expects::BODY | expects::CHUNK => self.read_body(),
            expects::LENGTH | expects::CHUNK_SIZE | expects::CHUNK_LINE | expects::PROXY_LINE => {
                self.read_line(payload, at, len, event)
            }
            _ => len,
        }
    }

    #[inline(always)]
    fn read_start(&mut self, start: Start, at: u32, len: u32, event: &mut RequestEvent) -> u32 {
        let kept = u32::from(self.request_start_len) & 15;
        let new = capped(len);
        let (start, all) = join(kept, &self.request_start, start, new);
        let all = forget(&mut self.request_scratch, all);
        self.request_start_len = 0;
        match request_start(start, all, self.protocol == 0) {
            RequestStart::Method(method) => {
                self.method = method as u8;
                if self.protocol == 0 {
                    self.keep_first(start, start.is_cut_line());
                    if !self.is_joined() {
                        self.joined_seq = self.response_next_seq;
                    }
                }
                // What was kept is a part of the method, and no other part of the line.
                self.request_progress = head::REQUEST;
                self.request_expects = expects::REQUEST_LINE;
                0
            }
            RequestStart::Partial => {
                self.request_start = start;
                self.request_start_len = all as u8;
                new
            }
            RequestStart::Blank(bytes) => bytes.saturating_sub(kept),
            RequestStart::ProxyLine => {
                self.request_flags |= Self::PROXIED;
                self.request_expects = expects::PROXY_LINE;
                0
            }
            RequestStart::Proxy(follows) => {
                self.request_flags |= Self::PROXIED;
                self.body_left = u64::from(follows);
                self.request_expects = expects::BODY;
                START_BYTES as u32 - kept
            }
            RequestStart::Tls => {
                *event = self.not_http();
                if self.protocol == Self::NOT_HTTP1 {
                    self.request_flags &= !Self::TOLD;
                    self.protocol = Self::TLS;
                    self.request_expects = expects::HELLO;
                    self.request_start = start;
                    self.request_progress = u64::from(at.wrapping_sub(kept));
                }
                len
            }
            RequestStart::NotHttp => {
                if self.protocol == 0 {
                    self.keep_first(start, all < TELLING_BYTES);
                }
                *event = self.not_http();
                len
            }
        }
    }

    /// Keeps the first bytes of a stream, which tell what it speaks where that is not
    /// HTTP/1; whether there are too few to tell.
    #[inline(always)]
    fn keep_first(&mut self, start: Start, is_short: bool) {
        self.request_start = start;
        if is_short {
            self.request_flags |= Self::SHORT;
        }
    }

    /// What follows cannot be had.
    #[inline(always)]
    fn unreadable(&mut self) -> RequestEvent {
        let expected = self.request_expects();
        self.request_expects = expects::LOST;
        self.request_flags |= Self::UNTRACKED;
        if expected != expects::REQUEST_LINE {
            RequestEvent::None
        } else if self.protocol == Self::HTTP1 || self.method != Method::Other as u8 {
            // Its method has to do where its version cannot be had.
            self.begin()
        } else {
            RequestEvent::Suspected
        }
    }

    #[inline(always)]
    fn not_http(&mut self) -> RequestEvent {
        self.request_expects = expects::LOST;
        if self.protocol == Self::HTTP1 {
            if !self.is_open() {
                return RequestEvent::Suspected;
            }
        } else if !self.is_amid_first() {
            // The rest of a body, or another protocol, the next turn tells.
            if self.protocol == 0 {
                self.request_flags |= Self::TOLD;
            }
            self.protocol = Self::NOT_HTTP1;
            self.requests = self.requests.wrapping_add(1);
        }
        RequestEvent::None
    }

    /// Too much within one segment.
    #[inline(always)]
    fn lose_track(&mut self) -> RequestEvent {
        let expected = self.request_expects();
        let event = self.unreadable();
        self.request_start_len = 0;
        if expected == expects::START {
            RequestEvent::Suspected
        } else {
            event
        }
    }

    #[inline(always)]
    fn read_head(
        &mut self,
        payload: &impl Payload,
        at: u32,
        len: u32,
        event: &mut RequestEvent,
    ) -> u32 {
        let progress = self.request_progress;
        let Some(read) = head::read(progress, payload, at, len, &mut self.request_scratch) else {
            *event = self.unreadable();
            return len;
        };
        self.request_progress = read.progress;
        let mut expected = self.request_expects();
        if expected == expects::REQUEST_LINE {
            match read.first_line() {
                FirstLine::UnderWay => {}
                FirstLine::Request => {
                    *event = self.begin();
                    expected = expects::FIELDS;
                    self.request_expects = expects::FIELDS;
                }
                FirstLine::Other => {
                    *event = self.not_http();
                    return len;
                }
            }
        }
        match read.found() {
            Found::Nothing => {}
            Found::Length => {
                self.request_progress = read.go_on();
                if expected == expects::FIELDS {
                    self.body_left = 0;
                    self.request_expects = expects::LENGTH;
                }
            }
            Found::End => self.request_expects = self.behind_head(expected, read),
        }
        read.bytes
    }

    /// Counts the request whose line has ended.
    #[inline(always)]
    fn begin(&mut self) -> RequestEvent {
        let pipelined = self.is_open();
        let first_pipelined = pipelined && !self.is_pipelined();
        if pipelined {
            self.request_flags |= Self::PIPELINED;
        }
        if self.protocol == 0 {
            self.request_flags |= Self::TOLD;
        }
        self.protocol = Self::HTTP1;
        self.body_left = 0;
        self.requests = self.requests.wrapping_add(1);
        if first_pipelined {
            RequestEvent::FirstPipelined
        } else {
            RequestEvent::Request
        }
    }

    /// What follows an empty line.
    #[inline(always)]
    fn behind_head(&mut self, expected: u8, read: Read) -> u8 {
        if expected == expects::TRAILER {
            expects::START
        } else if read.has_coding() {
            // RFC 9112, section 6.3: the last coding of a request is chunked.
            self.body_left = 0;
            expects::CHUNK_SIZE
        } else if self.body_left != 0 {
            expects::BODY
        } else {
            expects::START
        }
    }

    /// Passes a body over, or a chunk, and the end of its line: at once, but for what is
    /// farther than sequence numbers reach.
    #[inline(always)]
    fn read_body(&mut self) -> u32 {
        // Twice within one segment: what is sent again of it is to lie before where the
        // body is passed over to, and so less than half of all sequence numbers away.
        const REACH: u64 = 1 << 29;
        let left = self.body_left;
        if left > REACH {
            self.body_left = left - REACH;
            return REACH as u32;
        }
        self.body_left = 0;
        self.request_expects = if self.request_expects() == expects::CHUNK {
            expects::CHUNK_SIZE
        } else {
            expects::START
        };
        left as u32
    }

    /// Reads a number, or the rest of a line, of eight bytes at most.
    #[inline(always)]
    fn read_line(
        &mut self,
        payload: &impl Payload,
        at: u32,
        len: u32,
        event: &mut RequestEvent,
    ) -> u32 {
        let len = if len < 8 { len } else { 8 };
        let Some(start) = payload.start(at, len) else {
            *event = self.unreadable();
            return len;
        };
        let [word, _] = start.words();
        let expected = self.request_expects();
        if expected == expects::LENGTH {
            return self.read_length(word, len);
        }
        if expected == expects::CHUNK_SIZE {
            let digits = number::hexadecimal_digits(word);
            self.body_left = number::with_hexadecimal(self.body_left, word, digits);
            if digits < len {
                self.request_expects = expects::CHUNK_LINE;
            }
            return if digits < len { digits } else { len };
        }
        let end = number::line_end(word);
        if end >= len {
            return len;
        }
        self.request_expects = self.behind_line(expected);
        end + 1
    }

    /// Reads the digits of a length, behind blanks, and says how many bytes these are.
    #[inline(always)]
    fn read_length(&mut self, word: u64, len: u32) -> u32 {
        let blanks = number::blanks(word);
        if self.body_left == 0 && blanks != 0 {
            return blanks;
        }
        let digits = number::decimal_digits(word);
        self.body_left = number::with_decimal(self.body_left, word, digits);
        if digits >= len {
            return len;
        }
        self.request_expects = expects::FIELDS;
        digits
    }

    /// What follows a line that is no head's.
    #[inline(always)]
    fn behind_line(&mut self, expected: u8) -> u8 {
        if expected == expects::PROXY_LINE {
            expects::START
        } else if self.body_left == 0 {
            // The last chunk.
            self.request_progress = head::LINE;
            expects::TRAILER
        } else {
            // The line's end that follows it.
            self.body_left += 2;
            expects::CHUNK
        }
    }
}

#[inline(always)]
pub(super) const fn capped(len: u32) -> u32 {
    if len < START_BYTES as u32 {
        len
    } else {
        START_BYTES as u32
    }
}
