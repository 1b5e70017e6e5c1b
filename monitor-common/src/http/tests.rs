use proptest::prelude::*;

use super::*;

mod long_heads;
mod wire;

pub(crate) use self::wire::{Bytes, Counted, PARTS, Wire, exchange};

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
    wire.ask(b"POST / HTTP/1.1\r\nContent-Length: 54\r\n\r\n");
    wire.ask(GET)
        .ask(GET)
        .answer(OK)
        .answer(b"HTTP/1.1 500 no\r\n\r\n");
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
                tls_begun: u32::from(greeting[0] == 0x16),
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
        wire.exchange
            .begin_anew(1, next, wire.seq[Direction::Response as usize]);
    };
    let mut upload = Wire::new();
    join(&mut upload);
    upload.ask(b"the rest").ask(b"of a body").answer(OK);
    assert_eq!(upload.counted, Counted::default());
    upload
        .ask(GET)
        .answer(OK)
        .ask(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
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
fn an_early_response_hides_no_request() {
    let mut wire = Wire::new();
    wire.ask(b"POST / HTTP/1.1\r\ncontent-length:  30\r\n\r\n0123456789")
        .answer(b"HTTP/1.1 413 no\r\n\r\n")
        .ask(b"0123456789")
        .ask(&[b"0123456789", GET].concat())
        .answer(OK);
    assert_eq!(wire.counted.requests, ["POST", "GET"]);
    assert_eq!(wire.counted.responses, ["413", "200"]);
    let odd = (wire.counted.suspected, wire.counted.pipelined);
    assert_eq!(odd, (0, 0));
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

#[test]
fn what_is_no_http_is_no_request() {
    for line in [
        "CONNECT {\"verbose\":false}\r\n",
        "GET key\r\n",
        "OPTIONS rtsp://host/a RTSP/1.0\r\n",
        "OPTIONS sip:a@host SIP/2.0\r\n",
        "OPTIONS icap://host/a ICAP/1.0\r\n",
        "POST\r\n",
        "GET / HTTP/2.0\r\n",
    ] {
        let mut wire = Wire::new();
        wire.ask(line.as_bytes()).answer(b"+OK\r\n");
        assert_eq!(
            (wire.counted.requests.len(), wire.counted.exchanges),
            (0, 1),
            "{line}"
        );
    }
}

#[test]
fn any_method_makes_a_request() {
    for line in [
        "PURGE http://a/b",
        "PROPFIND http://a/b",
        "VERSION-CONTROL /a",
        "BASELINE-CONTROL /a",
        "M-SEARCH *",
        "get /a",
        "X1 /a",
        "\r\n\r\n\r\nA /b",
    ] {
        let mut wire = Wire::new();
        wire.ask(format!("{line} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(wire.counted.requests, ["_OTHER"], "{line}");
    }
}

#[test]
fn the_proxy_protocol_is_passed_over() {
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n".as_slice();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([b'G'; 12]);
    for header in [v1, &v2] {
        for cut in 1..header.len() + 2 {
            let mut wire = Wire::new();
            let all = [header, GET].concat();
            wire.ask(&all[..cut])
                .ask(&all[cut..])
                .answer(OK)
                .ask(GET)
                .answer(OK);
            assert_eq!(wire.counted.requests, ["GET", "GET"], "{cut}");
            assert_eq!(wire.counted.responses, ["200", "200"]);
        }
    }
}

#[test]
fn a_response_without_a_request_counts() {
    const TIMEOUT: &[u8] = b"HTTP/1.0 408 Request Time-out\r\n\r\n";
    for begun in [b"".as_slice(), b"G", b"GET / HT"] {
        let mut wire = Wire::new();
        wire.ask(begun).answer(TIMEOUT);
        assert_eq!(
            (wire.counted.requests.len(), &wire.counted.responses[..]),
            (0, &["408"][..])
        );
    }
    let mut wire = Wire::new();
    wire.ask(GET).answer(OK).ask(b"GET /slow").answer(TIMEOUT);
    assert_eq!(wire.counted.responses, ["200", "408"]);
}

/// As many as 2 GiB pass unseen in one direction alone.
#[test]
fn a_level_changes_after_any_number_of_bytes() {
    let mut wire = Wire::new();
    wire.ask(GET).answer(OK);
    wire.seq[1] = wire.seq[1].wrapping_add(3 << 30);
    wire.exchange.begin_anew(1, wire.seq[0], wire.seq[1]);
    wire.ask(GET).answer(OK);
    assert_eq!(wire.counted.requests.len(), 2);
    assert_eq!(wire.counted.responses.len(), 2);
}

/// The final response comes before the interim one that was lost.
#[test]
fn a_final_response_waits_for_the_interim_one() {
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for cut in [0, 3, HINTS.len()] {
        let mut wire = Wire::new();
        wire.receives = Direction::Response;
        wire.ask(GET);
        let all = [HINTS, OK].concat();
        let (first, rest) = all.split_at(if cut == HINTS.len() {
            cut
        } else {
            HINTS.len() + cut
        });
        let begin = wire.seq[1];
        wire.receive(Direction::Response, begin + first.len() as u32, rest, begin);
        wire.receive(Direction::Response, begin, first, begin);
        wire.seq[1] = begin + all.len() as u32;
        wire.ask(GET).answer(OK);
        assert_eq!(wire.counted.responses, ["103", "200", "200"]);
        assert_eq!((wire.counted.pipelined, wire.counted.passed_over), (0, 0));
    }
}

/// All but the first segment of a response come behind a hole, and more of them than
/// are kept.
#[test]
fn a_body_in_any_order_is_no_hole() {
    let mut wire = Wire::new();
    wire.receives = Direction::Response;
    wire.ask(GET);
    let begin = wire.seq[1];
    let body = [b'x'; 30];
    let first = OK.len() as u32;
    for i in 0..4 {
        let seq = begin + first + 30 * i;
        wire.receive(Direction::Response, seq, &body, begin);
    }
    wire.receive(Direction::Response, begin, OK, begin);
    wire.seq[1] = begin + first + 120;
    wire.ask(GET).answer(OK).ask(GET).answer(OK);
    assert_eq!(wire.counted.responses, ["200"; 3]);
    assert_eq!((wire.counted.pipelined, wire.counted.passed_over), (0, 0));
}

/// A body of more bytes than half of all sequence numbers is under way.
#[test]
fn a_retransmission_before_a_long_body_moves_nothing() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5000000000\r\n\r\nabc";
    let mut wire = Wire::new();
    wire.receives = Direction::Response;
    wire.ask(HEAD);
    let before = wire.exchange;
    for sent_again in [0, 10, HEAD.len() - 1] {
        // Of what is sent, TCP takes any place.
        let seq = 1000 + sent_again as u32;
        wire.receive(Direction::Request, seq, &HEAD[sent_again..], seq);
        assert_eq!(wire.exchange, before, "{sent_again}");
    }
    let segment = vec![b'x'; 1 << 20];
    let mut left = 5_000_000_000 - 3;
    while left != 0 {
        let len = segment.len().min(left);
        wire.ask(&segment[..len]);
        left -= len;
    }
    wire.answer(OK).ask(GET).answer(OK);
    assert_eq!(wire.counted.requests, ["POST", "GET"]);
    assert_eq!(wire.counted.responses, ["200", "200"]);
}

/// Two segments are looked at on two CPUs at once.
#[test]
fn a_segment_waits_until_the_one_before_it_was_read() {
    let mut exchange = exchange();
    let direction = Direction::Request;
    let nothing_lost = || panic!("nothing was passed over");
    let first = exchange.admit(direction, 1000, 10, || 1000, nothing_lost);
    assert_eq!(first, Admitted::New(0));
    let second = exchange.admit(direction, 1010, 10, || 1000, nothing_lost);
    assert_eq!(second, Admitted::Behind);
    // The first one was read before the second one was kept.
    exchange.go_on(direction, 1010);
    assert!(exchange.hold(direction, 1010, 10, Start::default()));
    assert_eq!(exchange.release(direction), None);
}

/// The kernel has what nobody saw.
#[test]
fn what_is_passed_over_is_told() {
    for direction in [Direction::Request, Direction::Response] {
        let mut wire = Wire::new();
        wire.receives = direction;
        wire.ask(GET).answer(OK).ask(GET);
        if direction == Direction::Request {
            wire.answer(OK);
        }
        let message = if direction == Direction::Request {
            GET
        } else {
            OK
        };
        let next = wire.seq[direction as usize] + message.len() as u32;
        wire.receive(direction, next, message, next);
        assert_eq!(wire.counted.passed_over, 1, "{direction:?}");
    }
}

/// A request of any method with any kind of body, which looks like requests.
fn framed(i: u8) -> Vec<u8> {
    let method = ["GET", "POST", "PUT", "DELETE", "PURGE"][usize::from(i) % 5];
    let body = GET.repeat(usize::from(i) % 4);
    let mut message = format!("{method} /{i} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    match i / 5 % 3 {
        0 => message.extend(b"\r\n"),
        1 => {
            message.extend(format!("Content-Length:{}\r\n\r\n", body.len()).bytes());
            message.extend(body);
        }
        _ => {
            message.extend(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(11) {
                message.extend(format!("{:X};a=b\r\n", chunk.len()).bytes());
                message.extend(chunk);
                message.extend(b"\r\n");
            }
            message.extend(b"0\r\nContent-Length: 7\r\n\r\n");
        }
    }
    message
}

proptest! {
    /// However requests are cut, pipelined or answered early, each counts once.
    #[test]
    fn requests_are_found_where_they_begin(
        messages in prop::collection::vec(any::<u8>(), 1..12),
        cuts in prop::collection::vec(1usize..150, 1..40),
        answers in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|&i| framed(i)).collect();
        let mut wire = Wire::new();
        let (mut cuts, mut answers) = (cuts.into_iter().cycle(), answers.into_iter().cycle());
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let (segment, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            wire.ask(segment);
            rest = after;
            let expected = wire.exchange.request_expects;
            let in_head = matches!(expected, expects::FIELDS | expects::LENGTH);
            if answers.next().unwrap() && wire.exchange.is_open() && !in_head {
                wire.answer(OK);
            }
        }
        prop_assert_eq!(wire.counted.requests.len(), messages.len());
        prop_assert_eq!(wire.counted.suspected, 0);
    }
}
