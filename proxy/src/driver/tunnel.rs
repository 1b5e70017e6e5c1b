//! After 101, or CONNECT: bytes both ways until both sides have ended.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::client::Conn;
use super::exchange::{Exchange, Next};
use super::io::{Io, Pending};
use super::upstream::Upstream;
use super::worker::Worker;

/// One direction of a tunnel.
#[derive(Debug, Default)]
struct Lane {
    pending: Pending,
    /// The sender has ended.
    ended: bool,
    /// The end has been passed on to the receiver.
    shut: bool,
}

/// A side failed: nothing can be delivered any more.
struct Failed;

impl Lane {
    /// Moves what can be moved now; says whether anything was.
    fn step(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        worker: &Worker,
        cx: &mut Context<'_>,
    ) -> Result<bool, Failed> {
        let mut moved = false;
        loop {
            match self.pending.poll_send(to, cx) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(_)) => return Err(Failed),
                Poll::Ready(Ok(())) => {}
            }
            if self.ended {
                if !self.shut {
                    match to.poll_shutdown(cx) {
                        Poll::Pending => return Ok(moved),
                        Poll::Ready(Err(_)) => return Err(Failed),
                        Poll::Ready(Ok(())) => self.shut = true,
                    }
                }
                return Ok(moved);
            }
            let mut scratch = worker.scratch.borrow_mut();
            match from.poll_read(cx, &mut scratch.input) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Err(_)) => return Err(Failed),
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(bytes)) => {
                    let parts = [&scratch.input[..bytes], &[]];
                    self.pending
                        .send(to, cx, parts, false, || worker.take_buffer())
                        .map_err(|_| Failed)?;
                }
            }
            moved = true;
        }
    }
}

impl Conn {
    /// Carries a WebSocket or whatever CONNECT was for. What the client sent after
    /// its request was held back until now; what was not sent to it yet goes
    /// first.
    pub(super) async fn tunnel(&mut self, exchange: &mut Exchange) -> Next {
        // The slot at the backend is held until the tunnel ends.
        let Upstream::Connected {
            io: mut up,
            lease: _lease,
            ..
        } = std::mem::take(&mut exchange.upstream)
        else {
            return Next::Abort;
        };
        let worker = Rc::clone(&self.worker);
        let idle_ticks = worker.ticks.get().tunnel_idle;
        let held_back = Pending::new(std::mem::take(&mut self.unprocessed), 0);
        let mut outward = Lane {
            pending: held_back,
            ..Lane::default()
        };
        let mut inward = Lane {
            pending: std::mem::take(&mut exchange.to_client),
            ..Lane::default()
        };
        self.timer.arm(idle_ticks);
        poll_fn(|cx| {
            if self.timer.fired() {
                return Poll::Ready(Next::Close);
            }
            let outward_moved = outward.step(&mut self.io, &mut up, &worker, cx);
            let inward_moved = inward.step(&mut up, &mut self.io, &worker, cx);
            match (outward_moved, inward_moved) {
                (Ok(false), Ok(false)) => {}
                (Ok(_), Ok(_)) => self.timer.arm(idle_ticks),
                _ => return Poll::Ready(Next::Abort),
            }
            if outward.shut && inward.shut {
                Poll::Ready(Next::Close)
            } else {
                Poll::Pending
            }
        })
        .await
    }
}
