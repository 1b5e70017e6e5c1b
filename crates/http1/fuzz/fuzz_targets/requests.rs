//! A stream of requests: whole or split in two it means the same, and what is
//! passed on is understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use http1::HeadLimits;
use http1::body::Body;
use http1::forward::{Client, write_request};
use http1::request::{header_slots, parse_request};

const CLIENT: Client<'_> = Client {
    peer: "192.0.2.1",
    real_ip: "192.0.2.1",
    trusted: false,
    secure: false,
    host: "backend",
    keep_alive: true,
    real_ip_header: "X-Real-IP",
};

/// Heads as they are passed on with their bodies; `None` marks a refusal.
fn read(pieces: &[&[u8]]) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
    let limits = HeadLimits { head_bytes_max: 4096, headers_max: 64, connect: true };
    let (mut left, mut body, mut all) = (Vec::new(), None::<Body>, Vec::new());
    for piece in pieces {
        left.extend_from_slice(piece);
        while !left.is_empty() {
            if let Some(position) = &mut body {
                let mut out = Vec::new();
                let Ok(taken) = position.decode(&left, &mut out) else {
                    all.pop();
                    all.push(None);
                    return all;
                };
                left.drain(..taken);
                if let Some(Some((_, bytes))) = all.last_mut() {
                    bytes.extend(out);
                }
                if !position.is_done() {
                    break;
                }
                body = None;
                continue;
            }
            match parse_request(&left, &mut header_slots(), limits) {
                Ok(None) => break,
                Err(_) => {
                    all.push(None);
                    return all;
                }
                Ok(Some(head)) => {
                    let mut out = Vec::new();
                    write_request(&mut out, &head, &CLIENT);
                    body = Some(Body::new(head.framing));
                    all.push(Some((out, Vec::new())));
                    let bytes = head.head_bytes;
                    left.drain(..bytes);
                }
            }
        }
    }
    all
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (at, stream) = input;
    let whole = read(&[&stream]);
    let (first, second) = stream.split_at(usize::from(at) % (stream.len() + 1));
    assert_eq!(read(&[first, second]), whole);
    for (head, _) in whole.into_iter().flatten() {
        let limits = HeadLimits { connect: true, ..HeadLimits::default() };
        let mut slots = header_slots();
        let again = parse_request(&head, &mut slots, limits).expect("what is written is valid");
        assert_eq!(again.map(|again| again.head_bytes), Some(head.len()));
    }
});
