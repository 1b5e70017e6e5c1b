//! A connection of either side, and bytes that wait to be written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use std::os::fd::AsRawFd as _;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection. Reading through `poll_read` (rather than `try_read`) lets tokio
/// note that a short read has drained the socket, which saves the call that
/// would only say so.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Reads into `into`; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(into);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        };
        ready!(read)?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Writes `parts` one after the other, as far as they go now.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: [&[u8]; 2],
    ) -> Poll<io::Result<usize>> {
        match (self, parts) {
            (Self::Tcp(stream), [first, []]) => Pin::new(stream).poll_write(cx, first),
            (Self::Tcp(stream), [[], second]) => Pin::new(stream).poll_write(cx, second),
            (Self::Tcp(stream), [first, second]) => {
                let slices = [io::IoSlice::new(first), io::IoSlice::new(second)];
                Pin::new(stream).poll_write_vectored(cx, &slices)
            }
            (Self::Tls(stream), [first, second]) => {
                let slices = [io::IoSlice::new(first), io::IoSlice::new(second)];
                Pin::new(stream).poll_write_vectored(cx, &slices)
            }
        }
    }

    /// Writes `bytes` as far as they go now and says that more follows at once,
    /// so that they leave together with what follows.
    pub fn poll_write_more(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(stream) = self else {
            return self.poll_write(cx, [bytes, &[]]);
        };
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let sent = stream.try_io(Interest::WRITABLE, || Ok(send(&*stream, bytes, flags)?));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// The connection below TLS.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether the bytes are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits until what was written has left for the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends the writing side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Looks for an end without reading: `Ready(true)` where the peer has
    /// ended, `Ready(false)` where bytes wait.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut byte = [0_u8; 1];
        let seen = ready!(self.tcp().poll_peek(cx, &mut ReadBuf::new(&mut byte)))?;
        Poll::Ready(Ok(seen == 0))
    }

    /// Has the connection reset when it is dropped, so that the peer cannot
    /// take a cut-off body for a whole one.
    pub fn abort(&self) {
        if let Err(error) = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot have the connection reset");
        }
    }

    /// Whether a pooled connection can carry a request: nothing has come, no
    /// end and no stray byte. Costs no system call while nothing happened.
    pub fn is_idle(&mut self) -> bool {
        match self {
            Self::Tcp(stream) => {
                let seen = stream.try_read(&mut [0_u8; 1]);
                matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Session tickets may have come: reading takes them in.
            Self::Tls(_) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                self.poll_read(&mut cx, &mut [0_u8; 1]).is_pending()
            }
        }
    }

    /// The same by asking the kernel, which may know of an end that the driver
    /// has no event for yet.
    pub fn is_idle_by_kernel(&mut self) -> bool {
        let seen = recv(
            self.tcp(),
            &mut [0_u8; 1],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        );
        matches!(seen, Err(Errno::AGAIN)) && self.is_idle()
    }

    /// Bytes that were written and that the peer has not acknowledged, also
    /// where the connection has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unacknowledged(&self) -> io::Result<usize> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (tcp(7), the same number as TIOCOUTQ) writes one int
        // to where it is told to, which outlives the call; the descriptor is open
        // for as long as `self` is borrowed.
        let done = unsafe { libc::ioctl(self.tcp().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(usize::try_from(bytes).unwrap_or(0))
    }
}

/// Bytes that were not taken by the kernel at once, or that may be sent again.
#[derive(Debug, Default)]
pub struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Pending {
    /// Bytes all to be sent.
    #[must_use]
    pub fn new(bytes: Vec<u8>, sent: usize) -> Self {
        Self { bytes, sent }
    }

    /// Whether everything has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// How much has been sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Starts over: everything is to be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Takes the storage out.
    pub fn take(&mut self) -> Vec<u8> {
        self.sent = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Sends what is left; `Ready` once nothing is.
    pub fn poll_send(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let sent = ready!(io.poll_write(cx, [&self.bytes[self.sent..], &[]]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        io.poll_flush(cx)
    }

    /// Sends `bytes` at once as far as they go, and keeps them behind what was
    /// sent before, so that all of it can be sent again.
    ///
    /// # Errors
    /// The connection's error; the bytes are kept then, too.
    pub fn send_and_keep(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> io::Result<()> {
        debug_assert!(self.is_empty());
        self.bytes.extend_from_slice(bytes);
        if let Poll::Ready(sent) = io.poll_write(cx, [bytes, &[]]) {
            self.sent += sent?;
        }
        Ok(())
    }

    /// Sends `parts` at once as far as they go and keeps the rest. Nothing may
    /// be left from before. `more` says that what follows is at hand.
    ///
    /// # Errors
    /// The connection's error.
    pub fn send(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
        parts: [&[u8]; 2],
        more: bool,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<()> {
        debug_assert!(self.is_empty());
        let total = parts[0].len() + parts[1].len();
        if total == 0 {
            return Ok(());
        }
        let written = match parts {
            [only, []] if more => io.poll_write_more(cx, only),
            _ => io.poll_write(cx, parts),
        };
        let sent = match written {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        if sent == total {
            return Ok(());
        }
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        self.bytes.clear();
        self.sent = 0;
        let first = sent.min(parts[0].len());
        self.bytes.extend_from_slice(&parts[0][first..]);
        self.bytes.extend_from_slice(&parts[1][sent - first..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream as StdStream};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// A connection within a runtime, and its other end.
    async fn pair() -> (Io, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        (Io::Tcp(stream), listener.accept().unwrap().0)
    }

    /// Waits in the kernel, so that the driver gets no event.
    fn wait_for_input(io: &Io) {
        let mut fds = [PollFd::new(io.tcp(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, None), Ok(1));
    }

    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn an_end_that_the_driver_was_not_told_of_is_seen() {
        block_on(async {
            let (mut io, peer) = pair().await;
            assert!(io.is_idle() && io.is_idle_by_kernel());
            drop(peer);
            wait_for_input(&io);
            assert!(io.is_idle(), "the driver knows of the end by now");
            assert!(!io.is_idle_by_kernel());
        });
    }

    #[test]
    fn stray_bytes_that_the_driver_was_not_told_of_are_seen() {
        block_on(async {
            let (mut io, mut peer) = pair().await;
            peer.write_all(b"x").unwrap();
            wait_for_input(&io);
            assert!(!io.is_idle_by_kernel());
        });
    }

    #[test]
    fn what_the_peer_has_is_acknowledged_also_after_its_end() {
        block_on(async {
            let (mut io, mut peer) = pair().await;
            let written = poll_fn(|cx| io.poll_write(cx, [b"abc", &[]])).await;
            assert_eq!(written.unwrap(), 3);
            peer.read_exact(&mut [0; 3]).unwrap();
            drop(peer);
            wait_for_input(&io);
            assert_eq!(io.unacknowledged().unwrap(), 0);
        });
    }

    #[test]
    fn what_is_kept_is_sent_again_whole() {
        block_on(async {
            let (mut first, peer) = pair().await;
            let mut pending = Pending::default();
            drop(peer);
            wait_for_input(&first);
            poll_fn(|cx| {
                // The peer's reset may come between both.
                drop(pending.send_and_keep(&mut first, cx, b"abc"));
                pending.sent = pending.bytes.len();
                drop(pending.send_and_keep(&mut first, cx, b"def"));
                Poll::Ready(())
            })
            .await;
            let (mut second, mut peer) = pair().await;
            pending.rewind();
            poll_fn(|cx| pending.poll_send(&mut second, cx))
                .await
                .unwrap();
            let mut got = [0; 6];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"abcdef");
        });
    }
}
