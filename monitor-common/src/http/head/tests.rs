use proptest::prelude::*;

use super::*;
use crate::http::tests::Bytes;

/// What [`read`] finds, as the text has it.
fn expected(head: &[u8]) -> (Found, usize, FirstLine) {
    let lower = head.to_ascii_lowercase();
    let find = |text: &[u8]| {
        let at = lower.windows(text.len()).position(|w| w == text);
        at.map(|at| at + text.len())
    };
    let (found, at) = match (find(LENGTH_TEXT), find(END_TEXT)) {
        (Some(length), end) if end.is_none_or(|end| length < end) => (Found::Length, length),
        (_, Some(end)) => (Found::End, end),
        _ => (Found::Nothing, head.len()),
    };
    (found, at, first_line(&head[..at]))
}

fn first_line(head: &[u8]) -> FirstLine {
    let Some(end) = head.iter().position(|&b| b == b'\n') else {
        return FirstLine::UnderWay;
    };
    let version = |at: usize| {
        head[at..].starts_with(VERSION_TEXT)
            && head[at + 8].is_ascii_digit()
            && matches!(head[at + 9], b'\r' | b'\n')
    };
    if (0..end.saturating_sub(8)).any(version) {
        FirstLine::Request
    } else {
        FirstLine::Other
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n\r\n".to_owned()),
        Just("\r\nContent-Length:".to_owned()),
        Just("\ncontent-LENGTH: 5".to_owned()),
        Just("\r\nTransfer-Encoding: chunked".to_owned()),
        Just(" HTTP/1.1\r\n".to_owned()),
        Just(" HTTP/1.0".to_owned()),
        Just(" RTSP/1.0\r\n".to_owned()),
        "[ -~]{0,12}",
        "[a-zA-Z: -]{0,40}",
    ]
}

proptest! {
    /// However a head is cut, the same is found at the same place.
    #[test]
    fn a_head_is_read_as_its_text(
        pieces in prop::collection::vec(piece(), 1..12),
        cuts in prop::collection::vec(1usize..90, 1..40),
    ) {
        let text = pieces.concat();
        let head = text.as_bytes();
        let (mut progress, mut place, mut limit) = (REQUEST, 0, 0);
        let mut cuts = cuts.into_iter().cycle();
        while place < head.len() {
            if place == limit {
                limit = (limit + cuts.next().unwrap()).min(head.len());
            }
            let payload = Bytes(&head[..limit]);
            let len = (limit - place) as u32;
            let read = read(progress, &payload, place as u32, len, &mut 0).unwrap();
            progress = read.progress;
            place += read.bytes as usize;
            if read.found() != Found::Nothing || place == head.len() {
                let found = (read.found(), place, read.first_line());
                prop_assert_eq!(found, expected(head), "{:?}", text);
                let coding = text[..place].to_ascii_lowercase().contains("\ntransfer-e");
                prop_assert!(read.found() != Found::End || read.has_coding() == coding, "{:?}", text);
                break;
            }
        }
    }
}
