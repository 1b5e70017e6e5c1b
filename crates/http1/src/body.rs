//! Where a body ends, whatever its framing.

use super::Framing;
use super::chunked::{ChunkError, Chunked, Piece};

/// A position in a body.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing more belongs to this message.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Somewhere in a chunked body.
    Chunked(Chunked),
    /// Everything until the sender closes.
    UntilClose,
}

impl Body {
    /// The beginning of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty | Framing::Length(0) => Self::Done,
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Forbids a field in the trailers, where there may be any.
    pub fn forbid_trailer(&mut self, name: &str) {
        if let Self::Chunked(chunked) = self {
            chunked.forbid(name);
        }
    }

    /// Whether the whole body has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many bytes of `input` belong to this message, as they stand on the
    /// wire. Fewer than given means that the body ended there.
    ///
    /// # Errors
    /// [`ChunkError`] where a chunked body is malformed.
    pub fn consume(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        self.consume_counted(input, &mut 0)
    }

    /// Like [`Body::consume`], and adds to `content` how many of these bytes are
    /// the body without its coding.
    ///
    /// # Errors
    /// [`ChunkError`] where a chunked body is malformed.
    pub fn consume_counted(
        &mut self,
        input: &[u8],
        content: &mut u64,
    ) -> Result<usize, ChunkError> {
        let Self::Chunked(chunked) = self else {
            let here = usize::try_from(self.opaque_remaining())
                .unwrap_or(usize::MAX)
                .min(input.len());
            self.skip(here as u64);
            *content += here as u64;
            return Ok(here);
        };
        let mut taken = 0;
        while taken < input.len() && !chunked.is_done() {
            match chunked.next(&input[taken..])? {
                Piece::Framing(bytes) => taken += bytes,
                Piece::Data(bytes) => {
                    *content += bytes as u64;
                    taken += bytes;
                }
            }
        }
        self.settle();
        Ok(taken)
    }

    /// Like [`Body::consume`], and appends the body without its coding to `out`.
    ///
    /// # Errors
    /// [`ChunkError`] where a chunked body is malformed.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        let Self::Chunked(chunked) = self else {
            let taken = self.consume(input)?;
            out.extend_from_slice(&input[..taken]);
            return Ok(taken);
        };
        let mut taken = 0;
        while taken < input.len() && !chunked.is_done() {
            match chunked.next(&input[taken..])? {
                Piece::Framing(bytes) => taken += bytes,
                Piece::Data(bytes) => {
                    out.extend_from_slice(&input[taken..taken + bytes]);
                    taken += bytes;
                }
            }
        }
        self.settle();
        Ok(taken)
    }

    /// Bytes that are certain to be body: they may be moved without a look.
    #[must_use]
    pub fn opaque_remaining(&self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Length(bytes) => *bytes,
            Self::Chunked(chunked) => chunked.data_remaining(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// Takes `bytes` as seen; at most [`Body::opaque_remaining`].
    pub fn skip(&mut self, bytes: u64) {
        match self {
            Self::Length(remaining) => {
                *remaining -= bytes;
                if *remaining == 0 {
                    *self = Self::Done;
                }
            }
            Self::Chunked(chunked) => chunked.skip_data(bytes),
            Self::Done | Self::UntilClose => {}
        }
    }

    fn settle(&mut self) {
        if matches!(self, Self::Chunked(chunked) if chunked.is_done()) {
            *self = Self::Done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_ends_where_it_says() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.consume(b"abc"), Ok(3));
        assert_eq!(body.consume(b"defg"), Ok(2));
        assert!(body.is_done());
        assert_eq!(body.consume(b"g"), Ok(0));
    }

    #[test]
    fn the_coding_is_no_content() {
        let mut content = 0;
        let mut body = Body::new(Framing::Chunked);
        let text = b"3;a=b\r\nabc\r\n0\r\n\r\nrest";
        for piece in text.chunks(2) {
            body.consume_counted(piece, &mut content).unwrap();
        }
        assert!(body.is_done());
        assert_eq!(content, 3);
        let mut body = Body::new(Framing::Length(4));
        assert_eq!(body.consume_counted(text, &mut content), Ok(4));
        assert_eq!(content, 7);
    }

    #[test]
    fn decoding_leaves_the_coding_out() {
        let mut body = Body::new(Framing::Chunked);
        let mut out = Vec::new();
        assert_eq!(body.decode(b"3\r\nabc\r\n0\r\n\r\nrest", &mut out), Ok(13));
        assert_eq!(out, b"abc");
        assert!(body.is_done());
    }
}
