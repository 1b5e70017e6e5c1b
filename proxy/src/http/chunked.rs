//! The chunked coding, checked byte by byte so that it can be passed on as is.
//!
//! The coding is forwarded verbatim once it is known to be well-formed, which
//! keeps trailers and costs no copy. Being strict is what makes this safe: a
//! size is hexadecimal digits followed by CR or `;`, every line ends in CRLF, and
//! no trailer may carry a field that frames or routes.

/// Most bytes of one chunk's extension.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Most bytes of the trailer section.
const TRAILER_BYTES_MAX: u16 = 8 * 1024;
/// The longest field name that a trailer must not carry.
const NAME_KEPT: usize = 18;
/// Fields that must not come after the body, because acting on them late would
/// change what the message was.
const FORBIDDEN: [&[u8]; 5] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"upgrade",
];

/// The body is not in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub struct ChunkError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of sizes, line ends or trailers.
    Framing(usize),
    /// So many bytes of the body itself.
    Data(usize),
}

/// A position in a chunked body.
#[derive(Debug, Clone)]
pub struct Chunked {
    state: State,
    digits: u8,
    name_len: u8,
    line_bytes: u16,
    trailer_bytes: u16,
    remaining: u64,
    name: [u8; NAME_KEPT],
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::SizeStart,
            digits: 0,
            name_len: 0,
            line_bytes: 0,
            trailer_bytes: 0,
            remaining: 0,
            name: [0; NAME_KEPT],
        }
    }
}

impl Chunked {
    /// Whether the last byte of the body has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk that have not been seen.
    #[must_use]
    pub fn data_remaining(&self) -> u64 {
        if self.state == State::Data {
            self.remaining
        } else {
            0
        }
    }

    /// Takes `bytes` of the current chunk as seen without looking at them.
    pub fn skip_data(&mut self, bytes: u64) {
        debug_assert!(self.state == State::Data && bytes <= self.remaining);
        self.remaining -= bytes;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
    }

    /// Looks at the beginning of `input` and says what it is. Gives
    /// `Framing(0)` for empty input and after the end.
    ///
    /// # Errors
    /// [`ChunkError`] at the first byte that does not belong there.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, ChunkError> {
        if self.state == State::Data && !input.is_empty() {
            let here = usize::try_from(self.remaining)
                .unwrap_or(usize::MAX)
                .min(input.len());
            self.skip_data(here as u64);
            return Ok(Piece::Data(here));
        }
        let mut taken = 0;
        for byte in input {
            if matches!(self.state, State::Data | State::Done) {
                break;
            }
            self.step(*byte)?;
            taken += 1;
        }
        Ok(Piece::Framing(taken))
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.size_digit(byte)?
            }
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size, b';') | (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_byte()?
            }
            (State::SizeLf, b'\n') => self.size_line_end(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.next_chunk(),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName, byte) => self.trailer_name(byte)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                self.trailer_byte()?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(ChunkError),
        };
        Ok(())
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, ChunkError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => byte - b'A' + 10,
        };
        // Fifteen digits keep the size far from overflow and are more than any
        // disk holds; more is an attack on someone's integer.
        self.digits += 1;
        if self.digits > 15 {
            return Err(ChunkError);
        }
        self.remaining = self.remaining * 16 + u64::from(digit);
        Ok(State::Size)
    }

    fn extension_byte(&mut self) -> Result<State, ChunkError> {
        self.line_bytes += 1;
        if self.line_bytes > EXTENSION_BYTES_MAX {
            Err(ChunkError)
        } else {
            Ok(State::Extension)
        }
    }

    fn size_line_end(&self) -> State {
        if self.remaining == 0 {
            State::TrailerStart
        } else {
            State::Data
        }
    }

    fn next_chunk(&mut self) -> State {
        self.digits = 0;
        self.line_bytes = 0;
        State::SizeStart
    }

    fn trailer_byte(&mut self) -> Result<(), ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            Err(ChunkError)
        } else {
            Ok(())
        }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.trailer_byte()?;
        if byte == b':' {
            return self.trailer_name_end();
        }
        if !is_token_byte(byte) {
            return Err(ChunkError);
        }
        if let Some(slot) = self.name.get_mut(usize::from(self.name_len)) {
            *slot = byte.to_ascii_lowercase();
        }
        self.name_len = self.name_len.saturating_add(1);
        Ok(State::TrailerName)
    }

    fn trailer_name_end(&mut self) -> Result<State, ChunkError> {
        let len = usize::from(self.name_len);
        self.name_len = 0;
        let forbidden = self
            .name
            .get(..len)
            .is_some_and(|name| FORBIDDEN.contains(&name));
        if len == 0 || forbidden {
            Err(ChunkError)
        } else {
            Ok(State::TrailerValue)
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let (mut body, mut chunked, mut at) = (Vec::new(), Chunked::default(), 0);
        while at < input.len() && !chunked.is_done() {
            let end = (at + step).min(input.len());
            match chunked.next(&input[at..end])? {
                Piece::Framing(n) => at += n,
                Piece::Data(n) => {
                    body.extend_from_slice(&input[at..at + n]);
                    at += n;
                }
            }
        }
        Ok((body, at, chunked.is_done()))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_understood() {
        let text = b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for step in 1..text.len() {
            let (body, at, done) = decode(text, step).unwrap();
            assert_eq!(
                (body.as_slice(), at, done),
                (b"hello world".as_slice(), text.len() - 3, true)
            );
        }
    }

    #[test]
    fn malformed_chunks_are_refused_however_they_are_split() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1;a\nb\r\n",
            "1;a\rb\r\n",
            "1;\0\r\n",
            "1\r\nab",
            "1\r\na\n",
            "0000000000000001\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nA b: x\r\n\r\n",
            "0\r\nA: x\n\r\n",
            "0\r\n\n",
            "0\r\nContent-Length: 1\r\n\r\n",
            "0\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "0\r\n x\r\n\r\n",
        ] {
            for step in [1, 2, 3, bad.len()] {
                assert_eq!(
                    decode(bad.as_bytes(), step),
                    Err(ChunkError),
                    "{bad:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
        assert_eq!(decode(extension.as_bytes(), 7), Err(ChunkError));
        let trailer = format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000));
        assert_eq!(decode(trailer.as_bytes(), 7), Err(ChunkError));
    }
}
