//! Properties of the core: how bytes are split never matters, nothing panics.

use proptest::prelude::*;

use super::HeadLimits;
use super::body::Body;
use super::forward::{Client, write_request};
use super::reject::Reject;
use super::request::{header_slots, parse_request};
use super::response::{RequestContext, parse_response};

const CLIENT: Client<'_> = Client {
    peer: "192.0.2.1",
    real_ip: "192.0.2.1",
    trusted: false,
    secure: false,
    host: "backend",
    keep_alive: true,
    real_ip_header: "X-Real-IP",
};

/// What a stream of requests means: each head as it is passed on with its body,
/// and how it ended.
#[derive(Debug, PartialEq)]
struct Meaning {
    requests: Vec<(Vec<u8>, Vec<u8>)>,
    refused: Option<Reject>,
    open: bool,
}

/// Reads `pieces` as a driver would: keeps what is not complete, looks again
/// when more has come.
fn read(pieces: &[&[u8]], limits: HeadLimits) -> Meaning {
    let mut meaning = Meaning {
        requests: Vec::new(),
        refused: None,
        open: false,
    };
    let (mut left, mut body): (Vec<u8>, Option<Body>) = (Vec::new(), None);
    for piece in pieces {
        left.extend_from_slice(piece);
        loop {
            if let Some(position) = &mut body {
                let mut out = Vec::new();
                let Ok(taken) = position.decode(&left, &mut out) else {
                    meaning.refused = Some(Reject::Chunk);
                    // How much of a bad body was read first is no meaning.
                    meaning.requests.pop();
                    return meaning;
                };
                left.drain(..taken);
                if let Some((_, all)) = meaning.requests.last_mut() {
                    all.extend(out);
                }
                if !position.is_done() {
                    break;
                }
                body = None;
            }
            if left.is_empty() {
                break;
            }
            let mut slots = header_slots();
            match parse_request(&left, &mut slots, limits) {
                Ok(None) => break,
                Ok(Some(head)) => {
                    let mut out = Vec::new();
                    write_request(&mut out, &head, &CLIENT);
                    let (framing, bytes) = (head.framing, head.head_bytes);
                    meaning.requests.push((out, Vec::new()));
                    body = Some(Body::new(framing));
                    left.drain(..bytes);
                }
                Err(reject) => {
                    meaning.refused = Some(reject);
                    return meaning;
                }
            }
        }
    }
    meaning.open = body.is_some() || !left.is_empty();
    meaning
}

/// Streams near the grammar: whole requests, some with a byte changed.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![
        Just("GET /a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        Just("\r\nGET http://h/a HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\nX: 1\r\n\r\n".to_owned()),
        Just("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n".to_owned()),
        "[a-z]{0,9}".prop_map(|body| format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )),
        ("[a-z]{1,9}", "(;[a-z=]{0,4})?").prop_map(|(body, extension)| format!(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}{extension}\r\n{body}\r\n0\r\nT: 1\r\n\r\n",
            body.len()
        )),
        "[ -~\r\n]{0,40}",
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (proptest::collection::vec(request, 1..5), changes).prop_map(|(requests, changes)| {
        let mut bytes = requests.concat().into_bytes();
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_split_of_a_stream_means_the_same(
        stream in streams(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        small: bool,
    ) {
        let limits = HeadLimits { head_bytes_max: if small { 48 } else { 4096 }, headers_max: 16, connect: true };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[start..cut]);
            start = cut;
        }
        let whole = read(&[&stream], limits);
        prop_assert_eq!(&read(&pieces, limits), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&read(&bytes, limits), &whole);
    }

    #[test]
    fn what_is_passed_on_is_understood_again(stream in streams()) {
        // A head that was written here must pass every check here.
        for (head, _) in read(&[&stream], HeadLimits::default()).requests {
            let again = parse_request(&head, &mut header_slots(), HeadLimits::default())
                .map(|parsed| parsed.map(|parsed| parsed.head_bytes));
            prop_assert_eq!(again, Ok(Some(head.len())));
        }
    }

    #[test]
    fn responses_of_any_bytes_do_no_harm(bytes: Vec<u8>, head: bool, upgrade: bool) {
        let context = RequestContext { head, upgrade };
        let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
        text.extend(&bytes);
        for input in [&bytes, &text] {
            if let Ok(Some(parsed)) =
                parse_response(input, &mut header_slots(), HeadLimits::default(), context)
            {
                prop_assert!(parsed.head_bytes <= input.len());
                let rest = &input[parsed.head_bytes..];
                let taken = Body::new(parsed.framing).consume(rest);
                prop_assert!(taken.is_err() || taken.is_ok_and(|taken| taken <= rest.len()));
            }
        }
    }
}
