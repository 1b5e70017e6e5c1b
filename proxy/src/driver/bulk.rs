//! Bodies that move within the kernel, in both directions of an exchange.

use std::task::Context;

use super::client::Conn;
use super::exchange::{End, Exchange, Intake, Step, Transfer};
use super::io::Io;
use super::response::{upstream_ended, upstream_error};
use super::splice::{PUT_BYTES_MAX, SPLICE_BYTES_MIN, SpliceError};

/// Bodies with more than this left follow their head instead of sharing the pipe
/// with it: sharing saves a sixth of the CPU time at 64 KiB and costs a sixth at
/// 1 MiB.
const WITH_HEAD_BYTES_MAX: u64 = 128 << 10;

impl Conn {
    /// Moves the request's body within the kernel, where it goes that way.
    pub(super) fn splice_request(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Option<Step> {
        let wanted = exchange.request.opaque_remaining();
        let (Io::Tcp(client), Some(Io::Tcp(up))) = (&self.io, exchange.upstream.io()) else {
            return None;
        };
        if exchange.splice_in.is_none() {
            if wanted < SPLICE_BYTES_MIN || !self.unprocessed.is_empty() {
                return None;
            }
            exchange.splice_in = Some(self.worker.splice()?);
        }
        let splice = exchange.splice_in.as_mut()?;
        match splice.step(client, up, wanted, cx) {
            Ok(progress) => {
                exchange.request.skip(progress.taken);
                exchange.body_bytes += progress.taken;
                exchange.content_bytes += progress.taken;
                if !splice.is_holding() && exchange.request.opaque_remaining() == 0 {
                    self.worker.recycle_splice(exchange.splice_in.take()?);
                }
                if progress.taken > 0 {
                    self.commit(exchange);
                }
                Some(if progress.ended {
                    Err(End::Broken)
                } else {
                    Ok(progress.moved)
                })
            }
            Err(SpliceError::To(_)) => {
                exchange.intake = Intake::Failed;
                Some(Ok(true))
            }
            Err(SpliceError::From(_)) => Some(Err(End::Broken)),
        }
    }

    /// Takes the beginning of a large body that follows its head at once, so
    /// that both leave for the client in one go. Where the body is not too large,
    /// the head goes through the pipe too, which spares a call into TCP.
    pub(super) fn splice_ahead(
        &self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
        head: &mut Vec<u8>,
    ) -> Result<(), End> {
        let wanted = exchange.response.opaque_remaining();
        let (Io::Tcp(_), Some(Io::Tcp(up))) = (&self.io, exchange.upstream.io()) else {
            return Ok(());
        };
        if wanted < SPLICE_BYTES_MIN
            || exchange.transfer == Transfer::Dechunked
            || exchange.splice_out.is_some()
        {
            return Ok(());
        }
        let Some(mut splice) = self.worker.splice() else {
            return Ok(());
        };
        let with_head =
            wanted <= WITH_HEAD_BYTES_MAX && head.len() <= PUT_BYTES_MAX && splice.put(head);
        let filled = splice.fill(up, wanted, cx);
        exchange.splice_out = Some(splice);
        if with_head {
            head.clear();
            self.commit(exchange);
        }
        match filled {
            Ok(taken) => {
                exchange.response.skip(taken);
                Ok(())
            }
            Err(error) => Err(upstream_error(exchange, &error)),
        }
    }

    /// Moves the response's body within the kernel, where it goes that way.
    pub(super) fn splice_response(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Option<Step> {
        let wanted = exchange.response.opaque_remaining();
        let (Io::Tcp(client), Some(Io::Tcp(up))) = (&self.io, exchange.upstream.io()) else {
            return None;
        };
        if exchange.splice_out.is_none() {
            let as_received = exchange.transfer == Transfer::AsReceived;
            if wanted < SPLICE_BYTES_MIN || !exchange.is_answered() || !as_received {
                return None;
            }
            exchange.splice_out = Some(self.worker.splice()?);
        }
        let splice = exchange.splice_out.as_mut()?;
        match splice.step(up, client, wanted, cx) {
            Ok(progress) => {
                exchange.response.skip(progress.taken);
                if !splice.is_holding() && exchange.response.opaque_remaining() == 0 {
                    self.worker.recycle_splice(exchange.splice_out.take()?);
                }
                if progress.ended {
                    return Some(upstream_ended(exchange).map(|()| true));
                }
                Some(Ok(progress.moved))
            }
            Err(SpliceError::To(_)) => Some(Err(End::Broken)),
            Err(SpliceError::From(error)) => Some(Err(upstream_error(exchange, &error))),
        }
    }
}
