//! Watching for the end of a client that waits for its response.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::client::{Conn, READ_AHEAD_BYTES_MAX};
use super::exchange::{End, Exchange, Progress};

/// Whether the client is watched for its end while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    On,
    /// No more: it has sent so much ahead that its end cannot be seen.
    Off,
    /// It has ended its side.
    Ended,
}

impl Conn {
    /// Ends the exchange of a client that is gone while it waits, once nothing of
    /// its request is left to be sent. A reset says that it is; an end in order
    /// may also come from one that has said all it has to say and still reads
    /// (RFC 9112, section 9.6), which `ignore_client_abort` believes, but for
    /// streams, which would not end otherwise.
    pub(super) fn watch_client(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        if !exchange.request.is_done() {
            return Poll::Pending;
        }
        if exchange.client == Watch::On {
            exchange.client = match self.poll_client(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
                Poll::Ready(Ok(watch)) => watch,
            };
        }
        let worker = &self.worker;
        let given_up = exchange.client == Watch::Ended
            && (exchange.progress == Progress::Streaming
                || !worker.table().table.config.raw.server.ignore_client_abort);
        if given_up {
            Poll::Ready(End::Broken)
        } else {
            Poll::Pending
        }
    }

    /// Looks for the client's end. The beginning of what it sends ahead is taken
    /// in, as the end of TLS and of a connection with bytes before it show only
    /// behind them.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Watch>> {
        if self.unprocessed.is_empty() {
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch.borrow_mut();
            let ahead = &mut scratch.input[..READ_AHEAD_BYTES_MAX];
            match ready!(self.io.poll_read(cx, ahead))? {
                0 => return Poll::Ready(Ok(Watch::Ended)),
                bytes => self.store_unprocessed(&ahead[..bytes]),
            }
        }
        let ended = ready!(self.io.poll_ended(cx))?;
        Poll::Ready(Ok(if ended { Watch::Ended } else { Watch::Off }))
    }
}
