//! Large bodies move from socket to socket within the kernel.
//!
//! Only bytes that are certain to be body go this way: what has to be looked at
//! is read. A pipe holds what one side has sent and the other not taken yet, so
//! it belongs to one direction of one exchange until it is empty.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::io::write;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bodies with less than this left are copied: two calls for each piece cost
/// more than they save.
pub const SPLICE_BYTES_MIN: u64 = 32 << 10;
/// What may be put ahead of a body: a page, one of the places of a pipe that was
/// granted its size. Of a full pipe the kernel would say that the sender has no
/// bytes, and no task would be woken for those that it has.
pub const PUT_BYTES_MAX: usize = 4 << 10;
/// What a pipe should hold. The kernel may grant less.
const PIPE_BYTES: usize = 256 << 10;

/// Both ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Whether the kernel granted [`PIPE_BYTES`].
    is_large: bool,
}

impl AsFd for Pipe {
    /// The end that was opened last.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

impl Pipe {
    /// A new, empty pipe.
    ///
    /// # Errors
    /// The kernel's, such as too many open files.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Beyond the user's share the kernel says no, and the default does too.
        let granted = fcntl_setpipe_size(&writer, PIPE_BYTES);
        if let Err(error) = &granted {
            tracing::debug!(%error, "a pipe keeps its default size");
        }
        Ok(Self {
            reader,
            writer,
            is_large: granted.is_ok(),
        })
    }
}

/// One direction that moves within the kernel.
#[derive(Debug)]
pub struct Splice {
    pipe: Pipe,
    held: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the sender.
    pub taken: u64,
    /// Whether the sender has ended.
    pub ended: bool,
    /// Whether anything moved.
    pub moved: bool,
}

/// Which side failed.
#[derive(Debug)]
pub enum SpliceError {
    /// The sender.
    From(io::Error),
    /// The receiver.
    To(io::Error),
}

impl Splice {
    /// Begins with an empty pipe.
    #[must_use]
    pub fn new(pipe: Pipe) -> Self {
        Self { pipe, held: 0 }
    }

    /// Whether the receiver has still to take something.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// The pipe for further use, if it is empty.
    #[must_use]
    pub fn into_pipe(self) -> Option<Pipe> {
        (self.held == 0).then_some(self.pipe)
    }

    /// Puts bytes, at most [`PUT_BYTES_MAX`], into the empty pipe ahead of all
    /// that is taken from the sender. Says whether it did; the pipe takes a page
    /// whole or not at all (pipe(7)).
    #[must_use]
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        debug_assert!(self.held == 0 && bytes.len() <= PUT_BYTES_MAX);
        if !self.pipe.is_large {
            return false;
        }
        match write(&self.pipe.writer, bytes) {
            Ok(written) => {
                debug_assert_eq!(written, bytes.len());
                self.held = written;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a pipe takes no head");
                false
            }
        }
    }

    /// Takes what the sender has, up to `wanted` bytes, behind what the pipe
    /// holds. Gives how many.
    ///
    /// # Errors
    /// The sender's.
    pub fn fill(&mut self, from: &TcpStream, wanted: u64, cx: &mut Context<'_>) -> io::Result<u64> {
        let most = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(PIPE_BYTES);
        let taken = self.take(from, most, cx)?.unwrap_or(0);
        self.held += taken;
        Ok(taken as u64)
    }

    /// Moves what can be moved now, taking at most `wanted` bytes.
    ///
    /// # Errors
    /// [`SpliceError`] with the side that failed.
    pub fn step(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        wanted: u64,
        cx: &mut Context<'_>,
    ) -> Result<Progress, SpliceError> {
        let mut progress = Progress {
            taken: 0,
            ended: false,
            moved: false,
        };
        loop {
            while self.held > 0 {
                match self.give(to, cx).map_err(SpliceError::To)? {
                    Some(given) => self.held -= given,
                    None => return Ok(progress),
                }
                progress.moved = true;
            }
            let left = usize::try_from(wanted - progress.taken).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(progress);
            }
            match self
                .take(from, left.min(PIPE_BYTES), cx)
                .map_err(SpliceError::From)?
            {
                None => return Ok(progress),
                Some(0) => {
                    progress.ended = true;
                    return Ok(progress);
                }
                Some(taken) => {
                    self.held = taken;
                    progress.taken += taken as u64;
                    progress.moved = true;
                }
            }
        }
    }

    fn take(
        &self,
        from: &TcpStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> io::Result<Option<usize>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            match from.poll_read_ready(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(ready) => ready?,
            }
            let taken = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.pipe.writer, None, most, flags)?)
            });
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken.map(Some),
            }
        }
    }

    fn give(&self, to: &TcpStream, cx: &mut Context<'_>) -> io::Result<Option<usize>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            match to.poll_write_ready(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(ready) => ready?,
            }
            let given = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.pipe.reader, None, to, None, self.held, flags)?)
            });
            match given {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                given => return given.map(Some),
            }
        }
    }
}
