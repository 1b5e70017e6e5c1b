//! The newest response of a connection: whether it was whole when the connection ended.
//!
//! A response's framing (RFC 9112, section 6.3) matters once, at the end, and only that
//! of the last one.  So nothing of it is read while it passes: its first bytes and the
//! newest of its last ones are kept as they come, and read when the connection has
//! ended.

use super::{START_BYTES, Start, head};

/// How many words of a head are kept.
const HEAD_WORDS: usize = 28;

/// How many bytes these are.
pub const HEAD_BYTES: usize = 8 * HEAD_WORDS;

/// How many of the last bytes are kept.
pub const TAIL_BYTES: u32 = 8;

/// What is kept of a response.  Of the response's direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answer {
    /// Its first bytes.
    pub head: [u64; HEAD_WORDS],
    /// Its last bytes so far, the last one highest.
    pub tail: u64,
    /// Where it begins.
    pub seq: u32,
    /// Where `tail` ends.
    pub tail_end_seq: u32,
    /// How many bytes of its head are kept; 0 where none are.
    pub head_len: u8,
    /// How many bytes of the tail are kept.
    pub tail_len: u8,
    /// Whether it answers HEAD.
    pub is_to_head: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Answer>() == HEAD_BYTES + 24);
const _: () = assert!(HEAD_BYTES <= u8::MAX as usize);

/// Where a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Behind so many bytes from its beginning.
    Bytes(u64),
    /// Behind the last chunk.
    Chunks,
    /// With the stream.
    Stream,
    /// Its head does not say within the bytes that are kept.
    Unknown,
}

/// What is read of a head, a byte at a time and without a branch for one.
struct Reader {
    progress: u64,
    /// One while the digits of a length are read.
    in_length: u64,
    /// One once a length was told.
    has_length: u64,
    length: u64,
}

impl Reader {
    /// Hides what was read so far from the verifier: it would follow each way to each
    /// value of it through the whole head.
    #[inline(always)]
    fn hide(&mut self, hide: impl Fn(u64) -> u64) {
        self.progress = hide(self.progress);
        self.in_length = hide(self.in_length);
        self.has_length = hide(self.has_length);
        self.length = hide(self.length);
    }

    #[inline(always)]
    fn word(&mut self, word: u64) {
        macro_rules! read {
            ($($i:literal)*) => { $( self.byte((word >> (8 * $i)) as u8); )* };
        }
        read!(0 1 2 3 4 5 6 7);
    }

    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        // The sign tells which is less.
        let digit = u64::from(byte ^ b'0');
        let is_digit = digit.wrapping_sub(10) >> 63;
        let is_blank = u64::from((byte ^ b' ') & (byte ^ b'\t')).wrapping_sub(1) >> 63;
        let counts = self.in_length & is_digit;
        self.length = self
            .length
            .wrapping_mul(1 + 9 * counts)
            .wrapping_add(digit * counts);
        self.progress = head::step(self.progress, byte);
        let found = head::length_found(self.progress);
        self.in_length = self.in_length & (is_digit | is_blank) | found;
        self.has_length |= found;
    }
}

impl Answer {
    /// Where it ends, as its head says.  `hide` gives a number back of which the verifier
    /// knows nothing.
    #[inline(always)]
    #[must_use]
    pub fn extent(&self, hide: impl Fn(u64) -> u64) -> Extent {
        let kept = u32::from(self.head_len);
        if kept < START_BYTES as u32 {
            return Extent::Unknown;
        }
        let mut reader = Reader {
            progress: head::AMID_LINE,
            in_length: 0,
            has_length: 0,
            length: 0,
        };
        reader.hide(&hide);
        let mut end = 0;
        let mut i = 0;
        while i < HEAD_WORDS {
            // SAFETY: one of the head's words.  Volatile: the compiler is not to read
            // all of them at once.
            let word = unsafe { (&raw const self.head[i]).read_volatile() };
            if reader.in_length != 0 || !head::is_quiet(reader.progress, word) {
                reader.word(word);
                let ago = head::end_found_ago(reader.progress);
                if ago < 8 {
                    end = 8 * (i as u32 + 1) - ago;
                    break;
                }
                reader.hide(&hide);
            }
            i += 1;
        }
        // What was not kept is zero, and ends no head.
        if end == 0 || end > kept {
            return Extent::Unknown;
        }
        let start = Start::from_words(self.head[0], self.head[1]);
        let code = start.three_digits(9);
        if self.is_to_head != 0 || code == 204 || code == 304 {
            Extent::Bytes(end.into())
        } else if head::has_coding(reader.progress) {
            Extent::Chunks
        } else if reader.has_length != 0 {
            Extent::Bytes(reader.length.wrapping_add(end.into()))
        } else {
            Extent::Stream
        }
    }

    /// Whether it was whole where its stream ended before `end_seq`, given whether the
    /// server's FIN ended it; `None` where that cannot be told.
    #[inline(always)]
    #[must_use]
    pub fn is_whole(&self, end_seq: u32, by_fin: bool, hide: impl Fn(u64) -> u64) -> Option<bool> {
        // Beyond it numbers are used again.
        const REACH: u64 = 1 << 31;
        match self.extent(hide) {
            Extent::Unknown => None,
            Extent::Stream => Some(by_fin),
            Extent::Bytes(bytes) if bytes >= REACH => None,
            Extent::Bytes(bytes) => {
                let passed = end_seq.wrapping_sub(self.seq);
                Some(u64::from(passed) >= bytes)
            }
            Extent::Chunks if self.tail_end_seq != end_seq => None,
            Extent::Chunks => Some(self.ends_in_last_chunk()),
        }
    }

    /// Whether the last bytes are those of an empty chunk without a trailer.
    #[inline(always)]
    const fn ends_in_last_chunk(&self) -> bool {
        const LAST: u64 = u64::from_le_bytes(*b"\0\r\n0\r\n\r\n");
        // Sent on its own it may have nothing before it.
        let bytes = if self.tail_len < 7 { 5 } else { 7 };
        self.tail_len >= bytes && (self.tail ^ LAST) >> (64 - 8 * bytes) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(response: &[u8], is_to_head: bool) -> Answer {
        let kept = response.len().min(HEAD_BYTES);
        let mut head = [0; HEAD_WORDS];
        for (i, byte) in response[..kept].iter().enumerate() {
            head[i / 8] |= u64::from(*byte) << (8 * (i % 8));
        }
        let tail_len = response.len().min(8);
        let mut tail = 0;
        for byte in &response[response.len() - tail_len..] {
            tail = tail >> 8 | u64::from(*byte) << 56;
        }
        Answer {
            head,
            head_len: kept as u8,
            tail,
            tail_len: tail_len as u8,
            seq: u32::MAX - 9,
            tail_end_seq: (u32::MAX - 9).wrapping_add(response.len() as u32),
            is_to_head: is_to_head.into(),
            reserved: [0; 5],
        }
    }

    fn whole(response: &[u8], is_to_head: bool, by_fin: bool) -> Option<bool> {
        let answer = answer(response, is_to_head);
        answer.is_whole(answer.tail_end_seq, by_fin, |n| n)
    }

    #[test]
    fn a_length_tells_the_end() {
        let response =
            b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: \t12\r\nA: 99\r\n\r\nhello, world";
        assert_eq!(
            answer(response, false).extent(|n| n),
            Extent::Bytes(response.len() as u64)
        );
        for cut in 0..response.len() {
            let cut_short = whole(&response[..cut], false, true);
            let head = response.len() - 12;
            assert_eq!(cut_short, (cut >= head).then_some(false), "{cut}");
        }
        assert_eq!(whole(response, false, false), Some(true));
    }

    #[test]
    fn what_has_no_body_ends_with_its_head() {
        for code in ["204 No Content", "304 Not Modified"] {
            let response = format!("HTTP/1.1 {code}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(whole(response.as_bytes(), false, false), Some(true));
        }
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(whole(response, true, false), Some(true));
        assert_eq!(whole(response, false, false), Some(false));
    }

    #[test]
    fn the_last_chunk_ends_a_chunked_response() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let of = |body: &str| whole(format!("{head}{body}").as_bytes(), false, true);
        assert_eq!(of("3\r\nabc\r\n0\r\n\r\n"), Some(true));
        assert_eq!(of("3\r\nabc\r\n"), Some(false));
        assert_eq!(of("a\r\nabc\r\n10\r\n\r\n"), Some(false));
        assert_eq!(of(""), Some(false));
    }

    #[test]
    fn what_tells_no_length_ends_with_the_stream() {
        let response = b"HTTP/1.0 200 OK\r\nContent-Type: a\r\n\r\nhello";
        assert_eq!(whole(response, false, true), Some(true));
        assert_eq!(whole(response, false, false), Some(false));
    }

    #[test]
    fn a_head_beyond_what_is_kept_is_not_told() {
        let long = format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
            "x".repeat(230)
        );
        assert_eq!(whole(long.as_bytes(), false, true), None);
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_line_by_line(
            fields in prop::collection::vec(
                prop_oneof!["[A-Z][a-z-]{0,14}: [a-z0-9 ]{0,12}", "[Cc]ontent-[Ll]ength: [0-9]{1,9}"], 0..6),
            body in "[a-z\r\n:0-9-]{0,30}",
        ) {
            let mut lengths = fields.iter().filter_map(|f| f.to_lowercase()
                .strip_prefix("content-length: ").map(|n| n.parse::<u64>().unwrap()));
            let length = lengths.next();
            prop_assume!(lengths.next().is_none());
            let head: String = std::iter::once("HTTP/1.1 200 OK".to_owned()).chain(fields)
                .map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n";
            prop_assume!(head.len() <= HEAD_BYTES);
            let expected = length.map_or(Extent::Stream, |n| Extent::Bytes(n + head.len() as u64));
            prop_assert_eq!(answer(format!("{head}{body}").as_bytes(), false).extent(|n| n), expected);
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let answer = answer(&bytes, false);
            if let Extent::Bytes(n) = answer.extent(|n| n) {
                prop_assert!(n > 0);
            }
        }
    }
}
