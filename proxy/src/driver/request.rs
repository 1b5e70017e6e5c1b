//! What a client sends behind its head: bodies followed to their end, and passed on.

use std::rc::Rc;
use std::task::{Context, Poll};

use http1::reject::Reject;

use super::client::Conn;
use super::exchange::{End, Exchange, Intake, Step};

impl Conn {
    /// Moves the request on by one read and one write.
    pub(super) fn step_request(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Step {
        let Some(up) = exchange.upstream.io_mut() else {
            return Ok(false);
        };
        if exchange.intake == Intake::Failed {
            return Ok(false);
        }
        if !exchange.to_up.is_empty() {
            return match exchange.to_up.poll_send(up, cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(())) => Ok(true),
                Poll::Ready(Err(_)) => {
                    // The backend may have answered before it closed.
                    exchange.intake = Intake::Failed;
                    Ok(true)
                }
            };
        }
        if let Some(step) = self.splice_request(exchange, cx) {
            return step;
        }
        let worker = Rc::clone(&self.worker);
        let mut scratch = worker.scratch.borrow_mut();
        let input = &mut scratch.input;
        let len = if self.unprocessed.is_empty() {
            match self.io.poll_read(cx, input) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Broken),
                Poll::Ready(Ok(len)) => len,
            }
        } else {
            input[..self.unprocessed.len()].copy_from_slice(&self.unprocessed);
            self.unprocessed.len()
        };
        let body = &input[..len];
        let content = &mut exchange.content_bytes;
        let Ok(here) = exchange.request.consume_counted(body, content) else {
            return Err(End::Refused(Reject::Chunk));
        };
        self.store_unprocessed(&body[here..]);
        exchange.body_bytes += here as u64;
        if exchange.content_bytes_announced() > worker.table().table.config.limits.body_bytes_max {
            return Err(End::Refused(Reject::BodyTooLarge));
        }
        let keeps = exchange.keeps_body();
        if !keeps {
            self.commit(exchange);
        }
        let Some(up) = exchange.upstream.io_mut() else {
            return Ok(false);
        };
        let body = &body[..here];
        let sent = if keeps {
            exchange.to_up.send_and_keep(up, cx, body)
        } else {
            exchange
                .to_up
                .send(up, cx, [body, &[]], false, || worker.take_buffer())
        };
        if sent.is_err() {
            exchange.intake = Intake::Failed;
        }
        Ok(true)
    }
}
