//! A socket's two streams, as the packet programs see them.

use std::cell::{Cell, RefCell};

use super::super::*;
use crate::tls::{Beginning, Outcome, Side, Tls};

/// A segment's payload.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

thread_local! {
    pub(crate) static PARTS: Cell<u32> = const { Cell::new(1000) };
}

impl Payload for Bytes<'_> {
    fn parts(&self) -> u32 {
        PARTS.get()
    }

    fn start(&self, at: u32, len: u32) -> Option<Start> {
        let mut bytes = [0; START_BYTES];
        let len = (len as usize).min(START_BYTES);
        bytes[..len].copy_from_slice(&self.0[at as usize..][..len]);
        Some(Start::new(&bytes))
    }

    fn words(&self, at: u32, len: u32) -> Option<[u64; 8]> {
        let mut bytes = [0; 64];
        bytes[..len as usize].copy_from_slice(&self.0[at as usize..][..len as usize]);
        let mut words = bytes.chunks_exact(8);
        Some([0; 8].map(|_: u64| u64::from_le_bytes(words.next().unwrap().try_into().unwrap())))
    }
}

/// A socket whose streams both begin at sequence number 1000.
pub(crate) fn exchange() -> Exchange {
    Exchange {
        request_next_seq: 1000,
        response_next_seq: 1000,
        ..Exchange::default()
    }
}

/// Drives an exchange as the packet programs do, and sums what they count.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(crate) struct Counted {
    pub(crate) requests: Vec<&'static str>,
    pub(crate) responses: Vec<&'static str>,
    pub(crate) exchanges: u32,
    pub(crate) unparsed: u32,
    pub(crate) suspected: u32,
    pub(crate) pipelined: u32,
    pub(crate) passed_over: u32,
    pub(crate) tls_begun: u32,
    pub(crate) tls_ended: Vec<Outcome>,
    pub(crate) tls_took_ns: u64,
}

impl Counted {
    pub(crate) fn request(&mut self, event: RequestEvent, method: u8) {
        match event {
            RequestEvent::None => {}
            RequestEvent::Request | RequestEvent::FirstPipelined => {
                self.requests.push(Method::ALL[usize::from(method)].name());
                self.pipelined += u32::from(event == RequestEvent::FirstPipelined);
            }
            RequestEvent::Suspected => self.suspected += 1,
        }
    }

    pub(crate) fn response(&mut self, event: ResponseEvent) {
        match event {
            ResponseEvent::None => {}
            ResponseEvent::Interim(i) | ResponseEvent::Final(i, _) => {
                self.responses.push(CODE_NAMES[i]);
            }
            ResponseEvent::Unparsed(_) => self.unparsed += 1,
            ResponseEvent::Exchange => self.exchanges += 1,
        }
    }
}

pub(crate) struct Wire {
    pub(crate) exchange: Exchange,
    pub(crate) tls: Tls,
    pub(crate) seq: [u32; 2],
    pub(crate) now_ns: u64,
    pub(crate) counted: Counted,
    /// The direction whose segments may come in any order.
    pub(crate) receives: Direction,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            exchange: exchange(),
            tls: Tls::default(),
            seq: [1000; 2],
            now_ns: 0,
            counted: Counted::default(),
            receives: Direction::Request,
        }
    }

    /// Sends payload as one segment.
    pub(crate) fn send(&mut self, direction: Direction, payload: &[u8]) {
        let seq = self.seq[direction as usize];
        self.segment(direction, seq, payload);
        self.seq[direction as usize] = seq.wrapping_add(payload.len() as u32);
    }

    /// A segment at any place of the stream; the kernel has all that was sent.
    pub(crate) fn segment(&mut self, direction: Direction, seq: u32, payload: &[u8]) {
        let kernel_next = self.seq[direction as usize];
        self.receive(direction, seq, payload, kernel_next);
    }

    /// A segment, where the kernel expects another one.
    pub(crate) fn receive(
        &mut self,
        direction: Direction,
        seq: u32,
        payload: &[u8],
        kernel_next: u32,
    ) {
        self.now_ns += 1000;
        let len = payload.len() as u32;
        let counted = &mut self.counted;
        let lose = || counted.passed_over += 1;
        let seen = match self
            .exchange
            .admit(direction, seq, len, || kernel_next, lose)
        {
            Admitted::New(seen) => seen,
            Admitted::Behind if direction != self.receives => return,
            Admitted::Behind => {
                let start = Bytes(payload).start(0, len).unwrap();
                assert!(!self.exchange.hold(direction, seq, len, start));
                return;
            }
            Admitted::Seen => return,
        };
        let beyond = self.payload(direction, &Bytes(payload), seq, seen, len);
        let next = seq.wrapping_add(len).wrapping_add(beyond);
        self.exchange.go_on(direction, next);
        if direction == self.receives
            && let Some((len, start)) = self.exchange.release(direction)
        {
            self.held(direction, start, len);
            let next = self.exchange.held_seq.wrapping_add(len);
            self.exchange.go_on(direction, next);
        }
    }

    pub(crate) fn payload(
        &mut self,
        direction: Direction,
        payload: &Bytes,
        seq: u32,
        at: u32,
        end: u32,
    ) -> u32 {
        match direction {
            Direction::Request => self.request(payload, seq, at, end),
            Direction::Response => {
                self.response(payload, seq, at, end);
                0
            }
        }
    }

    /// What TCP would tell.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            ns: self.now_ns,
            response_seq: self.seq[Direction::Response as usize],
        }
    }

    pub(crate) fn held(&mut self, direction: Direction, start: Start, len: u32) {
        let now = self.moment();
        match direction {
            Direction::Request => match self.exchange.request_interest() {
                Interest::None => {}
                Interest::Turn => self.exchange.turn_to_server(now),
                Interest::Read => {
                    let event = self.exchange.read_request_start(start, len, || now);
                    self.counted.request(event, self.exchange.method);
                    self.begin_tls(self.exchange.held_seq);
                }
                Interest::Records => {
                    self.records(
                        direction,
                        &Beginning { start, len },
                        self.exchange.held_seq,
                        len,
                    );
                }
            },
            Direction::Response => {
                let event = match self.exchange.response_interest() {
                    Interest::None => return,
                    Interest::Turn => self.exchange.turn_to_client(),
                    Interest::Read => self.exchange.read_response_start(start, len),
                    Interest::Records => {
                        let payload = Beginning { start, len };
                        self.records(direction, &payload, self.exchange.held_seq, len);
                        return;
                    }
                };
                self.counted.response(event);
            }
        }
    }

    pub(crate) fn request(&mut self, payload: &Bytes, seq: u32, at: u32, end: u32) -> u32 {
        let now = self.moment();
        match self.exchange.request_interest() {
            Interest::None => {
                let start = || payload.start(at, end - at);
                let passes = self.exchange.may_pass_request(end - at, start);
                self.counted.suspected += u32::from(passes);
            }
            Interest::Turn => self.exchange.turn_to_server(now),
            Interest::Read => {
                let on = |event, method| self.counted.request(event, method);
                let beyond = self.exchange.read_requests(payload, at, end, || now, on);
                if self.begin_tls(seq) {
                    self.read_records(Side::Client, payload, seq, end);
                }
                return beyond;
            }
            Interest::Records => self.records(Direction::Request, payload, seq, end),
        }
        0
    }

    pub(crate) fn begin_tls(&mut self, seq: u32) -> bool {
        let begins = self.exchange.protocol == Exchange::TLS;
        if begins {
            self.tls.begin(&self.exchange, seq);
            self.counted.tls_begun += 1;
        }
        begins
    }

    pub(crate) fn records(
        &mut self,
        direction: Direction,
        payload: &impl Payload,
        seq: u32,
        len: u32,
    ) {
        match direction {
            Direction::Request => {
                if !self.exchange.is_open() {
                    self.exchange.turn_to_server(self.moment());
                }
                self.read_records(Side::Client, payload, seq, len);
            }
            Direction::Response => {
                if self.exchange.is_open() {
                    let event = self.exchange.turn_to_client();
                    self.counted.response(event);
                }
                self.read_records(Side::Server, payload, seq, len);
            }
        }
    }

    pub(crate) fn read_records(&mut self, side: Side, payload: &impl Payload, seq: u32, len: u32) {
        if let Some(outcome) = self.tls.read(side, payload, seq, len) {
            self.exchange.protocol = Exchange::NOT_HTTP1;
            self.counted.tls_ended.push(outcome);
            self.counted.tls_took_ns = self.now_ns - self.tls.began_ns;
        }
    }

    pub(crate) fn response(&mut self, payload: &Bytes, seq: u32, at: u32, end: u32) {
        let (interim, lost) = (RefCell::new(Vec::new()), Cell::new(0));
        let event = match self.exchange.response_interest() {
            Interest::None => {
                let start = || payload.start(at, end - at);
                let passes = self.exchange.passes_response(end - at, start);
                self.counted.passed_over += u32::from(passes);
                ResponseEvent::None
            }
            Interest::Turn => self.exchange.turn_to_client(),
            Interest::Records => {
                self.records(Direction::Response, payload, seq, end);
                return;
            }
            Interest::Read => self.exchange.read_responses(
                payload,
                at,
                end,
                |i| interim.borrow_mut().push(CODE_NAMES[i]),
                || lost.set(1),
            ),
        };
        self.counted.responses.extend(interim.into_inner());
        self.counted.passed_over += lost.get();
        self.counted.response(event);
    }

    pub(crate) fn ask(&mut self, payload: &[u8]) -> &mut Self {
        self.send(Direction::Request, payload);
        self
    }

    pub(crate) fn answer(&mut self, payload: &[u8]) -> &mut Self {
        self.send(Direction::Response, payload);
        self
    }
}
