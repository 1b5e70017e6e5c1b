//! What all workers share: the backends' states and the table of routes.
//!
//! A [`Table`] is immutable; a reload builds another. A [`Backend`] outlives
//! reloads for as long as it is named, so its counts in flight stay true.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::balance;
use crate::config::raw::RawBackend;
use crate::config::{Config, Route};

/// One backend, shared by all workers.
#[derive(Debug)]
pub struct Backend {
    /// The upstream it belongs to.
    pub upstream: String,
    /// What was configured.
    pub config: RawBackend,
    /// Where it listens; the first is tried first.
    pub addresses: Vec<SocketAddr>,
    /// A hash of upstream and id.
    pub identity: u64,
    /// Most exchanges at once; `u32::MAX`: no limit.
    pub in_flight_max: u32,
    in_flight: AtomicU32,
    next_address: AtomicUsize,
    healthy: AtomicBool,
    disconnected: AtomicBool,
}

impl Backend {
    fn new(upstream: &str, config: RawBackend, addresses: Vec<SocketAddr>) -> Self {
        let identity = balance::identity(format!("{upstream}/{}", config.id).as_bytes());
        let limit = u32::try_from(config.max_conn).unwrap_or(0);
        Self {
            upstream: upstream.to_owned(),
            addresses,
            identity,
            in_flight_max: if limit == 0 { u32::MAX } else { limit },
            in_flight: AtomicU32::new(0),
            next_address: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            disconnected: AtomicBool::new(false),
            config,
        }
    }

    /// Exchanges and tunnels in flight, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes one place; `false` where all are taken. Each place taken must be
    /// given back by [`Backend::release`].
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before < self.in_flight_max {
            return true;
        }
        self.release();
        false
    }

    /// Gives a place back.
    pub fn release(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether new exchanges may go there.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.config.active
            && self.healthy.load(Ordering::Relaxed)
            && !self.disconnected.load(Ordering::Relaxed)
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let count = self.addresses.len();
        if count == 0 {
            return None;
        }
        self.addresses
            .get(self.next_address.load(Ordering::Relaxed) % count)
            .copied()
    }

    /// Turns to the next address after a failed connect.
    pub fn rotate_address(&self) {
        self.next_address.fetch_add(1, Ordering::Relaxed);
    }
}

/// Routes, upstreams and limits that a worker works by.
#[derive(Debug)]
pub struct Table {
    /// The configuration it was made of.
    pub config: Config,
    /// Backends by upstream, in the order of [`Config::upstreams`].
    pub upstreams: Vec<Vec<Arc<Backend>>>,
}

/// A backend's host name has no address.
#[derive(Debug, thiserror::Error)]
#[error("backends.{upstream}: cannot resolve \"{host}\" of backend \"{id}\": {source}")]
pub struct ResolveError {
    upstream: String,
    id: String,
    host: String,
    source: std::io::Error,
}

impl Table {
    /// Builds a table, resolving host names; backends of `earlier` that are
    /// unchanged are kept with their state.
    ///
    /// # Errors
    /// [`ResolveError`] where a host name has no address.
    pub fn build(config: Config, earlier: Option<&Table>) -> Result<Self, ResolveError> {
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for upstream in &config.upstreams {
            let mut backends = Vec::with_capacity(upstream.backends.len());
            for backend in &upstream.backends {
                backends.push(backend_for(&upstream.name, backend, earlier)?);
            }
            upstreams.push(backends);
        }
        Ok(Self { config, upstreams })
    }

    /// The route with the longest prefix of `path`.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.config
            .routes
            .iter()
            .find(|route| path.starts_with(&route.prefix) || path == "*")
    }
}

fn backend_for(
    upstream: &str,
    config: &RawBackend,
    earlier: Option<&Table>,
) -> Result<Arc<Backend>, ResolveError> {
    let addresses = resolve(upstream, config)?;
    let known = earlier
        .into_iter()
        .flat_map(|table| table.upstreams.iter().flatten())
        .find(|one| {
            one.upstream == upstream && one.config == *config && one.addresses == addresses
        });
    let backend = match known {
        Some(known) => Arc::clone(known),
        None => Arc::new(Backend::new(upstream, config.clone(), addresses)),
    };
    Ok(backend)
}

fn resolve(upstream: &str, config: &RawBackend) -> Result<Vec<SocketAddr>, ResolveError> {
    let error = |source| ResolveError {
        upstream: upstream.to_owned(),
        id: config.id.clone(),
        host: config.host.clone(),
        source,
    };
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, config.port)).map_err(error)?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::build(Config::parse(text).unwrap(), None).unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let text = "backends: {u: []}\n\
                    routing: {a: {path: /, upstream: u}, b: {path: /api/, upstream: u}, c: {path: /api/v2, upstream: u}}";
        let table = table(text);
        let name = |path: &str| table.route(path).map(|route| route.name.clone()).unwrap();
        assert_eq!(
            [name("/"), name("/api"), name("/api/x"), name("/api/v2/y")],
            ["a", "a", "b", "c"]
        );
    }

    #[test]
    fn unchanged_backends_keep_their_state_over_a_reload() {
        let text = "backends: {u: [{id: a, host: 127.0.0.1, port: 1, max_conn: 1}, {id: b, host: 127.0.0.1, port: 2}]}";
        let first = table(text);
        assert!(first.upstreams[0][0].try_acquire());
        assert!(!first.upstreams[0][0].try_acquire());
        let text = text.replace("port: 2", "port: 3");
        let second = Table::build(Config::parse(&text).unwrap(), Some(&first)).unwrap();
        assert_eq!(second.upstreams[0][0].in_flight(), 1);
        assert!(!Arc::ptr_eq(
            &first.upstreams[0][1],
            &second.upstreams[0][1]
        ));
    }
}
