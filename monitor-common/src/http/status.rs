//! Status codes of responses.

macro_rules! codes {
    ($($code:literal)*) => {
        /// The names of the status codes that are told apart: first the rest of
        /// each class, then the codes of IANA's registry.
        pub const CODE_NAMES: [&str; CODES] =
            ["1XX", "2XX", "3XX", "4XX", "5XX", $(stringify!($code)),*];

        const REGISTERED: [u16; CODES - 5] = [$($code),*];
    };
}

/// How many status codes are told apart.
pub const CODES: usize = 66;

codes! {
    100 101 102 103
    200 201 202 203 204 205 206 207 208 226
    300 301 302 303 304 305 307 308
    400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417
    421 422 423 424 425 426 428 429 431 451
    500 501 502 503 504 505 506 507 508 510 511
}

/// From a status code less 100 to its counter.
static CODE_INDEX: [u8; 500] = {
    let mut table = [0u8; 500];
    let mut code = 0;
    while code < 500 {
        // Below 5, so the cast keeps the value.
        table[code] = (code / 100) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < REGISTERED.len() {
        table[(REGISTERED[i] - 100) as usize] = i as u8 + 5;
        i += 1;
    }
    table
};

/// The counter of a status code; `None` for what is no status code.
#[inline(always)]
#[must_use]
pub fn code_index(code: u16) -> Option<usize> {
    let index = usize::from(code.wrapping_sub(100));
    if index < CODE_INDEX.len() {
        Some(usize::from(CODE_INDEX[index]))
    } else {
        None
    }
}

/// The name of a counter of status codes: "200", or "2XX" for the rest of a
/// class; `None` beyond the last.
#[must_use]
pub fn code_name(index: usize) -> Option<&'static str> {
    CODE_NAMES.get(index).copied()
}
