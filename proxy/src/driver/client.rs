//! The client's side of a connection: request heads in, refusals out.

use std::future::poll_fn;
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::exchange::{Exchange, Next};
use super::io::{Io, Pending};
use super::pool::Lease;
use super::retry::Retry;
use super::timers::{Timer, Wait};
use super::worker::{Admission, Scratch, Worker};
use crate::access_log::Entry;
use crate::config::{Algorithm, Config, Route};
use http1::Version;
use http1::body::Body;
use http1::fields::list_members;
use http1::forward::{self, Client};
use http1::reject::{self, ErrorFormat, Reject};
use http1::request::{RequestHead, header_slots, is_idempotent, parse_request};
use http1::response::RequestContext;

/// How long a closed connection is read from, so that the answer is not lost to
/// a reset, in ticks: while nothing comes, and in all. A client may send much of
/// a body before it looks at an answer that came early.
const LINGER_TICKS: u32 = 40;
const LINGER_TICKS_MAX: u32 = 600;
/// Bytes read at most while a request head is awaited. This is also what a client
/// that sends ahead can have kept for it.
pub(super) const READ_AHEAD_BYTES_MAX: usize = 16 << 10;
/// How long a head, or the handshake before it, may take while the worker stops,
/// in ticks.
pub(super) const DRAIN_HEAD_TICKS: u32 = 20;
/// Bodies that came with the head are copied behind it up to this size.
pub(super) const COPY_BYTES_MAX: usize = 4 << 10;

/// An address as text, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddressText {
    bytes: [u8; 39],
    len: u8,
}

impl AddressText {
    pub(super) fn new(address: IpAddr) -> Self {
        let mut bytes = [0; 39];
        let mut rest = &mut bytes[..];
        let written = write!(rest, "{}", address.to_canonical());
        debug_assert!(written.is_ok(), "39 bytes hold any canonical address");
        let len = 39 - rest.len();
        Self {
            bytes,
            len: u8::try_from(len).unwrap_or(0),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

/// A client connection.
#[derive(Debug)]
pub struct Conn {
    pub(super) worker: Rc<Worker>,
    pub(super) io: Io,
    pub(super) timer: Timer,
    /// Bytes that were read and not handled yet.
    pub(super) unprocessed: Vec<u8>,
    /// Whether `unprocessed` may hold a whole request.
    pipelined: bool,
    /// Requests taken from `unprocessed` one after the other.
    pipelined_count: u32,
    /// Whether the deadline of the current wait is set.
    armed: bool,
    stage: Stage,
    /// The access log entry of the request, where a log is written.
    pub(super) log_entry: Option<Box<Entry>>,
    /// The status of the latest final answer.
    pub(super) status: u16,
    secure: bool,
    trusted: bool,
    pub(super) peer: IpAddr,
    peer_text: AddressText,
    _admission: Admission,
}

/// How far the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No request has come yet.
    New,
    /// It may have further requests.
    Persistent,
    /// Its idle time is over, or its slot was given to another client: a request
    /// that was under way by then is the last one.
    LastRequest,
    /// All answers have been written.
    Closing,
}

/// The outcome of waiting for a request.
pub(super) enum Head {
    Closed,
    Refuse(Refusal),
    Forward(Box<Exchange>),
}

/// An error response of the proxy itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) reject: Reject,
    pub(super) format: ErrorFormat,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
}

impl Refusal {
    fn close(reject: Reject) -> Self {
        Self {
            reject,
            format: ErrorFormat::Json,
            head_only: false,
            keep_alive: false,
        }
    }
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(worker: Rc<Worker>, io: Io, peer: IpAddr, admission: Admission) -> Self {
        let peer = peer.to_canonical();
        let timer = worker.timers.timer();
        let secure = io.is_tls();
        let table = worker.table();
        let trusted = table
            .table
            .config
            .trusted_proxies
            .iter()
            .any(|one| one.contains(peer));
        Self {
            worker,
            io,
            timer,
            unprocessed: Vec::new(),
            pipelined: false,
            pipelined_count: 0,
            armed: false,
            stage: Stage::New,
            log_entry: None,
            status: 0,
            secure,
            trusted,
            peer,
            peer_text: AddressText::new(peer),
            _admission: admission,
        }
    }

    /// Serves requests until the connection ends.
    ///
    /// Every connection holds this future for its life, so rare paths are boxed,
    /// and it is an `async move` block because the argument of an `async fn`
    /// would be kept twice.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would be larger, see above"
    )]
    pub fn serve(mut self) -> impl Future<Output = ()> {
        async move {
            poll_fn(|cx| {
                self.timer.register(cx);
                Poll::Ready(())
            })
            .await;
            loop {
                let next = match poll_fn(|cx| self.poll_head(cx)).await {
                    Head::Closed => return,
                    Head::Refuse(refusal) => Box::pin(self.refuse(refusal)).await,
                    Head::Forward(mut exchange) => {
                        let next = self.exchange(&mut exchange).await;
                        self.worker.recycle_exchange(exchange);
                        next
                    }
                };
                self.log();
                match next {
                    Next::KeepAlive => self.pipelined = !self.unprocessed.is_empty(),
                    Next::Close => return Box::pin(self.close(LINGER_TICKS_MAX)).await,
                    Next::Abort => return self.io.abort(),
                }
                self.armed = false;
            }
        }
    }

    /// Answers that the server is at its `max_conn`, and ends.
    pub async fn turn_away(mut self) {
        poll_fn(|cx| {
            self.timer.register(cx);
            Poll::Ready(())
        })
        .await;
        match self.refuse(Refusal::close(Reject::ServerFull)).await {
            Next::Abort => self.io.abort(),
            // It holds no slot, so it is not kept for long.
            Next::KeepAlive | Next::Close => self.close(LINGER_TICKS).await,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Head> {
        let worker = Rc::clone(&self.worker);
        let limits = worker.table().table.config.limits.head;
        loop {
            let late = self.armed && self.timer.fired();
            if late {
                self.stage = Stage::LastRequest;
            }
            if late && !self.unprocessed.is_empty() {
                return Poll::Ready(Head::Refuse(Refusal::close(Reject::RequestTimeout)));
            }
            let mut scratch = worker.scratch.borrow_mut();
            let Scratch { input, out } = &mut *scratch;
            let had = self.unprocessed.len();
            input[..had].copy_from_slice(&self.unprocessed);
            let mut len = had;
            let mut look = std::mem::take(&mut self.pipelined);
            if !look {
                self.pipelined_count = 0;
                let end = had + READ_AHEAD_BYTES_MAX;
                let Poll::Ready(read) = self.io.poll_read(cx, &mut input[had..end]) else {
                    if late {
                        return Poll::Ready(Head::Closed);
                    }
                    self.arm_head();
                    return Poll::Pending;
                };
                match read {
                    Ok(0) | Err(_) => return Poll::Ready(Head::Closed),
                    Ok(bytes) => len += bytes,
                }
                // A head cannot be complete without a further line end; looking
                // again at every byte would be quadratic.
                look = had == 0 || input[had..len].contains(&b'\n') || len >= limits.head_bytes_max;
            }
            if look {
                match parse_request(&input[..len], &mut header_slots(), limits) {
                    Err(reject) => return Poll::Ready(Head::Refuse(Refusal::close(reject))),
                    Ok(Some(head)) => {
                        return Poll::Ready(self.begin(cx, &head, &input[..len], out));
                    }
                    Ok(None) => {}
                }
            }
            self.store_unprocessed(&input[..len]);
            if had == 0 {
                self.armed = false;
            }
        }
    }

    /// Sets the deadline of this wait, once, so that a trickle of bytes does
    /// not put it off.
    fn arm_head(&mut self) {
        if self.armed {
            return;
        }
        self.armed = true;
        let ticks = self.worker.ticks.get();
        let draining = self.worker.draining.get();
        match (self.unprocessed.is_empty(), self.stage == Stage::New) {
            (true, false) if draining => self.timer.arm_for(Wait::NextRequest, 0),
            (true, true) | (false, _) if draining => {
                self.timer.arm_for(Wait::Head, DRAIN_HEAD_TICKS);
            }
            (true, false) => self.timer.arm_for(Wait::NextRequest, ticks.keep_alive),
            (true, true) | (false, _) => self.timer.arm_for(Wait::Head, ticks.request_head),
        }
    }

    /// Writes the request that was just answered to the access log.
    fn log(&mut self) {
        let status = std::mem::take(&mut self.status);
        self.worker.with_access_log(|log| {
            let nothing = || Entry {
                client: self.peer,
                peer: self.peer,
                line: Vec::new(),
                status: 0,
                backend: None,
            };
            let log_entry = self
                .log_entry
                .take()
                .map_or_else(nothing, |log_entry| *log_entry);
            log.push(Entry {
                status,
                ..log_entry
            });
        });
    }

    /// The access log entry of this request, where a log is written.
    fn log_entry_for(&self, head: &RequestHead<'_, '_>) -> Option<Box<Entry>> {
        let local = self.worker.table();
        local.table.access_log.as_ref()?;
        let version = match head.version {
            Version::Http10 => " HTTP/1.0",
            Version::Http11 => " HTTP/1.1",
        };
        let real_ip = self.real_ip(head, &local.table.config);
        Some(Box::new(Entry {
            client: real_ip.unwrap_or(self.peer),
            peer: self.peer,
            line: [head.method, " ", head.target, version]
                .concat()
                .into_bytes(),
            status: 0,
            backend: None,
        }))
    }

    /// Stores bytes that were read and belong to what follows.
    pub(super) fn store_unprocessed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            if self.unprocessed.capacity() > 0 {
                self.worker
                    .recycle_buffer(std::mem::take(&mut self.unprocessed));
            }
            return;
        }
        if self.unprocessed.capacity() == 0 {
            self.unprocessed = self.worker.take_buffer();
        }
        self.unprocessed.clear();
        self.unprocessed.extend_from_slice(bytes);
    }

    /// Turns a request into an exchange: routes it, takes a slot at a backend,
    /// and sends it at once where a pooled connection is at hand.
    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        head: &RequestHead<'_, '_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Head {
        if self.stage == Stage::New {
            self.stage = Stage::Persistent;
        }
        self.pipelined_count += 1;
        self.worker.deposit_retry();
        self.log_entry = self.log_entry_for(head);
        if head.connect {
            return self.begin_tunnel(head, &input[head.head_bytes..]);
        }
        let worker = Rc::clone(&self.worker);
        let local = worker.table();
        let config = &local.table.config;
        let mut exchange = worker.exchange();
        exchange.prepare(head, worker.draining.get());
        let is_last = self.stage == Stage::LastRequest;
        exchange.keep_alive &= !is_last && self.pipelined_count < config.limits.pipeline_depth_max;
        exchange.request.forbid_trailer(&config.real_ip_header);
        let rest = &input[head.head_bytes..];
        exchange.content_bytes = 0;
        let content = &mut exchange.content_bytes;
        let Ok(body_here) = exchange.request.consume_counted(rest, content) else {
            return self.refused(head, Reject::Chunk, false);
        };
        exchange.body_bytes = body_here as u64;
        if exchange.content_bytes_announced() > config.limits.body_bytes_max {
            return self.refused(head, Reject::BodyTooLarge, false);
        }
        self.store_unprocessed(&rest[body_here..]);
        let keep_alive = exchange.keep_alive && exchange.request.is_done();
        let Some(route) = local.table.route(head.target) else {
            return self.refused(head, Reject::NoRoute, keep_alive);
        };
        let real_ip = self.real_ip(head, config);
        let algorithm = algorithm(route, head, self.secure);
        let client = real_ip.unwrap_or(self.peer);
        exchange.route = (route.upstream, algorithm, client);
        let lease = match worker.choose_or_queue(&local, route.upstream, algorithm, client) {
            Ok(lease) => lease,
            Err(reject) => return self.refused(head, reject, keep_alive),
        };
        // Without a slot yet, the name of the first backend is as good as another's.
        let leased = lease.as_ref().map(|lease| &lease.backend);
        let backend = leased
            .or_else(|| local.first(route.upstream))
            .map(Rc::clone);
        let host = backend
            .as_ref()
            .map_or("", |backend| backend.shared.authority.as_str());
        let real_text = real_ip.map(AddressText::new);
        let client = Client {
            peer: self.peer_text.as_str(),
            real_ip: real_text.as_ref().unwrap_or(&self.peer_text).as_str(),
            trusted: self.trusted,
            secure: self.secure,
            keep_alive: backend
                .as_ref()
                .is_none_or(|backend| backend.idle_ticks() > 0),
            host,
            real_ip_header: &config.real_ip_header,
        };
        out.clear();
        forward::write_request(out, head, &client);
        exchange.launch(cx, &worker, lease, out, &rest[..body_here]);
        Head::Forward(exchange)
    }

    pub(super) fn refused(
        &self,
        head: &RequestHead<'_, '_>,
        reject: Reject,
        keep_alive: bool,
    ) -> Head {
        Head::Refuse(Refusal {
            reject,
            format: ErrorFormat::wanted(head.accept),
            head_only: head.method == "HEAD",
            keep_alive: keep_alive && head.version == Version::Http11,
        })
    }

    /// The client's address as a trusted proxy gives it.
    pub(super) fn real_ip(&self, head: &RequestHead<'_, '_>, config: &Config) -> Option<IpAddr> {
        if !self.trusted {
            return None;
        }
        let name = config.real_ip_header.as_str();
        let parse = |text: &[u8]| {
            let text = std::str::from_utf8(text).ok()?;
            text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
        };
        // In a list, which may have several lines, each proxy appended the peer
        // it saw, so the last address that is not one of ours is the client.
        let trusted = |ip: &IpAddr| config.trusted_proxies.iter().any(|one| one.contains(*ip));
        let lines = head.headers.iter().rev();
        let members = lines
            .filter(|one| one.name.eq_ignore_ascii_case(name))
            .flat_map(|one| list_members(one.value).rev());
        let mut last = None;
        for address in members.map(parse) {
            last = Some(address?);
            if !last.as_ref().is_some_and(trusted) {
                break;
            }
        }
        last
    }

    /// Sends an error response of the proxy itself.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Next {
        let keep_alive = refusal.keep_alive && !self.worker.draining.get();
        self.status = refusal.reject.status();
        let mut answer = self.worker.take_buffer();
        reject::write_rejection(
            &mut answer,
            refusal.reject,
            refusal.format,
            refusal.head_only,
            !keep_alive,
            &self.worker.date.get(),
        );
        let mut pending = Pending::new(answer, 0);
        self.timer.arm(self.worker.ticks.get().client_write);
        let sent = poll_fn(|cx| {
            if self.timer.fired() {
                return Poll::Ready(false);
            }
            pending.poll_send(&mut self.io, cx).map(|sent| sent.is_ok())
        })
        .await;
        self.worker.recycle_buffer(pending.take());
        match (sent, keep_alive) {
            (false, _) => Next::Abort,
            (true, true) => Next::KeepAlive,
            (true, false) => Next::Close,
        }
    }

    /// Ends the connection so that what was sent arrives: closing with unread
    /// bytes would reset it and take the answer back. Takes `ticks_max` at most,
    /// and a worker that stops waits no longer than while nothing comes.
    async fn close(&mut self, ticks_max: u32) {
        self.stage = Stage::Closing;
        self.timer.arm(LINGER_TICKS);
        let start = self.worker.timers.now();
        let mut shut = false;
        poll_fn(|cx| {
            if self.timer.fired() {
                return Poll::Ready(());
            }
            if !shut {
                if ready!(self.io.poll_shutdown(cx)).is_err() {
                    return Poll::Ready(());
                }
                shut = true;
            }
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch.borrow_mut();
            loop {
                match ready!(self.io.poll_read(cx, &mut scratch.input)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
                let most = if worker.draining.get() {
                    LINGER_TICKS
                } else {
                    ticks_max
                };
                let taken = worker.timers.now() - start;
                if taken >= most {
                    return Poll::Ready(());
                }
                self.timer.arm(LINGER_TICKS.min(most - taken));
            }
        })
        .await;
    }
}

impl Drop for Conn {
    /// At the drain timeout a worker drops what has not ended: the client must not
    /// take a partial response for a complete one.
    fn drop(&mut self) {
        if self.worker.aborting.get() && self.stage != Stage::Closing {
            self.io.abort();
        }
    }
}

impl Exchange {
    /// Sets what follows from `head`; everything else has its default.
    pub(super) fn prepare(&mut self, head: &RequestHead<'_, '_>, draining: bool) {
        self.request = Body::new(head.framing);
        self.context = RequestContext {
            head: head.method == "HEAD",
            upgrade: head.websocket,
        };
        self.version = head.version;
        self.retry = if is_idempotent(head.method) {
            Retry::Always
        } else {
            Retry::IfUnread
        };
        self.error_format = ErrorFormat::wanted(head.accept);
        self.keep_alive = head.keep_alive && !draining;
    }

    /// Sends the request on a pooled connection where there is one, and keeps it where
    /// it has to be sent later or may be sent again.
    fn launch(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        lease: Option<Lease>,
        out: &mut Vec<u8>,
        body: &[u8],
    ) {
        let mut body = body;
        if body.len() <= COPY_BYTES_MAX {
            out.extend_from_slice(body);
            body = &[];
        }
        let mut sent = 0;
        let ask_kernel = self.needs_live_connection();
        if let Some(lease) = lease {
            let pooled = loop {
                let Some(mut io) = lease.backend.checkout(worker.timers.now(), ask_kernel) else {
                    break None;
                };
                match io.poll_write(cx, [out, body]) {
                    // Nothing was taken, so trying the next one repeats nothing.
                    Poll::Ready(Err(_)) => continue,
                    Poll::Ready(Ok(bytes)) => sent = bytes,
                    Poll::Pending => {}
                }
                break Some(io);
            };
            self.upstream.assign(lease, pooled);
        }
        let mut kept = worker.take_buffer();
        kept.extend_from_slice(out);
        kept.extend_from_slice(body);
        self.to_up = Pending::new(kept, sent);
    }
}

/// How a backend is chosen for this request.
fn algorithm(route: &Route, head: &RequestHead<'_, '_>, secure: bool) -> Algorithm {
    let protocols = &route.protocols;
    let special = if head.websocket {
        protocols.websocket
    } else if accepts_events(head.accept) {
        protocols.sse
    } else {
        None
    };
    let plain = if secure {
        protocols.https
    } else {
        protocols.http
    };
    special.or(plain).unwrap_or(route.algorithm)
}

fn accepts_events(accept: &[u8]) -> bool {
    accept.len() >= 17
        && list_members(accept).any(|range| {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_connection_stays_small() {
        fn bytes<F: Future>(_: impl Fn(Conn) -> F) -> usize {
            size_of::<F>()
        }
        // With its task header and allocation this is half a kibibyte; ten
        // thousand idle connections live on it.
        assert!(bytes(Conn::serve) <= 384, "{}", bytes(Conn::serve));
        assert!(size_of::<Exchange>() <= 384, "{}", size_of::<Exchange>());
    }

    #[test]
    fn addresses_are_written_without_an_allocation() {
        for text in [
            "127.0.0.1",
            "255.255.255.255",
            "::1",
            "2001:db8:1111:2222:3333:4444:5555:6666",
        ] {
            assert_eq!(AddressText::new(text.parse().unwrap()).as_str(), text);
        }
        assert_eq!(
            AddressText::new("::ffff:10.0.0.1".parse().unwrap()).as_str(),
            "10.0.0.1"
        );
    }
}
