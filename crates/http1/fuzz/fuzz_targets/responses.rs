//! A backend's answer: whatever it sends, positions stay within the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use http1::HeadLimits;
use http1::body::Body;
use http1::request::header_slots;
use http1::response::{RequestContext, parse_response};

fuzz_target!(|input: (bool, bool, Vec<u8>)| {
    let (head, upgrade, bytes) = input;
    let context = RequestContext { head, upgrade };
    let mut slots = header_slots();
    if let Ok(Some(parsed)) = parse_response(&bytes, &mut slots, HeadLimits::default(), context) {
        let rest = &bytes[parsed.head_bytes..];
        let (mut raw, mut decoded) = (Body::new(parsed.framing), Body::new(parsed.framing));
        let mut out = Vec::new();
        let taken = raw.consume(rest);
        assert_eq!(taken, decoded.decode(rest, &mut out));
        assert!(taken.is_err() || taken.is_ok_and(|taken| taken <= rest.len() && out.len() <= taken));
    }
});
