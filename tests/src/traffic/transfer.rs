//! What is still to be written: ready-made bytes and a body of the pattern.

use std::{
    io::{self, IoSlice, Write},
    net::TcpStream,
};

use super::pattern;

/// How long one chunk of a chunked body is.
const CHUNK: u64 = 16 * 1024;

/// A message on its way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    head: Vec<u8>,
    head_written: usize,
    body_at: u64,
    body_left: u64,
}

impl Outgoing {
    /// A head and a body of a known length.
    pub(super) fn sized(head: Vec<u8>, body: u64) -> Self {
        Self {
            head,
            head_written: 0,
            body_at: 0,
            body_left: body,
        }
    }

    /// A head and a chunked body.
    pub(super) fn chunked(mut head: Vec<u8>, body: u64) -> Self {
        let mut at = 0;
        while at < body {
            let length = CHUNK.min(body - at);
            head.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            head.extend_from_slice(pattern::from(at, length));
            head.extend_from_slice(b"\r\n");
            at += length;
        }
        head.extend_from_slice(b"0\r\n\r\n");
        Self::sized(head, 0)
    }

    pub(super) fn is_done(&self) -> bool {
        self.head_written == self.head.len() && self.body_left == 0
    }

    /// Writes what the socket takes; returns how many bytes that was.
    pub(super) fn write(&mut self, socket: &mut TcpStream) -> io::Result<u64> {
        let mut written = 0;
        while !self.is_done() {
            let head = &self.head[self.head_written..];
            let slices = [
                IoSlice::new(head),
                IoSlice::new(pattern::from(self.body_at, self.body_left)),
            ];
            match socket.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count as u64;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head.len() - self.head_written);
        self.head_written += of_head;
        let of_body = (count - of_head) as u64;
        self.body_at += of_body;
        self.body_left -= of_body;
    }
}
