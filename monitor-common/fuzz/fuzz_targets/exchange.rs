//! Two streams of segments: what is duplicated, sent ahead of its turn or probed
//! with changes nothing, and what is counted agrees with the socket's state.
//!
//! The input is a list of segments: a byte of flags, a byte of length, and the
//! payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor_common::{
    histogram,
    http::{CODES, Direction, Exchange, Interest, RequestEvent, ResponseEvent, START_BYTES, Start},
};

/// Towards the client; else towards the server.
const TO_CLIENT: u8 = 1;
/// Sent a second time.
const TWICE: u8 = 1 << 1;
/// Seen behind a hole before it is seen in its turn.
const AHEAD: u8 = 1 << 2;
/// A byte that was sent before is sent again, as a probe does.
const PROBE: u8 = 1 << 3;
/// Sent together with the eight bytes before it, as a retransmission may be.
const OVERLAP: u8 = 1 << 4;

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    requests: u32,
    answers: u32,
    interim: u32,
    exchanges: u32,
    unparsed: u32,
    suspected: u32,
}

/// A socket, and what its sides have sent.
struct Wire {
    exchange: Exchange,
    sent: [Vec<u8>; 2],
    now_ns: u64,
    counted: Counted,
}

/// Not far below 2^32, so that sequence numbers wrap.
const FIRST_SEQ: u32 = u32::MAX - 100;

impl Wire {
    fn new() -> Self {
        Self {
            exchange: Exchange {
                request_next_seq: FIRST_SEQ,
                response_next_seq: FIRST_SEQ,
                ..Exchange::default()
            },
            sent: [Vec::new(), Vec::new()],
            now_ns: 0,
            counted: Counted::default(),
        }
    }

    /// A segment at a place of the stream; TCP has `in_order` bytes of it.
    fn segment(&mut self, direction: Direction, place: usize, payload: &[u8], in_order: usize) {
        let seq = |place: usize| FIRST_SEQ.wrapping_add(place as u32);
        let len = payload.len() as u32;
        let next = || seq(in_order);
        if let Some(seen) = self.exchange.admit(direction, seq(place), len, next) {
            assert!(seen < len);
            self.payload(direction, &payload[seen as usize..]);
        }
    }

    fn payload(&mut self, direction: Direction, payload: &[u8]) {
        let mut bytes = [0; START_BYTES];
        let len = payload.len().min(START_BYTES);
        bytes[..len].copy_from_slice(&payload[..len]);
        let (start, len, now_ns) = (Start::new(&bytes), len as u32, self.now_ns);
        match (self.exchange.interest(direction), direction) {
            (Interest::None, _) => {}
            (Interest::Turn, Direction::Request) => self.exchange.turn_to_server(now_ns),
            (Interest::Turn, Direction::Response) => {
                let event = self.exchange.turn_to_client();
                self.response(event);
            }
            (Interest::Start, Direction::Request) => {
                match self.exchange.on_request(start, len, now_ns) {
                    RequestEvent::None => {}
                    RequestEvent::Request { .. } => self.counted.requests += 1,
                    RequestEvent::Suspected => self.counted.suspected += 1,
                }
            }
            (Interest::Start, Direction::Response) => {
                let event = self.exchange.on_response(start, len);
                self.response(event);
            }
        }
    }

    fn response(&mut self, event: ResponseEvent) {
        match event {
            ResponseEvent::None => {}
            ResponseEvent::Interim(code) => {
                assert!(code < CODES);
                self.counted.interim += 1;
            }
            ResponseEvent::Final(code, _) => {
                assert!(code < CODES);
                self.counted.answers += 1;
            }
            ResponseEvent::Unparsed(_) => self.counted.unparsed += 1,
            ResponseEvent::Exchange => self.counted.exchanges += 1,
        }
        let took_ns = self.exchange.took_ns(self.now_ns);
        assert!(took_ns <= self.now_ns);
        assert!(histogram::bucket(took_ns) < histogram::BUCKETS);
    }

    /// Sends payload, in order and once unless the flags say otherwise.
    fn send(&mut self, flags: u8, payload: &[u8]) {
        self.now_ns += 1_000;
        let direction = if flags & TO_CLIENT == 0 {
            Direction::Request
        } else {
            Direction::Response
        };
        let side = usize::from(flags & TO_CLIENT);
        let place = self.sent[side].len();
        if flags & AHEAD != 0 {
            self.segment(direction, place + 1, payload, place);
        }
        if flags & PROBE != 0 && place > 0 {
            self.segment(direction, place - 1, &[b'G'], place);
        }
        self.sent[side].extend_from_slice(payload);
        let begin = if flags & OVERLAP != 0 {
            place.saturating_sub(8)
        } else {
            place
        };
        let segment = self.sent[side][begin..].to_vec();
        self.segment(direction, begin, &segment, place);
        if flags & TWICE != 0 {
            self.segment(direction, place, payload, place + payload.len());
        }
        self.check();
    }

    fn check(&self) {
        let Exchange {
            requests,
            responses,
            ..
        } = self.exchange;
        assert!(responses <= requests, "more was answered than asked");
        let Counted {
            requests: counted,
            answers,
            exchanges,
            unparsed,
            ..
        } = self.counted;
        assert!(answers + exchanges + unparsed <= requests);
        if self.exchange.protocol == Exchange::HTTP1 {
            assert_eq!(requests, counted);
            assert_eq!(exchanges, 0);
        } else {
            assert_eq!((counted, answers), (0, 0));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut plain, mut disturbed) = (Wire::new(), Wire::new());
    let mut left = data;
    while let [flags, len, rest @ ..] = left {
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        left = rest;
        if payload.is_empty() {
            continue;
        }
        plain.send(flags & TO_CLIENT, payload);
        disturbed.send(*flags, payload);
    }
    assert_eq!(plain.counted, disturbed.counted);
    assert_eq!(plain.exchange, disturbed.exchange);
});
