//! What a backend sends: heads are judged and written anew, bodies followed to
//! their end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::client::{COPY_BYTES_MAX, Conn};
use super::exchange::{End, Exchange, Progress, Step, Transfer};
use super::pool::After;
use super::retry::{Disconnect, Retry};
use super::splice::{PUT_BYTES_MAX, SPLICE_BYTES_MIN, Splice};
use super::timers::ticks;
use super::worker::Scratch;
use http1::body::Body;
use http1::forward::{self, Answer};
use http1::reject::Reject;
use http1::request::header_slots;
use http1::response::{ResponseHead, parse_response};
use http1::{Framing, Version};

/// Most interim responses to one request.
const INTERIM_MAX: u8 = 32;

/// Bytes read at most while a response head is awaited. With a head comes only
/// the beginning of a large body, so that the rest can move within the kernel;
/// rewritten, both together should be no more than [`PUT_BYTES_MAX`].
const HEAD_READ_BYTES: usize = PUT_BYTES_MAX - 128;

impl Conn {
    /// Moves the response on by one read and one write.
    pub(super) fn step_response(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Step {
        match exchange.to_client.poll_send(&mut self.io, cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(End::Broken),
            Poll::Ready(Ok(())) => {}
        }
        if exchange.progress == Progress::Switched {
            return Err(End::Switched);
        }
        let holding = exchange.splice_out.as_ref().is_some_and(Splice::is_holding);
        if exchange.is_answered() && exchange.response.is_done() && !holding {
            return Err(End::Done);
        }
        if let Some(step) = self.splice_response(exchange, cx) {
            return step;
        }
        let is_answered = exchange.is_answered();
        let Some(up) = exchange.upstream.io_mut() else {
            return Ok(false);
        };
        let worker = Rc::clone(&self.worker);
        let mut scratch = worker.scratch.borrow_mut();
        let Scratch { input, out } = &mut *scratch;
        let had = exchange.partial_head.len();
        input[..had].copy_from_slice(&exchange.partial_head);
        let end = if is_answered {
            input.len()
        } else {
            had + HEAD_READ_BYTES
        };
        match up.poll_read(cx, &mut input[had..end]) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => upstream_ended(exchange).map(|()| true),
            Poll::Ready(Ok(bytes)) => {
                out.clear();
                let filled = had + bytes == end;
                self.take_response(exchange, cx, input, had + bytes, filled, out)?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(upstream_error(exchange, &error)),
        }
    }

    /// Takes what a backend sent, the first `len` bytes of `buffer`, and passes
    /// on what belongs to the response. `filled` says that more may wait.
    pub(super) fn take_response(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        mut len: usize,
        filled: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let input = &buffer[..len];
        let fresh = !exchange.is_answered();
        let mut at = 0;
        while !exchange.is_answered() {
            let limits = self.worker.table().table.config.limits.head;
            let mut slots = header_slots();
            match parse_response(&input[at..], &mut slots, limits, exchange.context) {
                Err(reject) => return Err(End::Refused(reject)),
                Ok(None) => {
                    exchange.partial_head.clear();
                    exchange.partial_head.extend_from_slice(&input[at..]);
                    return self.pass_on(exchange, cx, [out, &[]]);
                }
                Ok(Some(head)) => {
                    at += head.head_bytes;
                    self.take_head(exchange, &head, out)?;
                }
            }
        }
        exchange.partial_head = Vec::new();
        if exchange.progress == Progress::Switched {
            return self.pass_on(exchange, cx, [out, &input[at..]]);
        }
        // A body too small to move within the kernel is read along with its head.
        let here = (len - at) as u64;
        if fresh
            && filled
            && exchange.response.opaque_remaining() < here + SPLICE_BYTES_MIN
            && let Some(up) = exchange.upstream.io_mut()
            && let Poll::Ready(Ok(more)) = up.poll_read(cx, &mut buffer[len..])
        {
            len += more;
        }
        let rest = &buffer[at..len];
        let dechunked = exchange.transfer == Transfer::Dechunked;
        let taken = if dechunked {
            exchange.response.decode(rest, out)
        } else {
            exchange.response.consume(rest)
        };
        let Ok(taken) = taken else {
            if !fresh {
                // The client must not take it for a whole.
                return Err(End::Broken);
            }
            // Nothing was sent, so the client can still get an error.
            exchange.progress = Progress::Awaited;
            return Err(End::Refused(Reject::ResponseInvalid));
        };
        // What follows an answer belongs to no request: it is dropped with the connection,
        // whether it was read with its answer or not.
        if exchange.response.is_done() && taken < rest.len() {
            exchange.up_after = After::Close;
        }
        let mut body = if dechunked { &[] } else { &rest[..taken] };
        // One buffer costs the kernel less than two, up to what is cheap to copy.
        if !out.is_empty() && body.len() <= COPY_BYTES_MAX {
            out.extend_from_slice(body);
            body = &[];
        }
        if fresh && body.is_empty() {
            self.splice_ahead(exchange, cx, out)?;
        }
        self.pass_on(exchange, cx, [out, body])
    }

    fn take_head(
        &mut self,
        exchange: &mut Exchange,
        head: &ResponseHead<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let date = self.worker.date.get();
        let mut answer = Answer {
            version: exchange.version,
            keep_alive: true,
            date: &date,
        };
        if head.is_interim() {
            exchange.interim_count += 1;
            if exchange.interim_count > INTERIM_MAX {
                return Err(End::Refused(Reject::ResponseInvalid));
            }
            // HTTP/1.0 knows no interim responses.
            if exchange.version == Version::Http11 {
                forward::write_response(out, head, &answer);
            }
            return Ok(());
        }
        if let Some(lease) = exchange.upstream.lease() {
            lease.backend.shared.outcomes().answered(head.status);
        }
        self.status = head.status;
        if let (Some(log_entry), Some(lease)) = (&mut self.log_entry, exchange.upstream.lease()) {
            log_entry.backend = Some(Arc::clone(&lease.backend.shared));
        }
        exchange.progress = if head.status == 101 {
            Progress::Switched
        } else if head.event_stream || head.framing == Framing::UntilClose {
            Progress::Streaming
        } else {
            Progress::Answering
        };
        exchange.response = Body::new(head.framing);
        exchange.up_after = after(exchange, head);
        if head.framing == Framing::Chunked && exchange.version == Version::Http10 {
            exchange.transfer = Transfer::Dechunked;
        }
        let dechunked = exchange.transfer == Transfer::Dechunked;
        let unending = head.framing == Framing::UntilClose || dechunked;
        // A client that is answered while it sends its body may or may not go
        // on with it, and bytes sent after an upgrade that was declined could be
        // taken for a request: in both cases the connection has no clear next byte.
        let unclear = exchange.is_sending()
            || (exchange.context.upgrade && head.status != 101 && !self.unprocessed.is_empty());
        exchange.keep_alive &= !unending && !unclear && !self.worker.draining.get();
        answer.keep_alive = exchange.keep_alive;
        forward::write_response(out, head, &answer);
        Ok(())
    }

    fn pass_on(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
        parts: [&[u8]; 2],
    ) -> Result<(), End> {
        if !parts[0].is_empty() {
            self.commit(exchange);
        }
        let worker = &self.worker;
        let more = exchange.splice_out.as_ref().is_some_and(Splice::is_holding);
        exchange
            .to_client
            .send(&mut self.io, cx, parts, more, || worker.take_buffer())
            .map_err(|_| End::Broken)
    }

    /// The request is not sent again: something was answered, or its beginning
    /// is not kept any more.
    pub(super) fn commit(&self, exchange: &mut Exchange) {
        exchange.retry = Retry::Never;
        if exchange.to_up.is_empty() {
            self.worker.recycle_buffer(exchange.to_up.take());
        }
    }
}

/// What becomes of the backend's connection behind this answer.
fn after(exchange: &Exchange, head: &ResponseHead<'_, '_>) -> After {
    let Some(lease) = exchange.upstream.lease().filter(|_| head.keep_alive) else {
        return After::Close;
    };
    let ours = lease.backend.idle_ticks();
    // A second early, so that a request does not meet the backend's end halfway.
    let theirs = head.idle_seconds.map(|seconds| {
        let span = Duration::from_secs(seconds.saturating_sub(1));
        if span.is_zero() { 0 } else { ticks(span) }
    });
    match theirs.map_or(ours, |theirs| theirs.min(ours)) {
        0 => After::Close,
        ticks => After::Keep {
            ticks,
            verify: head.framing == Framing::Empty,
        },
    }
}

/// The backend closed in order.
pub(super) fn upstream_ended(exchange: &mut Exchange) -> Result<(), End> {
    if !exchange.is_answered() {
        return Err(End::Unanswered(Disconnect::Closed));
    }
    if matches!(exchange.response, Body::UntilClose) {
        exchange.response = Body::Done;
        return Ok(());
    }
    Err(End::Broken)
}

pub(super) fn upstream_error(exchange: &Exchange, error: &io::Error) -> End {
    tracing::debug!(%error, "the backend's connection failed");
    if exchange.is_answered() {
        return End::Broken;
    }
    // TLS reports an end without close_notify in this way.
    End::Unanswered(match error.kind() {
        io::ErrorKind::UnexpectedEof => Disconnect::Closed,
        _ => Disconnect::Broken,
    })
}
