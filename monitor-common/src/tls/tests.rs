use proptest::prelude::*;

use super::{kind::*, *};
use crate::http::{Direction, tests::Wire};

use Direction::{Request, Response};

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [&[kind, 3, 3, len[0], len[1]], body].concat()
}

/// A handshake message of so many bytes in all.
fn message(kind: u8, len: usize) -> Vec<u8> {
    let of = (len as u32 - 4).to_be_bytes();
    let mut message = vec![kind, of[1], of[2], of[3]];
    message.resize(len, 0x5a);
    record(HANDSHAKE, &message)
}

/// What nobody can read.
fn sealed(kind: u8, len: usize) -> Vec<u8> {
    record(kind, &vec![0xa7; len])
}

fn cipher() -> Vec<u8> {
    record(CHANGE_CIPHER_SPEC, &[1])
}

fn client_hello() -> Vec<u8> {
    let mut hello = message(CLIENT_HELLO, 517);
    hello[2] = 1;
    hello
}

type Flight = (Direction, Vec<u8>);

fn flight(direction: Direction, records: &[Vec<u8>]) -> Flight {
    (direction, records.concat())
}

/// Up to TLS 1.2, all but what the client sends when it is complete.
fn full() -> Vec<Flight> {
    vec![
        flight(Request, &[client_hello()]),
        flight(
            Response,
            &[
                message(SERVER_HELLO, 90),
                message(11, 3000),
                message(12, 300),
                message(14, 4),
            ],
        ),
        flight(Request, &[message(16, 70), cipher(), sealed(HANDSHAKE, 40)]),
        flight(
            Response,
            &[message(4, 200), cipher(), sealed(HANDSHAKE, 40)],
        ),
    ]
}

/// The same with a session that both know.
fn resumed() -> Vec<Flight> {
    vec![
        flight(Request, &[client_hello()]),
        flight(
            Response,
            &[message(SERVER_HELLO, 90), cipher(), sealed(HANDSHAKE, 32)],
        ),
        flight(Request, &[cipher(), sealed(HANDSHAKE, 32)]),
    ]
}

/// TLS 1.3, up to the client's Finished.
fn newest() -> Vec<Flight> {
    vec![
        flight(Request, &[client_hello()]),
        flight(
            Response,
            &[
                message(SERVER_HELLO, 122),
                cipher(),
                sealed(APPLICATION_DATA, 23),
                sealed(APPLICATION_DATA, 2500),
                sealed(APPLICATION_DATA, 281),
                sealed(APPLICATION_DATA, 69),
            ],
        ),
        flight(Request, &[cipher(), sealed(APPLICATION_DATA, 69)]),
    ]
}

/// The same where the server asks for another hello.
fn retried() -> Vec<Flight> {
    let mut flights = newest();
    flights.splice(
        1..1,
        [
            flight(Response, &[message(SERVER_HELLO, 88), cipher()]),
            flight(Request, &[cipher(), message(CLIENT_HELLO, 512)]),
        ],
    );
    flights
}

fn all() -> [Vec<Flight>; 4] {
    [full(), resumed(), newest(), retried()]
}

/// Sends each flight in segments of so many bytes.
fn play(flights: &[Flight], mut cut: impl FnMut() -> usize) -> Wire {
    let mut wire = Wire::new();
    for (direction, flight) in flights {
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            let (segment, after) = rest.split_at(cut().clamp(1, rest.len()));
            wire.send(*direction, segment);
            rest = after;
        }
    }
    wire
}

fn ended(wire: &Wire) -> (u32, &[Outcome]) {
    (wire.counted.tls_begun, &wire.counted.tls_ended)
}

#[test]
fn a_handshake_is_complete_with_its_last_flight_however_it_is_cut() {
    for (which, flights) in all().into_iter().enumerate() {
        for cut in [1, 2, 3, 4, 5, 6, 7, 9, 100, 1448, usize::MAX] {
            let before = play(&flights[..flights.len() - 1], || cut);
            assert_eq!(ended(&before), (1, [].as_slice()), "{which} {cut}");
            let wire = play(&flights, || cut);
            assert_eq!(
                ended(&wire),
                (1, [Outcome::Completed].as_slice()),
                "{which} {cut}"
            );
            assert_eq!(wire.exchange.protocol, Exchange::NOT_HTTP1);
            assert_eq!(wire.counted.passed_over, 0);
        }
    }
}

#[test]
fn a_hello_that_is_cut_at_any_byte_begins_once() {
    let hello = client_hello();
    for at in 1..hello.len() {
        let mut wire = Wire::new();
        wire.send(Request, &hello[..at]);
        assert_eq!(wire.counted.tls_begun, u32::from(at >= 6), "{at}");
        wire.send(Request, &hello[at..]);
        wire.send(Response, &record(ALERT, &[2, 40]));
        assert_eq!(ended(&wire), (1, [Outcome::Alert].as_slice()), "{at}");
        // From its first byte on, which was seen first.
        assert_eq!(wire.counted.tls_took_ns, 2000, "{at}");
        assert_eq!(wire.counted.exchanges, 1, "{at}");
    }
}

#[test]
fn what_is_no_hello_begins_nothing() {
    let hello = client_hello();
    for (at, byte) in [(0, 23), (0, 21), (1, 2), (2, 5), (5, 2), (5, 0)] {
        let mut other = hello.clone();
        other[at] = byte;
        for cut in [1, 3, 1448] {
            let wire = play(&[(Request, other.clone())], || cut);
            assert_eq!(ended(&wire), (0, [].as_slice()), "{at} {byte} {cut}");
        }
    }
    for length in [[0, 0], [0xff, 0xff]] {
        let mut other = hello.clone();
        other[3..5].copy_from_slice(&length);
        assert_eq!(play(&[(Request, other)], || 1448).counted.tls_begun, 0);
    }
}

#[test]
fn alerts_end_a_handshake_and_warnings_do_not() {
    let first = newest()[..2].to_vec();
    for (direction, records, outcome) in [
        (Request, vec![record(ALERT, &[2, 48])], Some(Outcome::Alert)),
        (
            Response,
            vec![record(ALERT, &[2, 80])],
            Some(Outcome::Alert),
        ),
        // close_notify.
        (Request, vec![record(ALERT, &[1, 0])], Some(Outcome::Alert)),
        // unrecognized_name, and what follows it.
        (Response, vec![record(ALERT, &[1, 112])], None),
        (
            Request,
            vec![cipher(), sealed(APPLICATION_DATA, 19)],
            Some(Outcome::Alert),
        ),
        (
            Request,
            vec![cipher(), sealed(APPLICATION_DATA, 11)],
            Some(Outcome::Alert),
        ),
        (
            Response,
            vec![sealed(APPLICATION_DATA, 19)],
            Some(Outcome::Alert),
        ),
        // The shortest Finished there is.
        (
            Request,
            vec![cipher(), sealed(APPLICATION_DATA, 45)],
            Some(Outcome::Completed),
        ),
        // An alert behind Finished, in one segment, comes too late.
        (
            Request,
            vec![
                cipher(),
                sealed(APPLICATION_DATA, 53),
                sealed(APPLICATION_DATA, 19),
            ],
            Some(Outcome::Completed),
        ),
    ] {
        let mut flights = first.clone();
        flights.push((direction, records.concat()));
        for cut in [1, 5, 1448] {
            let wire = play(&flights, || cut);
            assert_eq!(
                wire.counted.tls_ended,
                outcome.into_iter().collect::<Vec<_>>()
            );
        }
    }
    // Sealed by the keys of TLS 1.2, before the other side's Finished.
    let mut flights = full()[..3].to_vec();
    flights.push(flight(Response, &[cipher(), sealed(ALERT, 26)]));
    assert_eq!(play(&flights, || 1448).counted.tls_ended, [Outcome::Alert]);
    // And behind it.
    let mut flights = resumed();
    flights[2].1.extend(sealed(ALERT, 26));
    assert_eq!(
        play(&flights, || 1448).counted.tls_ended,
        [Outcome::Completed]
    );
}

#[test]
fn data_before_the_server_has_answered_completes_nothing() {
    let mut flights = newest();
    flights[0]
        .1
        .extend([cipher(), sealed(APPLICATION_DATA, 400)].concat());
    let before = play(&flights[..2], || 1448);
    assert_eq!(ended(&before), (1, [].as_slice()));
    assert_eq!(play(&flights, || 7).counted.tls_ended, [Outcome::Completed]);
}

#[test]
fn what_answers_without_tls_is_an_end() {
    let plain = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec();
    let wire = play(&[(Request, client_hello()), (Response, plain)], || 1448);
    assert_eq!(ended(&wire), (1, [].as_slice()));
    let [client, server] = wire.tls.flags();
    assert_eq!(outcome_at_end(client, server), Outcome::End);
}

#[test]
fn a_hole_that_holds_no_head_is_none() {
    // The rest of the hello comes before its beginning's second half.
    let hello = client_hello();
    let mut wire = Wire::new();
    wire.send(Request, &hello[..100]);
    let seq = wire.seq[0];
    wire.segment(Request, seq + 100, &hello[200..]);
    wire.segment(Request, seq, &hello[100..200]);
    wire.seq[0] = seq + hello.len() as u32 - 100;
    for (direction, flight) in &newest()[1..] {
        wire.send(*direction, flight);
    }
    assert_eq!(ended(&wire), (1, [Outcome::Completed].as_slice()));
}

#[test]
fn heads_that_pass_unseen_leave_it_unknown() {
    let flights = newest();
    for (unseen, outcome) in [(2, Outcome::Unknown), (1, Outcome::Completed)] {
        let mut wire = Wire::new();
        for (i, (direction, flight)) in flights.iter().enumerate() {
            if i == unseen {
                wire.seq[*direction as usize] += flight.len() as u32;
                wire.receives = *direction;
            } else {
                wire.send(*direction, flight);
            }
        }
        wire.send(Response, &sealed(APPLICATION_DATA, 200));
        wire.send(Request, &sealed(APPLICATION_DATA, 300));
        assert_eq!(wire.counted.tls_ended, [outcome]);
        assert_eq!(wire.counted.passed_over, 0);
    }
    // Nor does anybody know what the server said before the end.
    let mut wire = Wire::new();
    wire.send(Request, &flights[0].1);
    wire.seq[1] += 50;
    wire.receives = Response;
    wire.send(Response, &flights[1].1);
    let [client, server] = wire.tls.flags();
    assert_eq!(outcome_at_end(client, server), Outcome::Unknown);
}

#[test]
fn what_comes_with_the_end_of_a_handshake_is_read_by_its_beginning() {
    let hello = client_hello();
    let start = |bytes: &[u8]| {
        let mut start = [0; START_BYTES];
        let len = bytes.len().min(START_BYTES);
        start[..len].copy_from_slice(&bytes[..len]);
        Beginning {
            start: Start::new(&start),
            len: bytes.len() as u32,
        }
    };
    let beginning = start(&hello);
    assert_eq!(super::hello(beginning.start, beginning.len), Hello::Yes);
    let other = Walk::default();
    let mut walk = Walk::at(1000 + HEAD + length(beginning.start));
    walk.read(Side::Client, &beginning, 1000, beginning.len, &other);
    assert_eq!((walk.flags, walk.next_seq), (0, 1000 + hello.len() as u32));
    // A record behind it that cannot be seen.
    let longer = start(&[hello, cipher()].concat());
    walk.read(Side::Client, &longer, 1000, longer.len, &other);
    assert_eq!(walk.flags, flag::LOST);
    // One that lies within the first bytes.
    let mut walk = Walk::at(1003);
    let short = start(&[&[0; 3], cipher().as_slice(), &sealed(HANDSHAKE, 40)[..7]].concat());
    walk.read(Side::Client, &short, 1000, short.len, &other);
    assert_eq!(
        (walk.flags, walk.next_seq, walk.kept),
        (flag::CIPHER, 1009, 7)
    );
}

#[test]
fn more_records_than_are_looked_at_leave_it_unknown() {
    let records = |n| {
        play(
            &[
                (Request, client_hello()),
                (Response, vec![message(14, 4); n].concat()),
            ],
            || 9999,
        )
    };
    assert_eq!(records(RECORDS as usize).tls.flags()[1], flag::HANDSHAKE);
    assert_eq!(
        records(RECORDS as usize + 1).tls.flags()[1],
        flag::HANDSHAKE | flag::LOST
    );
}

proptest! {
    /// However flights are cut, sent again and reordered by one segment that holds no head.
    #[test]
    fn a_handshake_ends_once(
        which in 0usize..4,
        cuts in prop::collection::vec(1usize..900, 1..20),
        alert in any::<Option<bool>>(),
        tail in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut flights = all()[which].clone();
        let mut expected = Outcome::Completed;
        if let Some(by_client) = alert {
            flights.pop();
            let direction = if by_client { Request } else { Response };
            flights.push(flight(direction, &[record(ALERT, &[2, 42])]));
            expected = Outcome::Alert;
        }
        flights.push((Request, tail.clone()));
        flights.push((Response, tail));
        let mut cuts = cuts.into_iter().cycle();
        let wire = play(&flights, || cuts.next().unwrap());
        prop_assert_eq!(wire.counted.tls_begun, 1);
        prop_assert_eq!(wire.counted.tls_ended, [expected]);
    }

    #[test]
    fn any_bytes_are_taken(
        segments in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..80)), 0..20),
    ) {
        let mut flights = vec![(Request, client_hello())];
        flights.extend(segments.into_iter().map(|(of_client, bytes)| {
            (if of_client { Request } else { Response }, bytes)
        }));
        let wire = play(&flights, || 50);
        prop_assert!(wire.counted.tls_begun == 1 && wire.counted.tls_ended.len() <= 1);
    }
}
