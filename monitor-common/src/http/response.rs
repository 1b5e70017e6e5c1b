//! Responses, at the turns of a stream.

use super::{
    Exchange, Method, Payload, Start, code_index,
    exchange::expects,
    head::{self, Found},
    place::{Parts, Place, forget},
    request::capped,
    start::{ResponseStart, join, response_start},
};

/// What was found in payload from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEvent {
    /// Nothing to count.
    None,
    /// An interim response, by [`code_index`]; the exchange goes on.
    Interim(usize),
    /// A final response, by [`code_index`], and whether its time counts: not
    /// where requests were pipelined, nor without a request.
    Final(usize, bool),
    /// Payload that is no response to an HTTP/1 request, and the same.
    Unparsed(bool),
    /// The answer within a stream that does not speak HTTP/1.
    Exchange,
}

impl Exchange {
    /// The stream turned towards the client, and does not speak HTTP/1.
    #[inline(always)]
    pub fn turn_to_client(&mut self) -> ResponseEvent {
        self.responses = self.requests;
        ResponseEvent::Exchange
    }

    /// Reads new payload from the server, from a place in its segment to another, up
    /// to the beginning of a final response, which it returns.
    #[inline(always)]
    pub fn read_responses(
        &mut self,
        payload: &impl Payload,
        at: u32,
        end: u32,
        mut on_interim: impl FnMut(usize),
        lose: impl FnOnce(),
    ) -> ResponseEvent {
        let mut place = Place::new(&mut self.response_scratch, at, end);
        let mut parts = Parts::new();
        while place.left() != 0 && parts.next(payload.parts()) {
            let bytes = if self.response_expects() == expects::FIELDS {
                self.read_fields(payload, place.at(), place.left())
            } else {
                let event = match payload.start(place.at(), place.left()) {
                    Some(start) => self.read_status(start, place.left()),
                    None => ResponseEvent::None,
                };
                match event {
                    ResponseEvent::Interim(index) => {
                        on_interim(index);
                        0
                    }
                    event => {
                        return event;
                    }
                }
            };
            place.go_on(&mut self.response_scratch, bytes);
        }
        if place.left() != 0 {
            self.response_expects = expects::LOST;
            lose();
        }
        ResponseEvent::None
    }

    /// Reads the first bytes of a segment from the server of which the others are gone.
    #[inline(always)]
    pub fn read_response_start(&mut self, start: Start, len: u32) -> ResponseEvent {
        if self.response_expects() == expects::FIELDS {
            // A response may begin in it.
            self.response_expects = expects::LOST;
            return ResponseEvent::None;
        }
        let event = self.read_status(start, len);
        if matches!(event, ResponseEvent::Interim(_)) {
            self.response_expects = expects::LOST;
        }
        event
    }

    /// Reads the rest of an interim head.
    #[inline(always)]
    fn read_fields(&mut self, payload: &impl Payload, at: u32, len: u32) -> u32 {
        let progress = self.response_progress;
        let Some(read) = head::read(progress, payload, at, len, &mut self.response_scratch) else {
            self.response_expects = expects::LOST;
            return len;
        };
        self.response_progress = read.progress;
        match read.found() {
            Found::Nothing => {}
            Found::Length => self.response_progress = read.go_on(),
            Found::End => self.response_expects = expects::START,
        }
        read.bytes
    }

    /// Read from memory each time, as `request_expects` is.
    #[inline(always)]
    fn response_expects(&self) -> u8 {
        // SAFETY: a reference is valid and aligned.
        unsafe { (&raw const self.response_expects).read_volatile() }
    }

    #[inline(always)]
    fn read_status(&mut self, start: Start, len: u32) -> ResponseEvent {
        let kept = u32::from(self.response_start_len) & 15;
        let (start, all) = join(kept, &self.response_start, start, capped(len));
        let all = forget(&mut self.response_scratch, all);
        self.response_start_len = 0;
        let found = match response_start(start, all) {
            ResponseStart::Code(code) => code_index(code).map(|index| (code, index)),
            ResponseStart::Partial => {
                self.response_start = start;
                self.response_start_len = all as u8;
                return ResponseEvent::None;
            }
            ResponseStart::NotHttp => None,
        };
        match found {
            Some((code, index)) if code < 200 && code != 101 => {
                // What was kept of it has no line's end.
                self.response_progress = head::AMID_LINE;
                self.response_expects = expects::FIELDS;
                ResponseEvent::Interim(index)
            }
            Some((code, index)) => {
                self.response_expects = expects::START;
                let tunnel = code == 101
                    || (self.method == Method::Connect as u8 && (200..300).contains(&code));
                if tunnel && self.is_open() {
                    self.response_flags |= Self::TUNNEL;
                }
                ResponseEvent::Final(index, self.answer())
            }
            // No response, where none was asked for; the rest of an interim head, or of a
            // pipelined response's body.
            None if !self.is_open()
                || self.response_expects() == expects::LOST
                || self.is_pipelined() =>
            {
                ResponseEvent::None
            }
            None => ResponseEvent::Unparsed(self.answer()),
        }
    }

    /// Takes the open request as answered, the oldest one where there are more,
    /// and says whether its time counts.
    #[inline(always)]
    fn answer(&mut self) -> bool {
        if !self.is_open() {
            return false;
        }
        if self.is_pipelined() {
            self.responses = self.responses.wrapping_add(1);
            return false;
        }
        self.responses = self.requests;
        true
    }
}
