//! When a request may be sent a second time.
//!
//! A backend closes an idle connection when it likes, also while a request is
//! on its way to it. Sent again, a request that was carried out is carried out
//! twice, so what is idempotent may go elsewhere whenever it was not answered,
//! and everything else only where the backend cannot have seen any of it (RFC
//! 9110, section 9.2.2; RFC 9112, section 9.3.1).

use super::exchange::Exchange;
use super::io::Io;

/// Bytes of a body, its coding included, that are kept to be sent again. Larger
/// bodies mostly move within the kernel, and cannot be kept.
const BODY_BYTES_MAX: u64 = 32 << 10;
/// What TLS puts into one record (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 16 << 10;

/// When a request that was not answered may go to another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Never: an answer has begun, or the beginning of the request is not kept.
    Never,
    /// Where the backend has taken nothing of it.
    IfUnread,
    /// Always: it is idempotent.
    Always,
}

/// How the backend's connection ended before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// In order, after all that it had to say.
    Closed,
    /// By a reset, or another failure.
    Broken,
}

impl Exchange {
    /// Whether a stale connection would cost the request: then the kernel is
    /// asked for the backend's end before the connection is used.
    pub(super) fn needs_live_connection(&self) -> bool {
        self.retry != Retry::Always
    }

    /// Whether a further piece of the body, which has just been sent, is kept
    /// beside what was sent before.
    pub(super) fn keeps_body(&self) -> bool {
        let is_tls = self.upstream.io().is_some_and(Io::is_tls);
        let useful = match self.retry {
            Retry::Never => false,
            // See `is_unread`.
            Retry::IfUnread => !is_tls,
            Retry::Always => true,
        };
        useful && self.body_bytes <= BODY_BYTES_MAX
    }

    /// Whether the request may be sent again after the backend's connection
    /// ended so.
    pub(super) fn is_retryable(&self, ending: Disconnect) -> bool {
        let allowed = match self.retry {
            Retry::Never => false,
            Retry::IfUnread => ending == Disconnect::Closed && self.is_unread(),
            Retry::Always => true,
        };
        // Who sends an interim response has taken the request.
        allowed && self.interim_count == 0
    }

    /// Whether the backend, whose end has come, acknowledged nothing of the
    /// request. What its process read before it closed is acknowledged by the
    /// end itself; a reset acknowledges nothing, and tells nothing.
    fn is_unread(&self) -> bool {
        let Some(up) = self.upstream.io() else {
            return false;
        };
        // By TLS a byte is more than one on the wire. Of one record that makes no
        // difference, because a part of it cannot be read.
        if up.is_tls() && self.to_up.sent() > RECORD_BYTES_MAX {
            return false;
        }
        match up.unacknowledged() {
            Ok(bytes) => bytes >= self.to_up.sent(),
            Err(error) => {
                tracing::debug!(%error, "cannot tell what the backend has taken");
                false
            }
        }
    }
}
