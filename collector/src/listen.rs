//! Accepting connections: so many at once, TLS where it is asked for, and no
//! waiting for those that do not speak.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll, ready},
    time::Duration,
};

use daemon::log_limit;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{
    auth::Peer,
    idle::{Idle, Streams},
    self_stats::{Place, Refusal, SelfStats, take_place},
    stop::{Stopping, stopped},
    tls::{Identity, Protocol, Tls, identity},
    write_timeout::WriteTimeout,
};

/// The longest that a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The longest that a connection may take for its first bytes.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The first bytes of HTTP/2 (RFC 9113, 3.4): the server waits for all of them,
/// and pings only after them.
const PREFACE_BYTES: usize = 24;
/// The longest that a peer may take nothing of what is sent to it.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The longest that no stream of a gRPC connection may wait for anything.  An
/// agent's does all the time, however quiet it is.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// After a failed accept: mostly too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait for their server.
const QUEUE_MAX: usize = 64;

/// How long a peer may do nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) stall_max: Duration,
    pub(crate) idle_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            stall_max: STALL_MAX,
            idle_max: IDLE_MAX,
        }
    }
}

/// One port.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) protocol: Protocol,
    /// Connections at once; what is beyond is closed at once and counted.
    pub(crate) connections_max: u64,
    pub(crate) bounds: Bounds,
    pub(crate) stats: Arc<SelfStats>,
}

impl Listener {
    /// Connections as they come, until the collector stops.
    pub(crate) fn connections(self, stopping: Stopping) -> mpsc::Receiver<Connection> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(self.accept(sender, stopping));
        receiver
    }

    async fn accept(self, sender: mpsc::Sender<Connection>, mut stopping: Stopping) {
        loop {
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = stopped(&mut stopping) => return,
            };
            let (stream, from) = match accepted {
                Ok((stream, from)) => (stream, from.ip()),
                Err(error) => {
                    if let Some(left_out) = log_limit::line("accept", "") {
                        tracing::warn!(
                            %error, left_out,
                            "cannot accept a connection: if too many files are open, raise LimitNOFILE \
                             of the unit"
                        );
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = Peer {
                address: Some(from),
                identity: None,
            };
            let Some(place) = take_place(&self.stats, self.counter(), self.connections_max) else {
                let why = format!("{} connections are already open", self.connections_max);
                self.stats.refuse(Refusal::Connections, &peer, &why);
                continue;
            };
            // Without it, small answers may wait for an acknowledgement.
            drop(stream.set_nodelay(true));
            let (protocol, bounds) = (self.protocol, self.bounds);
            let connection = move |io, peer| Connection::new(io, peer, place, protocol, bounds);
            match &self.tls {
                None => {
                    let connection = connection(Io::Plain(stream), peer);
                    drop(sender.send(connection).await);
                }
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(tls.config(protocol));
                    let (sender, stats) = (sender.clone(), Arc::clone(&self.stats));
                    tokio::spawn(async move {
                        match handshake(acceptor, stream).await {
                            Ok((io, identity)) => {
                                let peer = Peer { identity, ..peer };
                                drop(sender.send(connection(io, peer)).await);
                            }
                            Err(error) => {
                                let why = format!(
                                    "TLS handshake failed: {error}: check that the client uses TLS, \
                                     trusts this certificate and sends its own where required"
                                );
                                stats.refuse(Refusal::Handshake, &peer, &why);
                            }
                        }
                    });
                }
            }
        }
    }

    fn counter(&self) -> fn(&SelfStats) -> &AtomicU64 {
        match self.protocol {
            Protocol::Grpc => |stats| &stats.grpc_connections,
            Protocol::Http => |stats| &stats.http_connections,
        }
    }
}

/// How many bytes must come before a server bounds the waiting itself: over
/// HTTP/1.1 it does so for the whole of a head.
fn first_bytes(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Grpc => PREFACE_BYTES,
        Protocol::Http => 1,
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(Io, Option<Arc<Identity>>)> {
    let stream = timeout(HANDSHAKE_MAX, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.map(|certificate| Arc::new(identity(certificate)));
    Ok((Io::Tls(Box::new(stream)), identity))
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a gRPC request knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Peer,
    pub(crate) streams: Streams,
}

/// An accepted connection, which gives its place back when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    // Until the first bytes have come.
    silence: Option<Pin<Box<Sleep>>>,
    // How many of them are still to come.
    first: usize,
    write_timeout: WriteTimeout,
    idle: Idle,
    protocol: Protocol,
    _place: Place,
}

impl Connection {
    fn new(io: Io, peer: Peer, place: Place, protocol: Protocol, bounds: Bounds) -> Self {
        Self {
            io,
            peer,
            silence: Some(Box::pin(sleep(SILENCE_MAX))),
            first: first_bytes(protocol),
            write_timeout: WriteTimeout::new(bounds.stall_max),
            idle: Idle::new(bounds.idle_max),
            protocol,
            _place: place,
        }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// An error where the peer has taken nothing, or too little, for too long.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &poll {
            self.write_timeout.earn(done.as_ref().map_or(0, taken));
            return poll;
        }
        ready!(self.write_timeout.wait(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        Origin {
            peer: self.peer.clone(),
            streams: self.idle.streams.clone(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/1.1 bounds the waiting for a request itself.
        if self.protocol == Protocol::Grpc && self.idle.poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let poll = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if poll.is_ready() {
            self.first = self.first.saturating_sub(buffer.filled().len() - before);
            if self.first == 0 {
                self.silence = None;
            }
        } else if let Some(silence) = &mut self.silence {
            ready!(silence.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.judge(context, poll, |taken| *taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.judge(context, poll, |taken| *taken)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.judge(context, poll, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        self.judge(context, poll, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection that allows a stall of so long, and its peer.
    async fn pair(stall_max: Duration) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, peer) = tokio::join!(listener.accept(), peer);
        let stats = Arc::new(SelfStats::new::<&str, &str>(&[], &[]));
        let place = take_place(&stats, |stats| &stats.grpc_connections, 1).unwrap();
        let io = Io::Plain(accepted.unwrap().0);
        let bounds = Bounds {
            stall_max,
            ..Bounds::default()
        };
        let connection = Connection::new(io, Peer::default(), place, Protocol::Grpc, bounds);
        (connection, peer.unwrap())
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_for_too_long_is_given_up() {
        let (mut connection, peer) = pair(Duration::from_millis(100)).await;
        // More than the buffers of both ends hold.
        let error = connection.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(peer);
    }

    #[tokio::test]
    async fn a_slow_peer_that_goes_on_taking_is_kept() {
        const BYTES: usize = 16 << 20;
        let (mut connection, mut peer) = pair(Duration::from_secs(1)).await;
        // All of the waiting takes longer than that.
        let read = tokio::spawn(async move {
            let mut buffer = vec![0; 8 << 10];
            let mut taken = 0;
            while taken < BYTES {
                sleep(Duration::from_millis(1)).await;
                taken += peer.read(&mut buffer).await.unwrap();
            }
        });
        connection.write_all(&vec![0; BYTES]).await.unwrap();
        read.await.unwrap();
    }
}
