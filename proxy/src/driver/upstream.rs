//! The way of a request to a backend: its states, connecting, and choosing again
//! where that is safe.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::Conn;
use super::eviction::WARN_INTERVAL_TICKS;
use super::exchange::{Exchange, Intake};
use super::io::Io;
use super::pool::{Lease, LocalBackend};
use crate::descriptors::is_local_shortage;
use http1::reject::{Reject, Side};

/// Idle connections evicted for one new connection at most.
const EVICTIONS_MAX: u32 = 3;

/// How far the request is on its way to a backend.
#[derive(Debug, Default)]
pub(super) enum Upstream {
    /// It has no slot at a backend yet.
    #[default]
    Queued,
    /// It has a slot, and no connection.
    Leased(Lease),
    /// It has a connection.
    Connected {
        lease: Lease,
        io: Io,
        origin: Origin,
    },
}

/// Where a connection to a backend came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    New,
    /// It served a request before, and its backend may end it at any time.
    Pooled,
}

impl Upstream {
    pub(super) fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Queued => None,
            Self::Leased(lease) | Self::Connected { lease, .. } => Some(lease),
        }
    }

    pub(super) fn into_lease(self) -> Option<Lease> {
        match self {
            Self::Queued => None,
            Self::Leased(lease) | Self::Connected { lease, .. } => Some(lease),
        }
    }

    pub(super) fn io(&self) -> Option<&Io> {
        match self {
            Self::Queued | Self::Leased(_) => None,
            Self::Connected { io, .. } => Some(io),
        }
    }

    pub(super) fn io_mut(&mut self) -> Option<&mut Io> {
        match self {
            Self::Queued | Self::Leased(_) => None,
            Self::Connected { io, .. } => Some(io),
        }
    }

    pub(super) fn is_pooled(&self) -> bool {
        matches!(
            self,
            Self::Connected {
                origin: Origin::Pooled,
                ..
            }
        )
    }

    /// Takes a slot, with a pooled connection where there is one.
    pub(super) fn assign(&mut self, lease: Lease, pooled: Option<Io>) {
        *self = match pooled {
            None => Self::Leased(lease),
            Some(io) => Self::Connected {
                lease,
                io,
                origin: Origin::Pooled,
            },
        };
    }

    /// Uses a new connection to the backend at which it has a slot.
    pub(super) fn connect(&mut self, io: Io) {
        if let Some(lease) = std::mem::take(self).into_lease() {
            *self = Self::Connected {
                lease,
                io,
                origin: Origin::New,
            };
        }
    }
}

/// Why another backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no connection to the first.
    Unsent,
    /// The first ended the connection before it answered.
    Unanswered,
    /// The same on a pooled connection: it closed while the request was on its
    /// way, which is no failure.
    Stale,
}

impl Conn {
    /// Counts why the leased backend gave no answer.
    pub(super) fn note_failure(exchange: &Exchange, reject: Reject) {
        let Some(lease) = exchange.upstream.lease() else {
            return;
        };
        let outcomes = lease.backend.shared.outcomes();
        match reject {
            Reject::ConnectFailed
            | Reject::ConnectTimeout
            | Reject::UpstreamTls
            | Reject::UpstreamClosed => outcomes.failed(),
            _ if reject.side() == Side::Upstream => outcomes.unanswered(),
            _ => {}
        }
    }

    /// A new connection to the leased backend.
    pub(super) async fn connect(&mut self, exchange: &Exchange) -> Result<Io, Reject> {
        let Some(lease) = exchange.upstream.lease() else {
            return Err(Reject::NoBackend);
        };
        let backend = Rc::clone(&lease.backend);
        let address = backend.shared.address().ok_or(Reject::NoBackend)?;
        self.timer.arm(self.worker.ticks.get().connect);
        let mut connected = self.dial(address).await;
        for _ in 0..EVICTIONS_MAX {
            if !matches!(connected, Err(Reject::Exhausted)) || !self.worker.evict_idle() {
                break;
            }
            // An evicted connection closes when its task runs.
            tokio::task::yield_now().await;
            connected = self.dial(address).await;
        }
        match connected {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                match &backend.shared.tls {
                    None => Ok(Io::Tcp(stream)),
                    Some((config, name)) => {
                        Box::pin(self.secure(stream, config, name, &backend)).await
                    }
                }
            }
            Err(Reject::Exhausted) => {
                self.worker.warn_of_shortage();
                Err(Reject::Exhausted)
            }
            Err(reject) => {
                backend.shared.rotate_address();
                Err(reject)
            }
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream, Reject> {
        let mut connecting = std::pin::pin!(TcpStream::connect(address));
        let connected = poll_fn(|cx| {
            if self.timer.fired() {
                return Poll::Ready(Err(Reject::ConnectTimeout));
            }
            connecting.as_mut().poll(cx).map_err(|error| {
                if is_local_shortage(&error) {
                    Reject::Exhausted
                } else {
                    Reject::ConnectFailed
                }
            })
        });
        let stream = connected.await?;
        if self.worker.shared.descriptors.allows_backend(&stream) || self.worker.evict_idle() {
            Ok(stream)
        } else {
            Err(Reject::Exhausted)
        }
    }

    /// The TLS handshake with a backend.
    async fn secure(
        &self,
        stream: TcpStream,
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
        backend: &LocalBackend,
    ) -> Result<Io, Reject> {
        let connector = TlsConnector::from(Arc::clone(config));
        let mut shaking = std::pin::pin!(connector.connect(name.clone(), stream));
        poll_fn(|cx| {
            if self.timer.fired() {
                return Poll::Ready(Err(Reject::ConnectTimeout));
            }
            shaking.as_mut().poll(cx).map(|shaken| match shaken {
                Ok(stream) => Ok(Io::Tls(Box::new(stream.into()))),
                Err(error) => {
                    backend.warn_of_tls_failure(
                        &error,
                        self.worker.timers.now(),
                        WARN_INTERVAL_TICKS,
                    );
                    Err(Reject::UpstreamTls)
                }
            })
        })
        .await
    }

    /// Chooses another backend for a request that may be sent again. After a stale
    /// connection it may be the same one, by a new connection.
    pub(super) fn reselect(&mut self, exchange: &mut Exchange, failure: Failure) -> bool {
        let stale = failure == Failure::Stale;
        if !stale {
            let attempts_max = self.worker.table().table.config.raw.retries.attempts;
            if exchange.attempts >= attempts_max || !self.worker.withdraw_retry() {
                return false;
            }
            exchange.attempts += 1;
        }
        // Its slot is held until there is another, for it may be the last one
        // and needed again.
        let Some(held) = std::mem::take(&mut exchange.upstream).into_lease() else {
            return false;
        };
        let failed = Rc::clone(&held.backend);
        let (_, algorithm, client) = exchange.route;
        // A reload may have changed the upstream's index.
        let local = self.worker.table();
        let Some(upstream) = local.upstream(&failed.shared.upstream) else {
            return false;
        };
        let but = Some(&failed).filter(|_| !stale);
        let chosen = self.worker.choose(&local, upstream, algorithm, client, but);
        let lease = match chosen {
            Ok(lease) => lease,
            // There is no other backend, but perhaps another of its addresses.
            Err(_) if failure != Failure::Unsent || failed.shared.addresses.len() > 1 => held,
            Err(_) => return false,
        };
        exchange.upstream.assign(lease, None);
        exchange.intake = Intake::Open;
        exchange.partial_head.clear();
        exchange.to_up.rewind();
        true
    }
}
