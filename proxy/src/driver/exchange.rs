//! One request and its response: both directions at once, within one task.

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Context, Poll};

use http1::Version;
use http1::body::Body;
use http1::reject::{ErrorFormat, Reject};
use http1::response::RequestContext;

use super::client::{Conn, Refusal};
use super::io::{Io, Pending};
use super::pool::{After, Lease};
use super::queue::QueueError;
use super::retry::{Disconnect, Retry};
use super::splice::Splice;
use super::upstream::{Failure, Upstream};
use super::watch::Watch;
use crate::config::Algorithm;

/// What is kept of a request while it is answered.
#[derive(Debug)]
pub struct Exchange {
    pub(super) upstream: Upstream,
    /// Upstream, algorithm and client, to choose again.
    pub(super) route: (usize, Algorithm, IpAddr),
    /// The request's body, as read from the client.
    pub(super) request: Body,
    /// Bytes of it so far, its coding included.
    pub(super) body_bytes: u64,
    /// Of the request's body so far, without its coding.
    pub(super) content_bytes: u64,
    /// The response's body, once its head is there.
    pub(super) response: Body,
    /// Bytes for the backend; everything sent so far while `retry` needs it.
    pub(super) to_up: Pending,
    /// Bytes for the client.
    pub(super) to_client: Pending,
    /// The beginning of a response head that is not complete.
    pub(super) partial_head: Vec<u8>,
    pub(super) context: RequestContext,
    pub(super) version: Version,
    /// When the request may be sent again as it stands in `to_up`.
    pub(super) retry: Retry,
    pub(super) progress: Progress,
    pub(super) kind: Kind,
    pub(super) transfer: Transfer,
    /// How the client wants errors of the proxy to look.
    pub(super) error_format: ErrorFormat,
    /// Whether the client's connection persists (RFC 9112, section 9.3).
    pub(super) keep_alive: bool,
    /// What becomes of the backend's connection.
    pub(super) up_after: After,
    pub(super) intake: Intake,
    /// The request's body on its way within the kernel.
    pub(super) splice_in: Option<Splice>,
    /// The response's body on its way within the kernel.
    pub(super) splice_out: Option<Splice>,
    pub(super) client: Watch,
    pub(super) interim_count: u8,
    pub(super) attempts: u32,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            upstream: Upstream::Queued,
            route: (0, Algorithm::default(), IpAddr::from([0, 0, 0, 0])),
            request: Body::Done,
            body_bytes: 0,
            content_bytes: 0,
            response: Body::Done,
            to_up: Pending::default(),
            to_client: Pending::default(),
            partial_head: Vec::new(),
            context: RequestContext::default(),
            version: Version::Http11,
            retry: Retry::Never,
            progress: Progress::Awaited,
            kind: Kind::Request,
            transfer: Transfer::AsReceived,
            error_format: ErrorFormat::Json,
            keep_alive: false,
            up_after: After::Close,
            intake: Intake::Open,
            splice_in: None,
            splice_out: None,
            client: Watch::On,
            interim_count: 0,
            attempts: 0,
        }
    }
}

/// What the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A response.
    Request,
    /// A tunnel (CONNECT).
    Tunnel,
}

/// How the response's body is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// Byte for byte.
    AsReceived,
    /// Without the chunked coding, for a client that speaks HTTP/1.0.
    Dechunked,
}

/// Whether the backend takes the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    Open,
    /// Writing to it has failed. It may have answered before.
    Failed,
}

/// How far the response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its final head has not been read.
    Awaited,
    /// It is passed on.
    Answering,
    /// The same, without an end that can be waited for: a stream of events, or
    /// what ends with its connection.
    Streaming,
    /// The backend switched protocols.
    Switched,
}

impl Exchange {
    /// Whether the final response head has been read.
    pub(super) fn is_answered(&self) -> bool {
        self.progress != Progress::Awaited
    }

    /// Whether some of the request has not reached the backend.
    pub(super) fn is_sending(&self) -> bool {
        self.is_blocked_upstream() || !self.request.is_done()
    }

    /// Whether bytes wait for the backend to take them.
    fn is_blocked_upstream(&self) -> bool {
        let holding = self.splice_in.as_ref().is_some_and(Splice::is_holding);
        holding || !self.to_up.is_empty()
    }

    /// Bytes of the request's body so far, and those that are announced: all of
    /// a length, or the rest of a chunk. They may move within the kernel, where
    /// they are not counted before they have passed.
    pub(super) fn content_bytes_announced(&self) -> u64 {
        self.content_bytes
            .saturating_add(self.request.opaque_remaining())
    }
}

/// What happens to the client's connection next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It waits for a request.
    KeepAlive,
    /// It ends after what was sent.
    Close,
    /// It is reset.
    Abort,
}

/// Why the exchange with one backend came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The response has been passed on.
    Done,
    /// Both sides now speak another protocol.
    Switched,
    /// The backend's connection ended before it answered.
    Unanswered(Disconnect),
    /// The client gets this error; another backend would not help.
    Refused(Reject),
    /// The response cannot be completed, or the client is gone.
    Broken,
}

/// Nothing more can be done now, or the exchange is over.
pub(super) type Step = Result<bool, End>;

impl Conn {
    /// Has the request answered: each state of its way to a backend does one thing,
    /// and leads to the next or, after a failure, back.
    pub(super) async fn exchange(&mut self, exchange: &mut Exchange) -> Next {
        loop {
            match &exchange.upstream {
                Upstream::Queued => match Box::pin(self.wait_in_queue(exchange)).await {
                    Ok(lease) => self.assign(exchange, lease),
                    Err(QueueError::Refused(reject)) => {
                        return Box::pin(self.give_up(exchange, reject)).await;
                    }
                    Err(QueueError::Abandoned) => return Next::Abort,
                },
                Upstream::Leased(_) => match Box::pin(self.connect(exchange)).await {
                    Ok(io) => exchange.upstream.connect(io),
                    Err(reject @ Reject::Exhausted) => {
                        return Box::pin(self.give_up(exchange, reject)).await;
                    }
                    Err(reject) => {
                        Self::note_failure(exchange, reject);
                        if !self.reselect(exchange, Failure::Unsent) {
                            return Box::pin(self.give_up(exchange, reject)).await;
                        }
                    }
                },
                Upstream::Connected { .. } if exchange.kind == Kind::Tunnel => {
                    return Box::pin(self.open_tunnel(exchange)).await;
                }
                Upstream::Connected { .. } => {
                    self.arm_exchange(exchange);
                    let end = poll_fn(|cx| self.poll_exchange(exchange, cx)).await;
                    if let Some(next) = self.handle_end(exchange, end).await {
                        return next;
                    }
                }
            }
        }
    }

    /// Acts on the end of the exchange with one backend; `None` where it goes on
    /// with another.
    async fn handle_end(&mut self, exchange: &mut Exchange, end: End) -> Option<Next> {
        Some(match end {
            End::Done => self.finish(exchange),
            End::Switched => Box::pin(self.tunnel(exchange)).await,
            End::Unanswered(ending) => {
                let reject = Reject::UpstreamClosed;
                let failure = if exchange.upstream.is_pooled() {
                    Failure::Stale
                } else {
                    Self::note_failure(exchange, reject);
                    Failure::Unanswered
                };
                if exchange.is_retryable(ending) && self.reselect(exchange, failure) {
                    return None;
                }
                Box::pin(self.give_up(exchange, reject)).await
            }
            End::Refused(reject) => {
                Self::note_failure(exchange, reject);
                Box::pin(self.give_up(exchange, reject)).await
            }
            End::Broken => Next::Abort,
        })
    }

    /// Begins with a backend at which a slot was waited for.
    fn assign(&self, exchange: &mut Exchange, lease: Lease) {
        let pooled = match exchange.kind {
            Kind::Tunnel => None,
            Kind::Request => {
                let (now, ask_kernel) =
                    (self.worker.timers.now(), exchange.needs_live_connection());
                lease.backend.checkout(now, ask_kernel)
            }
        };
        exchange.upstream.assign(lease, pooled);
    }

    /// Tells the client that there will be no response.
    async fn give_up(&mut self, exchange: &mut Exchange, reject: Reject) -> Next {
        exchange.upstream = Upstream::Queued;
        if exchange.is_answered() {
            return Next::Abort;
        }
        let refusal = Refusal {
            reject,
            format: exchange.error_format,
            head_only: exchange.context.head,
            keep_alive: exchange.keep_alive
                && exchange.request.is_done()
                && exchange.version == Version::Http11
                && (!exchange.context.upgrade || self.unprocessed.is_empty()),
        };
        // An interim response may still be on its way.
        if !exchange.to_client.is_empty() {
            return Next::Abort;
        }
        self.refuse(refusal).await
    }

    /// Puts the backend's connection back and says what the client's does next.
    fn finish(&mut self, exchange: &mut Exchange) -> Next {
        let whole = !exchange.is_sending() && exchange.intake == Intake::Open;
        if let Upstream::Connected { lease, io, .. } = std::mem::take(&mut exchange.upstream)
            && whole
        {
            let now = self.worker.timers.now();
            lease.backend.put_back(io, now, exchange.up_after);
        }
        if whole && exchange.keep_alive {
            Next::KeepAlive
        } else {
            Next::Close
        }
    }

    fn poll_exchange(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Poll<End> {
        if self.timer.fired() {
            return Poll::Ready(self.exchange_timeout(exchange));
        }
        // TLS may hold back what it has taken; a failure shows when reading.
        if let Some(up @ Io::Tls(_)) = exchange.upstream.io_mut() {
            drop(up.poll_flush(cx));
        }
        let mut moved_once = false;
        loop {
            let mut moved = false;
            if exchange.is_sending() {
                match self.step_request(exchange, cx) {
                    Ok(step) => moved |= step,
                    Err(end) => return Poll::Ready(end),
                }
            }
            match self.step_response(exchange, cx) {
                Ok(step) => moved |= step,
                Err(end) => return Poll::Ready(end),
            }
            if !moved {
                break;
            }
            moved_once = true;
        }
        if moved_once {
            self.arm_exchange(exchange);
        }
        self.watch_client(exchange, cx)
    }

    /// Sets the deadline for whatever the exchange waits for now.
    fn arm_exchange(&self, exchange: &Exchange) {
        let ticks = self.worker.ticks.get();
        let holding = exchange.splice_out.as_ref().is_some_and(Splice::is_holding);
        let wait = if holding || !exchange.to_client.is_empty() {
            ticks.client_write
        } else if exchange.is_answered() || exchange.is_blocked_upstream() {
            ticks.body_stall
        } else if !exchange.request.is_done() {
            ticks.request_body
        } else {
            ticks.response_head
        };
        self.timer.arm(wait);
    }

    fn exchange_timeout(&self, exchange: &Exchange) -> End {
        if exchange.is_answered() {
            End::Broken
        } else if exchange.request.is_done() || exchange.is_blocked_upstream() {
            End::Refused(Reject::ResponseTimeout)
        } else {
            End::Refused(Reject::RequestTimeout)
        }
    }
}
