//! The chunked coding, checked byte by byte so that it can be passed on as is.
//!
//! The coding is forwarded verbatim once it is known to be well-formed, which
//! keeps trailers and costs no copy. Being strict is what makes this safe: a
//! size is hexadecimal digits followed by CR or an extension, every line ends in
//! CRLF, and no trailer may carry a field that frames, routes or says who the client is.

/// Most bytes of one chunk's extension.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Most bytes of the trailer section.
const TRAILER_BYTES_MAX: u16 = 8 * 1024;
/// Fields that must not come after the body, because acting on them late would
/// change what the message was, or from whom.
const FORBIDDEN: [u64; 12] = [
    name_hash(b"content-length"),
    name_hash(b"transfer-encoding"),
    name_hash(b"host"),
    name_hash(b"connection"),
    name_hash(b"keep-alive"),
    name_hash(b"proxy-connection"),
    name_hash(b"upgrade"),
    name_hash(b"te"),
    name_hash(b"expect"),
    name_hash(b"authorization"),
    name_hash(b"proxy-authorization"),
    name_hash(b"forwarded"),
];
/// Any name that begins so is forbidden.
const FORWARDED: u64 = name_hash(b"x-forwarded-");
const REAL_IP: u64 = name_hash(b"x-real-ip");

/// The hash of no name at all.
const NAME_START: u64 = 0xCBF2_9CE4_8422_2325;

/// A name of any length as FNV-1a: one that has the hash of a forbidden one by
/// chance is refused too, which does no harm.
const fn name_hash(name: &[u8]) -> u64 {
    let (mut hash, mut at) = (NAME_START, 0);
    while at < name.len() {
        hash = name_step(hash, name[at]);
        at += 1;
    }
    hash
}

/// Case does not matter, nor `_` in place of `-`: see
/// [`Field::Ambiguous`](super::fields::Field::Ambiguous).
const fn name_step(hash: u64, byte: u8) -> u64 {
    let byte = match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01B3)
}

/// The body is not in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub struct ChunkError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    /// White space between a size and its extension.
    Space,
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
    line_bytes: u16,
    trailer_bytes: u16,
    remaining: u64,
    /// The hash of a trailer's name so far.
    name: u64,
    /// That of one more name that is forbidden.
    forbidden: u64,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::SizeStart,
            digits: 0,
            line_bytes: 0,
            trailer_bytes: 0,
            remaining: 0,
            name: NAME_START,
            forbidden: REAL_IP,
        }
    }
}

impl Chunked {
    /// Forbids one more name in the trailers, besides those that always are.
    pub fn forbid(&mut self, name: &str) {
        self.forbidden = name_hash(name.as_bytes());
    }

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
            (State::Size | State::Space, b'\t' | b' ') => self.line_byte(State::Space)?,
            (State::Size | State::Space, b';')
            | (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.line_byte(State::Extension)?
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

    fn line_byte(&mut self, next: State) -> Result<State, ChunkError> {
        self.line_bytes += 1;
        if self.line_bytes > EXTENSION_BYTES_MAX {
            Err(ChunkError)
        } else {
            Ok(next)
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
        self.name = name_step(self.name, byte);
        if self.name == FORWARDED {
            return Err(ChunkError);
        }
        Ok(State::TrailerName)
    }

    fn trailer_name_end(&mut self) -> Result<State, ChunkError> {
        let name = std::mem::replace(&mut self.name, NAME_START);
        let refused = name == NAME_START
            || name == REAL_IP
            || name == self.forbidden
            || FORBIDDEN.contains(&name);
        if refused {
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
        let text = b"5 \t;x\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET";
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
            "1 2;\r\n",
            "1 a\r\n",
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
            "0\r\nA: b\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
            "0\r\nx_forwarded-Port: 1\r\n\r\n",
            "0\r\nx_real_ip: 1.1.1.1\r\n\r\n",
            "0\r\nAuthorization: Basic eA==\r\n\r\n",
            "0\r\nTE: trailers\r\n\r\n",
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
    fn a_further_name_is_forbidden_whatever_its_length() {
        let mut chunked = Chunked::default();
        chunked.forbid("X-The-Address-Of-The-Client");
        let mut others = chunked.clone();
        let text = b"0\r\nx-the-address_of-the-client: 1.1.1.1\r\n\r\n";
        assert_eq!(chunked.next(text), Err(ChunkError));
        let text = b"0\r\nX-The-Address: 1\r\nX-Sum_2: 1\r\n\r\n";
        assert_eq!(others.next(text), Ok(Piece::Framing(text.len())));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
        assert_eq!(decode(extension.as_bytes(), 7), Err(ChunkError));
        let space = format!("1{};\r\na\r\n0\r\n\r\n", " ".repeat(300));
        assert_eq!(decode(space.as_bytes(), 7), Err(ChunkError));
        let trailer = format!("0\r\n{}\r\n", "A: b\r\n".repeat(3000));
        assert_eq!(decode(trailer.as_bytes(), 7), Err(ChunkError));
    }
}
