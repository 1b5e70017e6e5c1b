//! The origin server: exact HTTP/1.1, one thread, every byte counted.
//!
//! What it answers is in the request's path: `/bytes/N` and `/chunked/N` give
//! N bytes, `/close/N` gives them up to the end of the connection, `/early/N`
//! sends a 103 first, `/status/CODE` gives a status and no body.

use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::eventually::wait_until;

use super::{
    framing::{BodyLength, Decoder, Progress},
    outcome::Classes,
    poller::Poller,
    transfer::Outgoing,
};

/// Read at once from a socket.
const BUFFER_BYTES: usize = 128 * 1024;

/// The largest head of a request that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The largest body that is given.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// What an origin's own sockets carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Of these, how many have ended.
    pub closed: u64,
    /// Requests read to their end.
    pub requests: u64,
    /// Responses written to their end, and interim ones.
    pub responses: Classes,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Requests that are no HTTP/1.1, have broken framing or a wrong body.
    pub errors: u64,
}

/// A running origin server; it ends when it is dropped.
#[derive(Debug)]
pub struct Origin {
    addresses: Vec<SocketAddr>,
    counts: Arc<Mutex<OriginCounts>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Origin {
    /// Listens on these addresses; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// Where an address cannot be listened on.
    pub fn start(addresses: &[SocketAddr]) -> io::Result<Self> {
        let listeners = addresses
            .iter()
            .map(|address| {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<_>>()?;
        let counts = Arc::new(Mutex::new(OriginCounts::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let server = Server {
            poller: Poller::new()?,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            counts: Arc::clone(&counts),
            stop: Arc::clone(&stop),
            buffer: vec![0; BUFFER_BYTES],
        };
        Ok(Self {
            addresses,
            counts,
            stop,
            thread: Some(thread::spawn(move || server.run())),
        })
    }

    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn on_loopback() -> io::Result<Self> {
        Self::start(&[SocketAddr::from(([127, 0, 0, 1], 0))])
    }

    /// Where it listens, in the order asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// What it has carried so far.
    #[must_use]
    pub fn counts(&self) -> OriginCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has carried, once each of its connections is closed on both
    /// sides: a peer that closed first has its last packet by then.
    ///
    /// # Panics
    ///
    /// When a connection is still open after a minute.
    #[track_caller]
    #[must_use]
    pub fn ended(&self) -> OriginCounts {
        wait_until("the origin's connections are closed", || {
            let counts = self.counts();
            counts.closed == counts.connections
        });
        self.counts()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("origin: {error}"),
                Err(_) => eprintln!("origin: its thread panicked"),
            }
        }
    }
}

struct Server {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    counts: Arc<Mutex<OriginCounts>>,
    stop: Arc<AtomicBool>,
    buffer: Vec<u8>,
}

impl Server {
    /// Slots below the number of listeners are theirs.
    fn run(mut self) -> io::Result<()> {
        for (slot, listener) in self.listeners.iter().enumerate() {
            self.poller.add(listener, slot, false)?;
        }
        while !self.stop.load(Ordering::Relaxed) {
            for slot in self.poller.wait(Duration::from_millis(20))? {
                if slot < self.listeners.len() {
                    self.accept(slot)?;
                } else {
                    self.drive(slot - self.listeners.len())?;
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            // None is left; or the peer is gone already, or descriptors are out.
            let Ok((socket, _)) = self.listeners[listener].accept() else {
                return Ok(());
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&socket, self.listeners.len() + at, false)?;
            self.connections[at] = Some(Connection::new(socket));
            self.counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .connections += 1;
        }
    }

    fn drive(&mut self, at: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else {
            return Ok(());
        };
        let watched = connection.watches_write;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.drive(&mut self.buffer, &mut counts).is_ok() {
            drop(counts);
            let write = !connection.outgoing.is_done();
            if write != watched {
                let slot = self.listeners.len() + at;
                self.poller.modify(&connection.socket, slot, write)?;
                connection.watches_write = write;
            }
        } else {
            // Who sees the count finds the socket closed.
            self.connections[at] = None;
            counts.closed += 1;
            drop(counts);
            self.free.push(at);
        }
        Ok(())
    }
}

/// The connection is at its end.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    request: Option<(Request, Decoder)>,
    outgoing: Outgoing,
    /// The status of the answer under way.
    answering: Option<u16>,
    close_after: bool,
    watches_write: bool,
}

#[derive(Debug)]
struct Request {
    is_head: bool,
    path: String,
    keep_alive: bool,
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            input: Vec::new(),
            request: None,
            outgoing: Outgoing::default(),
            answering: None,
            close_after: false,
            watches_write: false,
        }
    }

    fn drive(&mut self, buffer: &mut [u8], counts: &mut OriginCounts) -> Result<(), Over> {
        self.write(counts)?;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(Over),
                Ok(count) => {
                    counts.bytes_received += count as u64;
                    self.input.extend_from_slice(&buffer[..count]);
                    self.take_input(counts)?;
                    self.write(counts)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn write(&mut self, counts: &mut OriginCounts) -> Result<(), Over> {
        while let Some(status) = self.answering {
            counts.bytes_sent += self.outgoing.write(&mut self.socket)?;
            if !self.outgoing.is_done() {
                return Ok(());
            }
            counts.responses.count(status);
            self.answering = None;
            if self.close_after {
                return Err(Over);
            }
            // A request that came early waits in the input.
            self.take_input(counts)?;
        }
        Ok(())
    }

    /// Takes at most one request, and none while an answer is under way.
    fn take_input(&mut self, counts: &mut OriginCounts) -> Result<(), Over> {
        if self.answering.is_some() {
            return Ok(());
        }
        if self.request.is_none() {
            let Some((length, request, body)) = parse(&self.input).map_err(|Over| {
                counts.errors += 1;
                Over
            })?
            else {
                return Ok(());
            };
            self.input.drain(..length);
            self.request = Some((request, Decoder::new(body, true)));
        }
        let Some((request, body)) = &mut self.request else {
            return Ok(());
        };
        match body.take(&self.input) {
            Ok(Progress::Needs) => self.input.clear(),
            Ok(Progress::Done(end)) => {
                self.input.drain(..end);
                counts.requests += 1;
                let answer = answer(request);
                self.close_after = answer.close;
                self.outgoing = answer.outgoing;
                self.answering = Some(answer.status);
                counts.responses.informational += u64::from(answer.is_early);
                self.request = None;
            }
            Err(_) => {
                counts.errors += 1;
                return Err(Over);
            }
        }
        Ok(())
    }
}

fn parse(input: &[u8]) -> Result<Option<(usize, Request, BodyLength)>, Over> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Over),
    };
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let body = if let Some(coding) = header("transfer-encoding") {
        if !coding.eq_ignore_ascii_case("chunked") || header("content-length").is_some() {
            return Err(Over);
        }
        BodyLength::Chunked
    } else {
        let length = header("content-length").map_or(Ok(0), str::parse);
        BodyLength::Known(length.map_err(|_| Over)?)
    };
    let says = |word: &str| header("connection").is_some_and(|v| v.eq_ignore_ascii_case(word));
    Ok(Some((
        length,
        Request {
            is_head: request.method == Some("HEAD"),
            path: request.path.unwrap_or_default().to_owned(),
            keep_alive: if request.version == Some(1) {
                !says("close")
            } else {
                says("keep-alive")
            },
        },
        body,
    )))
}

struct Answer {
    status: u16,
    outgoing: Outgoing,
    close: bool,
    is_early: bool,
}

fn answer(request: &Request) -> Answer {
    let mut parts = request.path.trim_start_matches('/').splitn(2, '/');
    let kind = parts.next().unwrap_or_default();
    let number: Option<u64> = parts.next().and_then(|number| number.parse().ok());
    let (status, bytes) = match (kind, number) {
        ("status", Some(status @ 200..=599)) => (u16::try_from(status).unwrap_or(500), 0),
        ("bytes" | "chunked" | "close" | "early", Some(bytes)) if bytes <= ANSWER_BYTES_MAX => {
            (200, bytes)
        }
        _ => (404, 0),
    };
    let is_close = kind == "close" && status == 200;
    let is_early = kind == "early" && status == 200;
    let is_chunked = kind == "chunked" && status == 200;
    let close = is_close || !request.keep_alive;
    let mut head = String::new();
    if is_early {
        head.push_str("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
    }
    head.push_str(&format!("HTTP/1.1 {status} Answer\r\n"));
    if is_chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if !is_close && !matches!(status, 204 | 304) {
        head.push_str(&format!("Content-Length: {bytes}\r\n"));
    }
    if close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    let head = head.into_bytes();
    let outgoing = if request.is_head {
        Outgoing::sized(head, 0)
    } else if is_chunked {
        Outgoing::chunked(head, bytes)
    } else {
        Outgoing::sized(head, bytes)
    };
    Answer {
        status,
        outgoing,
        close,
        is_early,
    }
}
