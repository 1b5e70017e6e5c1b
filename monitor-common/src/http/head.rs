//! A message's head, read to its end.
//!
//! What matters of a head is few: where its first line ends and whether it is that of
//! a request, whether a length or a transfer coding is told, and where the empty line
//! is.  All of it is looked for at once by a set of bits that every byte moves on
//! (the shift-and algorithm), so that it does not matter where segments are cut: the
//! set is all that has to be kept between them.  It has no branch for a byte, which
//! the kernel's verifier would follow to the program's end.

use super::{Payload, place::forget};
use crate::bytes;

/// How far within a head a reader is: a set of what may be under way.
pub(super) type Progress = u64;

/// Within the first line.
const FIRST_LINE: u64 = 1;
/// " HTTP/1.", a digit, and the line's end.
const VERSION: u32 = 1;
const VERSION_TEXT: &[u8] = b" HTTP/1.";
const DIGIT: u32 = VERSION + VERSION_TEXT.len() as u32;
const VERSION_END: u32 = DIGIT + 1;
/// The first line was a request's.
const IS_REQUEST: u64 = 1 << (VERSION_END + 1);
const LENGTH: u32 = VERSION_END + 2;
const LENGTH_TEXT: &[u8] = b"\ncontent-length:";
/// The first of eight, which tell how many bytes ago a length was found.
const LENGTH_FOUND: u32 = LENGTH + LENGTH_TEXT.len() as u32 - 1;
const CODING: u32 = LENGTH_FOUND + TAIL;
/// As much of "transfer-encoding" as tells it from other fields.
const CODING_TEXT: &[u8] = b"\ntransfer-e";
const HAS_CODING: u64 = 1 << (CODING + CODING_TEXT.len() as u32);
const END: u32 = CODING + CODING_TEXT.len() as u32 + 1;
const END_TEXT: &[u8] = b"\n\r\n";
/// The first of eight, which tell how many bytes ago the head ended.
const END_FOUND: u32 = END + END_TEXT.len() as u32 - 1;
/// A word's bytes.
const TAIL: u32 = 8;
const TAIL_BITS: u64 = (1 << TAIL) - 1;

const _: () = assert!(END_FOUND + TAIL <= u64::BITS);

/// What may begin with any byte.
const BEGINS: u64 = 1 << LENGTH | 1 << CODING | 1 << END;
/// What stays; all else is under way.
const STAYS: u64 = FIRST_LINE | IS_REQUEST | HAS_CODING;
const FOUND: u64 = TAIL_BITS << LENGTH_FOUND | TAIL_BITS << END_FOUND;

/// At the first byte of a request.
pub(super) const REQUEST: Progress = FIRST_LINE;
/// Amid a line behind the first.
pub(super) const AMID_LINE: Progress = 0;
/// At the beginning of a line behind the first.
pub(super) const LINE: Progress = 1 << END;

/// For each byte, what it lets go on.
static LETS: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = lets(byte as u8);
        byte += 1;
    }
    table
};

const fn lets(byte: u8) -> u64 {
    // Behind the end of a text comes whatever comes.
    let mut set = IS_REQUEST | HAS_CODING | FOUND;
    set &= !(1 << LENGTH_FOUND | 1 << END_FOUND);
    if byte != b'\n' {
        set |= FIRST_LINE;
    }
    if byte.is_ascii_digit() {
        set |= 1 << DIGIT;
    }
    if byte == b'\r' || byte == b'\n' {
        set |= 1 << VERSION_END;
    }
    set |= matching(VERSION_TEXT, byte, VERSION, false);
    set |= matching(LENGTH_TEXT, byte, LENGTH, true);
    set |= matching(CODING_TEXT, byte, CODING, true);
    set | matching(END_TEXT, byte, END, false)
}

/// The places of a text at which a byte stands.
const fn matching(text: &[u8], byte: u8, at: u32, any_case: bool) -> u64 {
    let mut set = 0;
    let mut i = 0;
    while i < text.len() {
        if text[i] == byte || (any_case && text[i] == byte.to_ascii_lowercase()) {
            set |= 1 << (at + i as u32);
        }
        i += 1;
    }
    set
}

/// One where a byte was just the last before a length.
#[inline(always)]
pub(super) const fn length_found(progress: Progress) -> u64 {
    progress >> LENGTH_FOUND & 1
}

/// Which of the lowest eight bits is the highest one that is set; 0 where none is.
#[inline(always)]
const fn highest(mut bits: u64) -> u32 {
    // All bits below it.
    bits |= bits >> 1;
    bits |= bits >> 2;
    bits |= bits >> 4;
    bits >>= 1;
    // How many these are.
    bits -= bits >> 1 & 0x55;
    bits = (bits & 0x33) + (bits >> 2 & 0x33);
    ((bits + (bits >> 4)) & 0x0f) as u32
}

/// How many bytes ago the head ended; 8 where it did not within the last 8.
#[inline(always)]
pub(super) const fn end_found_ago(progress: Progress) -> u32 {
    let ended = progress >> END_FOUND & TAIL_BITS;
    if ended == 0 { TAIL } else { highest(ended) }
}

/// Whether a transfer coding was told.
#[inline(always)]
pub(super) const fn has_coding(progress: Progress) -> bool {
    progress & HAS_CODING != 0
}

/// What one byte makes of it.
#[inline(always)]
pub(super) fn step(progress: Progress, byte: u8) -> Progress {
    (progress << 1 | BEGINS | progress & STAYS) & LETS[byte as usize]
}

/// Whether a word cannot change anything: nothing is under way, no line ends in it,
/// nor, within the first line, a part of it.
#[inline(always)]
pub(super) const fn is_quiet(progress: Progress, word: u64) -> bool {
    // Zero where no space matters, else all ones.
    let first_line = (progress & FIRST_LINE).wrapping_neg();
    let lines = has(word, b'\n');
    let parts = has(word, b' ') & first_line;
    progress & !STAYS | lines | parts == 0
}

/// Not zero where a word has such a byte.
#[inline(always)]
const fn has(word: u64, byte: u8) -> u64 {
    let rest = word ^ bytes::repeated(byte);
    rest.wrapping_sub(bytes::repeated(1)) & !rest & bytes::repeated(0x80)
}

/// What was read, and how many bytes of it, up to what was found.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) progress: Progress,
    pub(super) bytes: u32,
}

impl Read {
    #[inline(always)]
    const fn new(progress: Progress, bytes: u32) -> Self {
        // What was found is so many bytes ago.
        let ago = (progress >> LENGTH_FOUND | progress >> END_FOUND) & TAIL_BITS;
        Self {
            progress,
            bytes: bytes - highest(ago),
        }
    }

    /// What it came upon.
    #[inline(always)]
    pub(super) const fn found(self) -> Found {
        // What is longer ago stands higher.
        let length = self.progress >> LENGTH_FOUND & TAIL_BITS;
        let end = self.progress >> END_FOUND & TAIL_BITS;
        if length > end {
            Found::Length
        } else if end != 0 {
            Found::End
        } else {
            Found::Nothing
        }
    }

    /// Whether the first line has ended, and whether it was a request's.
    #[inline(always)]
    pub(super) const fn first_line(self) -> FirstLine {
        if self.progress & FIRST_LINE != 0 {
            FirstLine::UnderWay
        } else if self.progress & (IS_REQUEST | 1 << VERSION_END) != 0 {
            FirstLine::Request
        } else {
            FirstLine::Other
        }
    }

    /// Whether a transfer coding was told.
    #[inline(always)]
    pub(super) const fn has_coding(self) -> bool {
        has_coding(self.progress)
    }

    /// From here on without what was found.
    #[inline(always)]
    pub(super) const fn go_on(self) -> Progress {
        self.progress & STAYS
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    UnderWay,
    Request,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// The value of a length begins.
    Length,
    /// The head has ended.
    End,
}

/// Ends what the verifier follows where the processor may only speculate to be: a store to
/// a place on the stack that holds a number is fenced without `CAP_PERFMON`.
#[inline(always)]
fn fence() {
    let mut place = 0u64;
    let place = &raw mut place;
    // SAFETY: a place on the stack.
    unsafe { place.write_volatile(1) };
    // SAFETY: as above.
    unsafe { place.write_volatile(2) };
}

/// Reads as much as is read at once: 64 bytes, or what is less than eight.
#[inline(always)]
pub(super) fn read(
    progress: Progress,
    payload: &impl Payload,
    at: u32,
    len: u32,
    scratch: &mut u32,
) -> Option<Read> {
    if !payload.reads_heads() {
        return None;
    }
    fence();
    let short = len < 8;
    let len = forget(scratch, if len < 64 { len } else { 64 });
    if short {
        let [word, _] = payload.start(at, len)?.words();
        return Some(read_bytes(progress, word, len));
    }
    Some(read_words(progress, &payload.words(at, len)?, len))
}

/// Reads from 8 to 64 bytes of words, behind which there are zeros; of a last word that
/// is not whole only what ends the head.
///
/// Unrolled by hand: a place on the stack that is not constant needs `CAP_PERFMON`.
/// What is not to be read is passed over word by word, as the verifier follows each
/// way out of here to the program's end.
#[inline(always)]
fn read_words(mut progress: Progress, words: &[u64; 8], len: u32) -> Read {
    // A bit for each word, of which the compiler knows nothing.
    let mut there = (1u64 << len.div_ceil(8)) - 1;
    let (mut bytes, mut before) = (0, progress);
    macro_rules! read {
        ($($i:literal)*) => {
            $(
                if there >> $i & 1 != 0 {
                    bytes = 8 * $i + 8;
                    before = progress;
                    if !is_quiet(progress, words[$i]) {
                        progress = read_word(progress, words[$i]);
                        if progress & FOUND != 0 {
                            there = 0;
                        }
                    }
                }
            )*
        };
    }
    read!(0 1 2 3 4 5 6 7);
    if progress & FOUND == 0 && bytes > len {
        return Read {
            progress: before,
            bytes: bytes - 8,
        };
    }
    Read::new(progress, bytes)
}

#[inline(always)]
fn read_word(mut progress: Progress, word: u64) -> Progress {
    macro_rules! read {
        ($($i:literal)*) => {
            $( progress = step(progress, (word >> (8 * $i)) as u8); )*
        };
    }
    read!(0 1 2 3 4 5 6 7);
    progress
}

/// Reads so many bytes of a word, less than eight.
#[inline(always)]
fn read_bytes(mut progress: Progress, word: u64, count: u32) -> Read {
    let there = (1u64 << count) - 1;
    macro_rules! read {
        ($($i:literal)*) => {
            $(
                if there >> $i & 1 != 0 {
                    progress = step(progress, (word >> (8 * $i)) as u8);
                }
            )*
        };
    }
    read!(0 1 2 3 4 5 6);
    Read::new(progress, count)
}

#[cfg(test)]
mod tests;
