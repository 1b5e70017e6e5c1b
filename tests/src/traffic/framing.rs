//! Where an HTTP/1.1 message ends (RFC 9112, section 6), byte by byte.
//!
//! Written apart from the proxy's codec, so that the two do not share a fault.

use super::pattern;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes.
    Known(u64),
    /// The chunked transfer coding.
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// What a message did that it may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A chunk's size line cannot be read.
    #[error("a chunk's size line cannot be read")]
    ChunkSize,
    /// A chunk does not end with CRLF.
    #[error("a chunk does not end with CRLF")]
    ChunkEnd,
    /// The body is not the pattern that was sent.
    #[error("the body is not the one that was sent")]
    Content,
}

/// How far a decoder came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It took everything and needs more.
    Needs,
    /// The body ended after this many of the bytes given.
    Done(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known(u64),
    UntilClose,
    /// In a size line: the value so far and how many digits it has.
    Size(u64, u8),
    /// In a chunk extension, up to the line's end.
    Extension(u64),
    Data(u64),
    /// After a chunk's data: how many of CR LF have come.
    DataEnd(u8),
    /// In the trailer: how long the current line is.
    Trailer(usize),
    Done,
}

/// Takes a body piece by piece and checks its content.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Content so far, without the chunks' framing.
    length: u64,
    verify: bool,
}

impl Decoder {
    /// A body delimited so; its content must be the pattern if `verify`.
    #[must_use]
    pub fn new(length: BodyLength, verify: bool) -> Self {
        let state = match length {
            BodyLength::Known(0) => State::Done,
            BodyLength::Known(length) => State::Known(length),
            BodyLength::Chunked => State::Size(0, 0),
            BodyLength::UntilClose => State::UntilClose,
        };
        Self {
            state,
            length: 0,
            verify,
        }
    }

    /// Whether the end has been seen already.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Content so far, without the chunks' framing.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When the framing is broken or the content is not what was sent.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Progress, FramingError> {
        let mut at = 0;
        while self.state != State::Done {
            let rest = &bytes[at..];
            let Some(&byte) = rest.first() else {
                return Ok(Progress::Needs);
            };
            at += match self.state {
                State::Known(left) => {
                    let taken = self.content(rest, left)?;
                    self.state = after(left - taken as u64, State::Known, State::Done);
                    taken
                }
                State::UntilClose => self.content(rest, u64::MAX)?,
                State::Data(left) => {
                    let taken = self.content(rest, left)?;
                    self.state = after(left - taken as u64, State::Data, State::DataEnd(0));
                    taken
                }
                _ => {
                    self.state = step(self.state, byte)?;
                    1
                }
            };
        }
        Ok(Progress::Done(at))
    }

    /// Takes up to `most` bytes of content.
    fn content(&mut self, bytes: &[u8], most: u64) -> Result<usize, FramingError> {
        let taken = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
        if self.verify && !pattern::matches(self.length, &bytes[..taken]) {
            return Err(FramingError::Content);
        }
        self.length += taken as u64;
        Ok(taken)
    }
}

fn after(left: u64, more: fn(u64) -> State, end: State) -> State {
    if left == 0 { end } else { more(left) }
}

/// One byte of a chunk's framing.
fn step(state: State, byte: u8) -> Result<State, FramingError> {
    Ok(match (state, byte) {
        (State::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            // Fifteen digits cannot overflow, and no body here is larger.
            if digits == 15 {
                return Err(FramingError::ChunkSize);
            }
            State::Size(size * 16 + hex(byte), digits + 1)
        }
        (State::Size(_, 0), _) => return Err(FramingError::ChunkSize),
        (State::Extension(0), b'\n') => State::Trailer(0),
        (State::Extension(size), b'\n') => State::Data(size),
        (State::Size(size, _), b';' | b'\r') | (State::Extension(size), _) => {
            State::Extension(size)
        }
        (State::DataEnd(0), b'\r') => State::DataEnd(1),
        (State::DataEnd(1), b'\n') => State::Size(0, 0),
        (State::DataEnd(_), _) => return Err(FramingError::ChunkEnd),
        (State::Trailer(0), b'\n') => State::Done,
        (State::Trailer(_), b'\n') => State::Trailer(0),
        (State::Trailer(length), b'\r') => State::Trailer(length),
        (State::Trailer(length), _) => State::Trailer(length + 1),
        _ => return Err(FramingError::ChunkSize),
    })
}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_at_once(length: BodyLength, bytes: &[u8]) -> Result<Progress, FramingError> {
        Decoder::new(length, false).take(bytes)
    }

    #[test]
    fn a_known_length_ends_where_it_says() {
        assert_eq!(
            all_at_once(BodyLength::Known(3), b"abcdef"),
            Ok(Progress::Done(3))
        );
        assert_eq!(
            all_at_once(BodyLength::Known(9), b"abcdef"),
            Ok(Progress::Needs)
        );
        assert_eq!(
            all_at_once(BodyLength::Known(0), b"abc"),
            Ok(Progress::Done(0))
        );
    }

    #[test]
    fn chunks_end_with_the_trailer_however_they_are_cut() {
        let body = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nnext";
        let end = body.len() - 4;
        assert_eq!(
            all_at_once(BodyLength::Chunked, body),
            Ok(Progress::Done(end))
        );
        let mut decoder = Decoder::new(BodyLength::Chunked, false);
        for &byte in &body[..end - 1] {
            assert_eq!(decoder.take(&[byte]), Ok(Progress::Needs));
        }
        assert_eq!(decoder.take(b"\n"), Ok(Progress::Done(1)));
        assert_eq!(decoder.length(), 15);
    }

    #[test]
    fn broken_chunks_are_refused() {
        for (body, error) in [
            (&b"zz\r\n"[..], FramingError::ChunkSize),
            (b"\r\n", FramingError::ChunkSize),
            (b"1111111111111111\r\n", FramingError::ChunkSize),
            (b"1\r\nab\r\n", FramingError::ChunkEnd),
        ] {
            assert_eq!(all_at_once(BodyLength::Chunked, body), Err(error));
        }
    }

    #[test]
    fn content_is_compared_with_the_pattern() {
        let mut decoder = Decoder::new(BodyLength::Known(4), true);
        assert_eq!(decoder.take(&[0, 1]), Ok(Progress::Needs));
        assert_eq!(decoder.take(&[3]), Err(FramingError::Content));
    }
}
