use proptest::prelude::*;

use super::*;

/// A socket whose streams both begin at sequence number 1000.
fn exchange() -> Exchange {
    Exchange {
        request_next_seq: 1000,
        response_next_seq: 1000,
        ..Exchange::default()
    }
}

/// Drives an exchange as the packet programs do, and sums what they count.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Counted {
    requests: Vec<&'static str>,
    responses: Vec<&'static str>,
    exchanges: u32,
    unparsed: u32,
    suspected: u32,
    pipelined: u32,
}

struct Wire {
    exchange: Exchange,
    seq: [u32; 2],
    now_ns: u64,
    counted: Counted,
}

impl Wire {
    fn new() -> Self {
        Self {
            exchange: exchange(),
            seq: [1000; 2],
            now_ns: 0,
            counted: Counted::default(),
        }
    }

    /// Sends payload as one segment.
    fn send(&mut self, direction: Direction, payload: &[u8]) {
        let seq = self.seq[direction as usize];
        self.segment(direction, seq, payload);
        self.seq[direction as usize] = seq.wrapping_add(payload.len() as u32);
    }

    /// A segment at any place of the stream; the kernel has all that was sent.
    fn segment(&mut self, direction: Direction, seq: u32, payload: &[u8]) {
        let kernel_next = self.seq[direction as usize];
        self.now_ns += 1000;
        let Some(seen) = self
            .exchange
            .admit(direction, seq, payload.len() as u32, || kernel_next)
        else {
            return;
        };
        self.payload(direction, &payload[seen as usize..]);
    }

    fn payload(&mut self, direction: Direction, payload: &[u8]) {
        let mut bytes = [0; START_BYTES];
        let len = payload.len().min(START_BYTES);
        bytes[..len].copy_from_slice(&payload[..len]);
        let (start, len) = (Start::new(&bytes), len as u32);
        let counted = &mut self.counted;
        match (self.exchange.interest(direction), direction) {
            (Interest::None, _) => {}
            (Interest::Turn, Direction::Request) => self.exchange.turn_to_server(self.now_ns),
            (Interest::Turn, Direction::Response) => {
                self.exchange.turn_to_client();
                counted.exchanges += 1;
            }
            (Interest::Start, Direction::Request) => {
                match self.exchange.on_request(start, len, self.now_ns) {
                    RequestEvent::None => {}
                    RequestEvent::Request {
                        method,
                        first_pipelined,
                    } => {
                        counted.requests.push(method.name());
                        counted.pipelined += u32::from(first_pipelined);
                    }
                    RequestEvent::Suspected => counted.suspected += 1,
                }
            }
            (Interest::Start, Direction::Response) => match self.exchange.on_response(start, len) {
                ResponseEvent::None => {}
                ResponseEvent::Interim(i) => {
                    counted.responses.push(CODE_NAMES[i]);
                    if let Some(end) = payload.windows(4).position(|w| w == b"\r\n\r\n") {
                        let rest = &payload[end + 4..];
                        if !rest.is_empty() {
                            self.payload(direction, rest);
                        }
                    }
                }
                ResponseEvent::Final(i, _) => counted.responses.push(CODE_NAMES[i]),
                ResponseEvent::Unparsed(_) => counted.unparsed += 1,
                ResponseEvent::Exchange => counted.exchanges += 1,
            },
        }
    }

    fn ask(&mut self, payload: &[u8]) -> &mut Self {
        self.send(Direction::Request, payload);
        self
    }

    fn answer(&mut self, payload: &[u8]) -> &mut Self {
        self.send(Direction::Response, payload);
        self
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn every_method_and_class_is_told_apart() {
    for method in Method::ALL {
        let name = if method == Method::Other {
            "PROPFIND"
        } else {
            method.name()
        };
        let mut wire = Wire::new();
        wire.ask(format!("{name} /x HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(wire.counted.requests, [method.name()]);
    }
    for (code, name) in [
        (200, "200"),
        (299, "2XX"),
        (404, "404"),
        (599, "5XX"),
        (302, "302"),
    ] {
        let mut wire = Wire::new();
        wire.ask(GET)
            .answer(format!("HTTP/1.0 {code} x\r\n\r\n").as_bytes());
        assert_eq!(wire.counted.responses, [name]);
    }
    assert_eq!(code_index(99), None);
    assert_eq!(code_index(600), None);
}

#[test]
fn names_stand_at_their_indices() {
    for code in 100..600u16 {
        let name = code_name(code_index(code).unwrap()).unwrap();
        assert!(name == code.to_string() || name == format!("{}XX", code / 100));
    }
    assert_eq!(code_name(CODES), None);
    for (i, method) in Method::ALL.into_iter().enumerate() {
        assert_eq!(method as usize, i);
    }
}

#[test]
fn bodies_that_look_like_messages_do_not_count() {
    let mut wire = Wire::new();
    wire.ask(b"POST / HTTP/1.1\r\n\r\n").ask(GET).ask(GET);
    wire.answer(OK).answer(b"HTTP/1.1 500 no\r\n\r\n");
    assert_eq!(wire.counted.requests, ["POST"]);
    assert_eq!(wire.counted.responses, ["200"]);
}

#[test]
fn interim_responses_do_not_end_an_exchange() {
    let mut wire = Wire::new();
    wire.ask(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n");
    wire.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
        .ask(b"GET is the body");
    wire.answer(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 201 Created\r\n\r\n");
    wire.ask(GET).answer(OK);
    assert_eq!(wire.counted.requests, ["PUT", "GET"]);
    assert_eq!(wire.counted.responses, ["100", "103", "201", "200"]);
}

#[test]
fn tunnels_have_no_exchanges() {
    for (request, response) in [
        (GET, b"HTTP/1.1 101 Switching Protocols\r\n\r\n".as_slice()),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let mut wire = Wire::new();
        wire.ask(request)
            .answer(response)
            .ask(GET)
            .answer(OK)
            .ask(GET);
        assert_eq!(wire.counted.requests.len(), 1);
        assert_eq!(wire.counted.responses.len(), 1);
    }
}

#[test]
fn other_protocols_give_exchanges_by_their_own_name() {
    for greeting in [
        b"\x16\x03\x01\x02\x00\x01".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\n",
        b"EHLO host\r\n",
    ] {
        let mut wire = Wire::new();
        wire.ask(greeting)
            .answer(b"\x16\x03\x03")
            .answer(b"x")
            .ask(b"GET / HTTP/1.1")
            .answer(OK);
        assert_eq!(
            wire.counted,
            Counted {
                exchanges: 2,
                ..Counted::default()
            },
            "{greeting:?}"
        );
    }
}

/// Where the level changes while a body is under way.
#[test]
fn what_is_joined_amid_a_body_is_judged_by_the_next_turn() {
    let join = |wire: &mut Wire| {
        let next = wire.seq[Direction::Request as usize];
        wire.exchange.begin_anew(1, next);
    };
    let mut upload = Wire::new();
    join(&mut upload);
    upload.ask(b"the rest").ask(b"of a body").answer(OK);
    assert_eq!(upload.counted, Counted::default());
    upload
        .ask(GET)
        .answer(OK)
        .ask(b"POST / HTTP/1.1\r\n\r\n")
        .ask(b"body")
        .answer(OK);
    assert_eq!(upload.counted.requests, ["GET", "POST"]);
    assert_eq!(upload.counted.responses, ["200", "200"]);

    let mut other = Wire::new();
    join(&mut other);
    other
        .ask(b"\x17\x03\x03")
        .ask(b"\x17\x03\x03")
        .answer(b"\x17\x03\x03");
    other
        .ask(b"\x17\x03\x03")
        .answer(b"\x17\x03\x03")
        .ask(b"x")
        .answer(b"y");
    let exchanges = Counted {
        exchanges: 2,
        ..Counted::default()
    };
    assert_eq!(other.counted, exchanges);
}

#[test]
fn repeated_and_reordered_segments_do_not_turn_the_stream() {
    let mut wire = Wire::new();
    wire.ask(GET).answer(OK);
    wire.segment(Direction::Request, 1000, GET);
    wire.segment(Direction::Response, 1000, OK);
    assert_eq!(
        wire.counted.requests.len(),
        1,
        "a retransmission of the first request"
    );
    // The second half of the next request overtakes the first one.
    let begin = wire.seq[0];
    wire.segment(Direction::Request, begin + 10, &GET[10..]);
    assert_eq!(wire.counted.requests.len(), 1, "behind a hole");
    wire.segment(Direction::Request, begin, &GET[..10]);
    wire.seq[0] = begin + GET.len() as u32;
    wire.answer(OK).ask(GET).answer(OK);
    assert_eq!(wire.counted.requests.len(), 3);
    assert_eq!(wire.counted.responses.len(), 3);
    // A retransmission that carries new payload behind what was seen.
    let begin = wire.seq[0] - 5;
    let mut overlap = GET[GET.len() - 5..].to_vec();
    overlap.extend_from_slice(GET);
    wire.segment(Direction::Request, begin, &overlap);
    assert_eq!(wire.counted.requests.len(), 4);
}

#[test]
fn pipelined_requests_are_counted_and_flagged_once() {
    let mut wire = Wire::new();
    wire.ask(GET)
        .ask(GET)
        .ask(GET)
        .answer(OK)
        .answer(OK)
        .answer(OK)
        .ask(GET)
        .answer(OK);
    assert_eq!(wire.counted.requests.len(), 4);
    assert_eq!(wire.counted.responses.len(), 4);
    assert_eq!(wire.counted.pipelined, 1);
    assert!(!wire.exchange.is_open());
}

#[test]
fn an_early_response_leaves_the_rest_of_the_body_suspected() {
    let mut wire = Wire::new();
    wire.ask(b"POST / HTTP/1.1\r\n\r\n")
        .answer(b"HTTP/1.1 413 no\r\n\r\n")
        .ask(b"body body");
    assert_eq!(wire.counted.suspected, 1);
    wire.ask(GET).answer(OK);
    assert_eq!(wire.counted.requests, ["POST", "GET"]);
    assert_eq!(wire.counted.responses, ["413", "200"]);
}

#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let mut wire = Wire::new();
    wire.ask(b"\r\n")
        .ask(b"\r\nGET / HTTP/1.1\r\n\r\n")
        .answer(OK);
    assert_eq!(wire.counted.requests, ["GET"]);
}

#[test]
fn an_answer_that_is_no_response_is_unparsed() {
    let mut wire = Wire::new();
    wire.ask(GET).answer(b"garbage").ask(GET).answer(OK);
    assert_eq!(wire.counted.unparsed, 1);
    assert_eq!(wire.counted.responses, ["200"]);
}

#[test]
fn sequence_numbers_wrap() {
    let mut wire = Wire::new();
    wire.exchange.request_next_seq = u32::MAX - 3;
    wire.seq[0] = u32::MAX - 3;
    wire.ask(GET).answer(OK).ask(GET).answer(OK);
    assert_eq!(wire.counted.requests.len(), 2);
}

fn message(request: bool, i: u8) -> Vec<u8> {
    let (methods, codes) = (
        ["GET", "POST", "DELETE", "PURGE", "OPTIONS"],
        [200, 204, 404, 503],
    );
    if request {
        format!(
            "{} /{i} HTTP/1.1\r\nHost: a\r\n\r\n",
            methods[usize::from(i) % 5]
        )
        .into_bytes()
    } else {
        format!(
            "HTTP/1.1 {} x\r\nA: b\r\n\r\nbody",
            codes[usize::from(i) % 4]
        )
        .into_bytes()
    }
}

proptest! {
    /// However the messages are cut into segments, the same is counted.
    #[test]
    fn any_split_gives_the_same_counts(
        messages in prop::collection::vec(any::<u8>(), 1..8),
        cuts in prop::collection::vec(1usize..20, 1..40),
    ) {
        let (mut whole, mut split) = (Wire::new(), Wire::new());
        let mut cuts = cuts.into_iter().cycle();
        for i in messages {
            for direction in [Direction::Request, Direction::Response] {
                let payload = message(direction == Direction::Request, i);
                whole.send(direction, &payload);
                let mut rest = payload.as_slice();
                while !rest.is_empty() {
                    let (segment, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                    split.send(direction, segment);
                    rest = after;
                }
            }
        }
        prop_assert_eq!(whole.counted, split.counted);
    }

    /// Hostile streams neither panic nor break the bookkeeping.
    #[test]
    fn any_bytes_are_taken(
        segments in prop::collection::vec(
            (any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..60),
    ) {
        let mut wire = Wire::new();
        for (request, seq, payload) in segments {
            let direction = if request { Direction::Request } else { Direction::Response };
            wire.segment(direction, seq % 4096, &payload);
            let open = wire.exchange.requests.wrapping_sub(wire.exchange.responses);
            prop_assert!(open <= wire.exchange.requests);
        }
    }
}

/// What [`other_method`] does eight bytes at once.
fn other_method_byte_by_byte(bytes: &[u8]) -> RequestStart {
    for (i, &byte) in bytes.iter().enumerate() {
        if byte == b' ' && i >= 3 {
            return match bytes.get(i + 1) {
                Some(b'/') => RequestStart::Method(Method::Other),
                None if i + 1 < START_BYTES => RequestStart::Partial,
                _ => RequestStart::NotHttp,
            };
        }
        if !byte.is_ascii_uppercase() && byte != b'-' && byte != b'_' {
            return RequestStart::NotHttp;
        }
    }
    if bytes.len() < START_BYTES {
        RequestStart::Partial
    } else {
        RequestStart::NotHttp
    }
}

proptest! {
    #[test]
    fn a_method_is_read_as_byte_by_byte(
        bytes in prop_oneof![
            "[A-Z_-]{0,15} ?/?[a-z@\\[`]{0,3}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..=START_BYTES),
            proptest::collection::vec(prop_oneof![b'?'..=b'a', Just(b' '), Just(b'/'), 0xc0..=0xdfu8], 0..=START_BYTES),
        ]
    ) {
        let len = bytes.len().min(START_BYTES);
        let mut padded = [0; START_BYTES];
        padded[..len].copy_from_slice(&bytes[..len]);
        let found = other_method(Start::new(&padded), len as u32);
        prop_assert_eq!(found, other_method_byte_by_byte(&bytes[..len]));
    }
}
