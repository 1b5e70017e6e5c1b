//! The routing table of the workers: routes, upstreams and limits.
//!
//! A [`Table`] is immutable; a reload builds another, of the parts of the one
//! before that have not changed or cannot be read now.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::backend::{Backend, BackendState, ClientTls};
use crate::collector::{Collector, CollectorConfigError};
use crate::config::raw::{RawBackend, Scheme};
use crate::config::{Config, Route};
use crate::driver::queue::Queue;
use crate::names::{Names, bare};
use crate::tls::{self, TlsError};

/// Routes, upstreams and limits.
#[derive(Debug)]
pub struct Table {
    /// The configuration it was made of.
    pub config: Config,
    /// Backends by upstream, in the order of [`Config::upstreams`].
    pub upstreams: Vec<Vec<Arc<Backend>>>,
    /// Requests that wait for a slot, by upstream.
    pub queues: Vec<Arc<Queue>>,
    /// TLS for clients, where they speak it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Why `tls` is that of the table before: its files cannot be used now.
    pub certificate_error: Option<String>,
    /// The access log, where one is written.
    pub access_log: Option<Arc<AccessLog>>,
    /// The collector, where one is configured.
    pub collector: Option<Arc<Collector>>,
}

/// Why a configuration that is valid in itself cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A backend's host name has no address.
    #[error("backends.{upstream}: cannot resolve \"{host}\" of backend \"{id}\": {source}")]
    Resolve {
        /// The upstream.
        upstream: String,
        /// The backend.
        id: String,
        /// Its host.
        host: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The access log cannot be written.
    #[error("access_log.file: cannot write {path}: {source}")]
    AccessLog {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The collector cannot be asked.
    #[error(transparent)]
    Collector(#[from] CollectorConfigError),
}

impl Table {
    /// Builds a table; backends of `earlier` that are unchanged are kept with
    /// their state. Blocks while the system's resolver does.
    ///
    /// # Errors
    /// [`BuildError`] where a host name has no address or a file cannot be used.
    pub fn build(config: Config, earlier: Option<&Table>) -> Result<Self, BuildError> {
        let names = Names::resolve_blocking(&config);
        Self::build_with(config, &names, earlier)
    }

    /// The same with host names that have been looked up.
    ///
    /// # Errors
    /// As those of [`Table::build`].
    pub fn build_with(
        config: Config,
        names: &Names,
        earlier: Option<&Table>,
    ) -> Result<Self, BuildError> {
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        let mut queues = Vec::with_capacity(config.upstreams.len());
        for upstream in &config.upstreams {
            let queue = queue_for(&upstream.name, earlier);
            let mut backends = Vec::with_capacity(upstream.backends.len());
            for backend in &upstream.backends {
                backends.push(backend_for(
                    &upstream.name,
                    backend,
                    names,
                    earlier,
                    &queue,
                )?);
            }
            queues.push(queue);
            upstreams.push(backends);
        }
        let (tls, certificate_error) = server_tls(&config, earlier)?;
        let access_log = access_log(&config, earlier)?;
        let collector = collector(&config, earlier)?;
        Ok(Self {
            collector,
            config,
            upstreams,
            queues,
            tls,
            certificate_error,
            access_log,
        })
    }

    /// The addresses of the backends' hosts, as they are used.
    #[must_use]
    pub fn names(&self) -> Names {
        let backends = self.upstreams.iter().flatten();
        backends
            .map(|backend| (backend.config.host.as_str(), backend.addresses.as_slice()))
            .collect()
    }

    /// Whether the host name of a backend has other addresses by now than when
    /// this was built.
    #[must_use]
    pub fn has_moved(&self, names: &Names) -> bool {
        self.upstreams.iter().flatten().any(|backend| {
            addresses(names, &backend.upstream, &backend.config)
                .is_ok_and(|addresses| addresses != backend.addresses)
        })
    }

    /// The route with the longest prefix of `path`. `*` is the server as a whole
    /// (RFC 9110, section 9.3.7), and goes where everything goes.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.config
            .routes
            .iter()
            .find(|route| path.starts_with(&route.prefix) || (path == "*" && route.prefix == "/"))
    }
}

/// TLS for clients; that of `earlier` where its files cannot be used any more, and
/// why: a certificate must not keep routes and backends from changing.
fn server_tls(
    config: &Config,
    earlier: Option<&Table>,
) -> Result<(Option<Arc<rustls::ServerConfig>>, Option<String>), TlsError> {
    let Some((cert, key)) = &config.tls else {
        return Ok((None, None));
    };
    let known = earlier.filter(|table| table.config.tls == config.tls);
    let known = known.and_then(|table| table.tls.clone());
    // Tickets outlive the certificate that they came with.
    let before = earlier.and_then(|table| table.tls.as_deref());
    match (tls::server(cert, key, before), known) {
        (Ok(tls), _) => Ok((Some(tls), None)),
        (Err(error), Some(known)) => {
            tracing::error!("cannot load the certificate, keeping the previous one: {error}");
            Ok((Some(known), Some(error.to_string())))
        }
        (Err(error), None) => Err(error),
    }
}

/// The log of `earlier` where it is the same, so that there is one writer.
fn access_log(
    config: &Config,
    earlier: Option<&Table>,
) -> Result<Option<Arc<AccessLog>>, BuildError> {
    let wanted = &config.raw.access_log;
    if !wanted.enabled {
        return Ok(None);
    }
    let known = earlier.and_then(|table| table.access_log.as_ref());
    if let Some(known) = known.filter(|known| known.config == *wanted) {
        return Ok(Some(Arc::clone(known)));
    }
    let started = AccessLog::start(wanted).map_err(|source| BuildError::AccessLog {
        path: wanted.file.display().to_string(),
        source,
    })?;
    Ok(Some(Arc::new(started)))
}

/// The collector as it is asked now; as `earlier` asks it where its files cannot
/// be used any more, for what is only measured must not keep the routes, the
/// certificate or the backends' addresses from changing.
fn collector(
    config: &Config,
    earlier: Option<&Table>,
) -> Result<Option<Arc<Collector>>, CollectorConfigError> {
    let wanted = &config.raw.collector;
    let known = earlier.filter(|table| table.config.raw.collector == *wanted);
    match (Collector::new(wanted), known) {
        (Ok(collector), _) => Ok(collector.map(Arc::new)),
        (Err(error), Some(known)) => {
            tracing::warn!("{error}; keeping the previous access to the collector");
            Ok(known.collector.clone())
        }
        (Err(error), None) => Err(error),
    }
}

/// The queue of `earlier` where the upstream is there, too: some may wait in it.
fn queue_for(upstream: &str, earlier: Option<&Table>) -> Arc<Queue> {
    let known = earlier.and_then(|table| {
        let names = table.config.upstreams.iter();
        let (_, queue) = names
            .zip(&table.queues)
            .find(|(one, _)| one.name == upstream)?;
        Some(Arc::clone(queue))
    });
    known.unwrap_or_default()
}

fn backend_for(
    upstream: &str,
    config: &RawBackend,
    names: &Names,
    earlier: Option<&Table>,
    queue: &Arc<Queue>,
) -> Result<Arc<Backend>, BuildError> {
    let mut all = earlier
        .into_iter()
        .flat_map(|table| table.upstreams.iter().flatten());
    let known = all.find(|one| one.upstream == upstream && one.config.id == config.id);
    let same_name = |known: &&Arc<Backend>| {
        known.config.host == config.host && known.config.port == config.port
    };
    let addresses = match (addresses(names, upstream, config), known.filter(same_name)) {
        (Ok(addresses), _) => addresses,
        // Look-ups fail at times; the previous addresses are the best that is known.
        (Err(error), Some(known)) => {
            tracing::warn!("{error}; keeping its previous addresses");
            known.addresses.clone()
        }
        (Err(error), None) => return Err(error),
    };
    let ca_pem = ca_pem(config);
    let same_tls = |known: &&Arc<Backend>| {
        same_name(known)
            && known.config.scheme == config.scheme
            && known.config.ca_file == config.ca_file
    };
    let secured = match known.filter(same_tls) {
        Some(known) if known.ca_pem == ca_pem => (known.tls.clone(), ca_pem),
        known => match (tls(config), known) {
            (Ok(tls), _) => (tls, ca_pem),
            // One backend's file must not keep the rest from changing.
            (Err(error), Some(known)) => {
                tracing::warn!(
                    "backends.{upstream}: {error}; keeping its previous CA certificates"
                );
                (known.tls.clone(), known.ca_pem.clone())
            }
            (Err(error), None) => return Err(error.into()),
        },
    };
    let unchanged = known.filter(|known| {
        known.config == *config && known.addresses == addresses && known.ca_pem == secured.1
    });
    if let Some(known) = unchanged {
        return Ok(Arc::clone(known));
    }
    let state = match known {
        Some(known) => Arc::clone(&known.state),
        None if earlier.is_some() => Arc::new(BackendState::of_addition()),
        None => Arc::default(),
    };
    let queue = Arc::clone(queue);
    let backend = Backend::new(upstream, config.clone(), addresses, secured, state, queue);
    Ok(Arc::new(backend))
}

/// The content of a backend's `ca_file`, where it can be read.
fn ca_pem(config: &RawBackend) -> Option<Vec<u8>> {
    let file = config.ca_file.as_ref()?;
    daemon::read_file(file, daemon::AUTHORITIES_BYTES_MAX).ok()
}

fn tls(config: &RawBackend) -> Result<Option<ClientTls>, TlsError> {
    if config.scheme == Scheme::Http {
        return Ok(None);
    }
    let name = tls::server_name(bare(&config.host))?;
    Ok(Some((tls::client(config.ca_file.as_deref())?, name)))
}

fn addresses(
    names: &Names,
    upstream: &str,
    config: &RawBackend,
) -> Result<Vec<SocketAddr>, BuildError> {
    let found = names.addresses(bare(&config.host), config.port);
    found.map_err(|source| BuildError::Resolve {
        upstream: upstream.to_owned(),
        id: config.id.clone(),
        host: config.host.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

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
            [
                name("/"),
                name("/api"),
                name("/api/x"),
                name("/api/v2/y"),
                name("*")
            ],
            ["a", "a", "b", "c", "a"]
        );
    }

    #[test]
    fn an_ipv6_backend_may_be_written_with_brackets_or_without() {
        let names = vec!["::1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.cert.pem()).unwrap();
        for host in ["::1", "[::1]"] {
            let table = table(&format!(
                "backends: {{u: [{{id: a, host: \"{host}\", port: 7, scheme: https, ca_file: {}}}]}}",
                file.path().display()
            ));
            let backend = &table.upstreams[0][0];
            assert_eq!(backend.authority, "[::1]:7");
            assert_eq!(backend.address(), Some("[::1]:7".parse().unwrap()));
            let name = backend.tls.as_ref().map(|(_, name)| name.to_str());
            assert_eq!(name.as_deref(), Some("::1"));
        }
    }

    #[test]
    fn a_collectors_unreadable_file_only_matters_where_it_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "reads-1").unwrap();
        let text = format!(
            "collector: {{url: \"http://127.0.0.1:1\", host_id: a, token_file: {}}}",
            token.display()
        );
        let build = |text: &str, earlier| Table::build(Config::parse(text).unwrap(), earlier);
        let known = |table: &Table| Arc::clone(table.collector.as_ref().unwrap());
        let first = table(&text);
        std::fs::remove_file(&token).unwrap();
        let second = build(&text, Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&known(&first), &known(&second)));
        let error = build(&text, None).unwrap_err().to_string();
        assert!(error.starts_with("collector.token_file: "), "{error}");
        let changed = text.replace("host_id: a", "host_id: b");
        assert!(build(&changed, Some(&second)).is_err());
        std::fs::write(&token, "reads-2").unwrap();
        let third = build(&text, Some(&second)).unwrap();
        assert!(!Arc::ptr_eq(&known(&second), &known(&third)));
    }

    #[test]
    fn unchanged_backends_keep_their_state_over_a_reload() {
        let text = "backends: {u: [{id: a, host: 127.0.0.1, port: 1, max_conn: 1}, {id: b, host: 127.0.0.1, port: 2}]}";
        let first = table(text);
        first.upstreams[0][0].eject(Instant::now(), Duration::from_secs(3600));
        assert!(!first.upstreams[0][0].note_check(false, 2));
        assert!(first.upstreams[0][0].try_acquire());
        assert!(!first.upstreams[0][0].try_acquire());
        let text = text
            .replace("port: 2", "port: 3")
            .replace("port: 1,", "port: 1, weight: 7,");
        let second = Table::build(Config::parse(&text).unwrap(), Some(&first)).unwrap();
        assert_eq!(
            second.upstreams[0][0].in_flight(),
            1,
            "a changed weight keeps the count"
        );
        assert!(second.upstreams[0][0].is_ejected());
        assert!(second.upstreams[0][0].note_check(false, 2));
        assert!(!Arc::ptr_eq(
            &first.upstreams[0][1],
            &second.upstreams[0][1]
        ));
    }
}
