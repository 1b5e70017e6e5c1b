//! Heads that are not read to their ends.

use super::*;

/// A head has more parts than are read.
#[test]
fn what_follows_a_head_that_is_too_long_is_told() {
    let cookie = "x".repeat(700);
    let long = format!("POST / HTTP/1.1\r\nCookie: {cookie}\r\nContent-Length: 3\r\n\r\nabc");
    let long = long.as_bytes();
    for parts in [1, 4] {
        PARTS.set(parts);
        let mut apart = Wire::new();
        apart.ask(long).ask(GET).ask(GET);
        assert_eq!(apart.counted.suspected, 2, "{parts}");
        apart.answer(OK).answer(OK).answer(OK);
        apart.ask(GET).answer(OK);
        let Counted {
            requests,
            responses,
            passed_over,
            ..
        } = apart.counted;
        assert_eq!(requests, ["POST", "GET"]);
        assert_eq!(
            (responses.len(), passed_over),
            (2, 2),
            "nobody asked, as it seems"
        );
        let mut at_once = Wire::new();
        at_once.ask(&[long, GET].concat()).answer(OK).answer(OK);
        assert_eq!(at_once.counted.passed_over, 1, "{parts}");

        // Nothing is hidden, and nothing told.
        let mut alone = Wire::new();
        for _ in 0..3 {
            alone.ask(&long[..400]).ask(&long[400..]);
            alone
                .answer(OK)
                .answer(b"more of it")
                .answer(OK[..9].as_ref());
        }
        alone.ask(GET).answer(OK);
        let Counted {
            requests,
            suspected,
            passed_over,
            ..
        } = alone.counted;
        assert_eq!(requests, ["POST", "POST", "POST", "GET"]);
        assert_eq!((suspected, passed_over), (0, 0), "{parts}");
    }
}

/// What was open when it is joined has its response all the same.
#[test]
fn a_level_that_changes_amid_a_long_head_tells_nothing() {
    PARTS.set(1);
    let mut wire = Wire::new();
    wire.ask(GET);
    let [request_seq, response_seq] = wire.seq;
    wire.exchange.begin_anew(1, request_seq, response_seq);
    wire.answer(OK).ask(GET).answer(OK);
    assert_eq!(wire.counted.passed_over, 0);
}
