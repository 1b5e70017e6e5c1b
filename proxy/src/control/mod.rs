//! The control side: who changes the configuration, and how it reaches the
//! workers. Nothing is applied before all of it has been checked.
//!
//! The admin API is a client of this module. What serves it is given to
//! [`Control::new`] as a function, so that nothing here knows of it.

mod admin_listener;
mod files;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use self::admin_listener::AdminListener;
pub use self::admin_listener::{AdminSocket, BoundAdmin};
pub use self::files::{FileStamp, Fingerprint, Staged, file_stamp};
use daemon::token::{Token, TokenError};

use crate::backend::Backend;
use crate::config::raw::RawConfig;
use crate::config::{Config, ConfigError, Origin};
use crate::descriptors;
use crate::driver::listener::{self, ListenError};
use crate::driver::run::{Listeners, WorkerCommand};
use crate::explain;
use crate::health::HealthMonitor;
use crate::names::{self, Names};
use crate::table::{BuildError, Table};
use crate::token::Sources;

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A host name or certificate cannot be used.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The new address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nobody is left to work by it.
    #[error("the proxy is stopping")]
    Stopping,
    /// There is no token for the admin API.
    #[error("{}", daemon::error_chain(.0))]
    Token(#[from] TokenError),
}

/// The one place where the configuration changes.
#[derive(Debug)]
pub struct Control {
    origin: Origin,
    commands: watch::Sender<WorkerCommand>,
    /// Held for a change, from reading the configuration until it is replaced. The
    /// state is locked only for the replacement itself.
    config_lock: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Held while the file is read again.
    reloading: tokio::sync::Mutex<()>,
    /// Held while the names in use are looked up again.
    resolving: tokio::sync::Mutex<()>,
    /// Whether they are to be looked up once more, by the holder of the above.
    resolve_again: AtomicBool,
    /// Where the admin API's token comes from.
    sources: Sources,
    workers: usize,
    serve_admin: ServeAdmin,
    /// Itself, for `serve_admin`.
    own: Weak<Self>,
}

/// Begins to serve the admin API on a socket.
pub type ServeAdmin = fn(Arc<Control>, AdminSocket);

#[derive(Debug)]
struct State {
    table: Arc<Table>,
    health: HealthMonitor,
    /// A hold on the first listener; see [`Control::take_listener`].
    listener: Option<TcpListener>,
    admin: Option<AdminListener>,
    token: Option<Token>,
    /// Names that were looked up for changes to come.
    prefetched: Names,
    /// Names that could not be looked up the last time.
    unresolved: BTreeSet<String>,
}

/// The right to change what is configured; one at a time has it.
#[derive(Debug)]
pub struct ConfigGuard<'a> {
    control: &'a Control,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl ConfigGuard<'_> {
    /// Checks a configuration and has the workers use it.
    ///
    /// # Errors
    /// [`ApplyError`]; then everything stays as it was.
    pub async fn apply(&self, raw: RawConfig) -> Result<(), ApplyError> {
        self.apply_config(Config::try_new(raw)?).await
    }

    /// Names that are in use or were prefetched are not looked up again: a resolver
    /// that does not answer would hold up all other changes.
    async fn apply_config(&self, config: Config) -> Result<(), ApplyError> {
        let hosts = names::hosts(&config);
        let mut known = self.control.table().names();
        known.extend(self.control.state().prefetched.take(&hosts));
        known.extend(Names::resolve_hosts(known.missing(hosts)).await);
        self.apply_named(config, &known)
    }

    fn apply_named(&self, config: Config, names: &Names) -> Result<(), ApplyError> {
        let mut state = self.control.state();
        self.control.apply_to(&mut state, config, names)
    }
}

/// What happens to the admin API's listener.
enum AdminChange {
    Keep,
    Close,
    Open(AdminListener),
}

impl Control {
    /// Begins to control the workers that listen to `commands`, as many as there
    /// are, of which the first has `listener`. Must be called within a runtime,
    /// because it starts to watch the backends. The admin API is closed at first.
    #[must_use]
    pub fn new(
        origin: Origin,
        commands: watch::Sender<WorkerCommand>,
        listener: TcpListener,
        workers: usize,
        sources: Sources,
        serve_admin: ServeAdmin,
    ) -> Arc<Self> {
        let table = Arc::clone(&commands.borrow().table);
        let mut health = HealthMonitor::default();
        health.set_table(&table);
        let state = Mutex::new(State {
            table,
            health,
            listener: Some(listener),
            admin: None,
            token: None,
            prefetched: Names::default(),
            unresolved: BTreeSet::new(),
        });
        Arc::new_cyclic(|own| Self {
            origin,
            commands,
            config_lock: tokio::sync::Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            resolving: tokio::sync::Mutex::default(),
            resolve_again: AtomicBool::default(),
            state,
            sources,
            workers,
            serve_admin,
            own: Weak::clone(own),
        })
    }

    /// Opens the admin API, with the token that writes need.
    ///
    /// # Errors
    /// [`ListenError`] where the listener cannot be used.
    pub fn open_admin(&self, bound: BoundAdmin, token: Option<Token>) -> Result<(), ListenError> {
        let listener = self.start_admin(bound)?;
        let mut state = self.state();
        (state.admin, state.token) = (listener, token);
        Ok(())
    }

    fn start_admin(&self, bound: BoundAdmin) -> Result<Option<AdminListener>, ListenError> {
        let own = self.own.upgrade();
        own.map(|own| bound.start(|socket| (self.serve_admin)(own, socket)))
            .transpose()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is whole: it is replaced at once or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    /// The hold on one listener of the port in use, by which its group can be
    /// steered. Its socket stays open for as long as this is kept.
    #[must_use]
    pub fn take_listener(&self) -> Option<TcpListener> {
        self.state().listener.take()
    }

    /// What is configured, secrets included.
    #[must_use]
    pub fn raw(&self) -> RawConfig {
        self.table().config.raw.clone()
    }

    /// Likely mistakes in the configuration.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let table = self.table();
        let mut warnings = explain::warnings(&table.config);
        warnings.extend(descriptors::shortage(&table.config));
        warnings
    }

    /// Whether `given` is the token of the admin API.
    #[must_use]
    pub fn is_token(&self, given: &[u8]) -> bool {
        let state = self.state();
        state
            .token
            .as_ref()
            .is_some_and(|token| token.matches(given))
    }

    /// A backend by its names.
    #[must_use]
    pub fn find(&self, upstream: &str, id: &str) -> Option<Arc<Backend>> {
        let table = self.table();
        let mut all = table.upstreams.iter().flatten();
        all.find(|one| one.upstream == upstream && one.config.id == id)
            .map(Arc::clone)
    }

    /// Looks up the hosts that are not in use yet, for a change that follows: to be
    /// called before [`Control::lock_config`].
    pub async fn prefetch_names(&self, hosts: Vec<String>) {
        let missing = self.table().names().missing(hosts);
        let found = Names::resolve_hosts(missing).await;
        self.state().prefetched.extend(found);
    }

    /// Waits for the right to change the configuration.
    pub async fn lock_config(&self) -> ConfigGuard<'_> {
        ConfigGuard {
            control: self,
            _alone: self.config_lock.lock().await,
        }
    }

    fn apply_to(&self, state: &mut State, config: Config, names: &Names) -> Result<(), ApplyError> {
        if self.commands.borrow().draining {
            return Err(ApplyError::Stopping);
        }
        let now = &state.table.config;
        let moved = config.listen != now.listen;
        let admin_changed = config.raw.admin != now.raw.admin;
        if moved || admin_changed {
            check_apart(state, &config)?;
        }
        let table = Arc::new(Table::build_with(config, names, Some(&state.table))?);
        let admin = if admin_changed {
            Some(self.admin(state, &table.config)?)
        } else {
            None
        };
        // The last thing that can fail: from here on all of it happens.
        let listeners = if moved {
            Some(self.listen(state, &table.config.listen)?)
        } else {
            None
        };
        if let Some((change, token)) = admin {
            state.token = token;
            match change {
                AdminChange::Keep => {}
                AdminChange::Close => {
                    tracing::info!("admin API closed");
                    state.admin = None;
                }
                AdminChange::Open(listener) => {
                    tracing::info!(admin = %listener.address, "admin API listening at a new address");
                    state.admin = Some(listener);
                }
            }
        }
        if !admin_changed && table.config.admin.is_some() {
            self.renew_token(state, &table.config);
        }
        state.table = Arc::clone(&table);
        state.health.set_table(&table);
        self.commands.send_modify(|commands| {
            commands.table = table;
            if listeners.is_some() {
                commands.listeners = listeners;
            }
        });
        Ok(())
    }

    /// Opens the admin API where `config` wants it, and finds its token. The
    /// listener in use closes when another takes its place.
    fn admin(
        &self,
        state: &State,
        config: &Config,
    ) -> Result<(AdminChange, Option<Token>), ApplyError> {
        let Some(wanted) = &config.admin else {
            return Ok((AdminChange::Close, None));
        };
        let find = |is_loopback| self.sources.find(&config.raw.admin, is_loopback);
        let stays = state.table.config.admin.as_ref() == Some(wanted);
        if let Some(listener) = state.admin.as_ref().filter(|_| stays) {
            return Ok((AdminChange::Keep, find(listener.is_loopback)?));
        }
        let bound = BoundAdmin::bind(wanted)?;
        let token = find(bound.address().ip().is_loopback())?;
        let opened = self.start_admin(bound)?;
        Ok((opened.map_or(AdminChange::Close, AdminChange::Open), token))
    }

    /// Reads the admin API's token again. Where it cannot be read now, that must
    /// not keep the rest from changing.
    fn renew_token(&self, state: &mut State, config: &Config) {
        match self.sources.token(&config.raw.admin) {
            Ok(token) => state.token = Some(token),
            Err(error) if state.token.is_some() => {
                let error = daemon::error_chain(&error);
                tracing::warn!("{error}; keeping the admin API's previous token");
            }
            Err(_) => {}
        }
    }

    /// Opens listeners at another address, for the workers to take. The old
    /// ones close when theirs is taken; connections stay.
    fn listen(
        &self,
        state: &mut State,
        (host, port): &(String, u16),
    ) -> Result<Arc<Listeners>, ListenError> {
        let opened = listener::open(listener::resolve(host, *port)?, self.workers)?;
        let (held, address) = listener::duplicate_first(&opened)?;
        tracing::info!(listen = %address, "listening at a new address");
        state.listener = Some(held);
        Ok(Listeners::new(opened))
    }

    /// Looks the backends' host names up again, and has the workers use what is
    /// new. A name that cannot be resolved keeps its addresses.
    pub async fn resolve(&self) {
        self.resolve_again.store(true, Ordering::SeqCst);
        // Who asks while they are looked up is served by who does so, afterwards.
        while self.resolve_again.load(Ordering::SeqCst) {
            let Ok(_alone) = self.resolving.try_lock() else {
                return;
            };
            if self.resolve_again.swap(false, Ordering::SeqCst) {
                self.resolve_once().await;
            }
        }
    }

    async fn resolve_once(&self) {
        let names = Names::resolve(&self.table().config).await;
        self.log_unresolved(&names);
        let guard = self.lock_config().await;
        let table = self.table();
        if !table.has_moved(&names) {
            return;
        }
        match guard.apply_named(table.config.clone(), &names) {
            Ok(()) => tracing::info!("the addresses of a backend's host name have changed"),
            Err(error) => tracing::error!(
                "cannot apply the new addresses of backends, keeping the previous ones: {error}"
            ),
        }
    }

    /// Logs names that cannot be looked up any more, and those that can again, each
    /// once.
    fn log_unresolved(&self, names: &Names) {
        let mut state = self.state();
        let mut now = BTreeSet::new();
        for (host, error) in names.failures() {
            if !state.unresolved.contains(host) {
                tracing::warn!(%host, %error, "cannot resolve a backend's host, keeping its previous addresses");
            }
            now.insert(host.to_owned());
        }
        for host in state.unresolved.difference(&now) {
            tracing::info!(%host, "a backend's host can be resolved again");
        }
        state.unresolved = now;
    }

    /// Reads the file again; a file that cannot be used changes nothing. Names
    /// are looked up again once it is in use.
    pub async fn reload(&self) {
        // One at a time, so that an older file never takes the place of a newer.
        let alone = self.reloading.lock().await;
        let applied = match self.origin.load() {
            Ok(new) => {
                self.prefetch_names(names::hosts(&new)).await;
                self.lock_config().await.apply_config(new).await
            }
            Err(error) => Err(error.into()),
        };
        drop(alone);
        match applied {
            Ok(()) => {
                for warning in self.warnings() {
                    tracing::warn!("{warning}");
                }
                tracing::info!("configuration reloaded");
                self.resolve().await;
            }
            Err(error) => tracing::error!(
                "cannot reload the configuration, keeping the previous one: {error}"
            ),
        }
    }

    /// Writes a configuration beside the file, to take its place once it is used:
    /// where that cannot be done it is known before anything has changed.
    ///
    /// # Errors
    /// The file system's; then nothing is left behind.
    pub fn stage(&self, text: &str) -> io::Result<Staged> {
        Staged::write(&self.origin.path, text)
    }

    /// Has the workers stop once what is in flight has ended.
    pub fn drain(&self) {
        self.commands
            .send_modify(|commands| commands.draining = true);
    }

    /// Waits until all workers have stopped listening, which they do when they
    /// drain.
    pub async fn listeners_closed(&self) {
        self.commands.closed().await;
    }

    /// What can be seen of the files that matter: configuration, certificate
    /// and key, tokens and authorities.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(
            file_stamp(&self.origin.path),
            &self.table().config,
            &self.sources,
        )
    }

    /// Acts on a change of the files since `earlier`.
    pub async fn apply_file_changes(&self, earlier: Fingerprint, now: Fingerprint) {
        if earlier.config != now.config {
            return self.reload().await;
        }
        let guard = self.lock_config().await;
        let applied = guard.apply(self.raw()).await;
        if earlier.tls != now.tls {
            match applied {
                // Why it could not be is in the log by then.
                Ok(()) if self.table().certificate_error.is_some() => {}
                Ok(()) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(
                    "cannot load the certificate, keeping the previous one: {error}"
                ),
            }
        } else {
            match applied {
                Ok(()) => tracing::info!("tokens and CA certificates reloaded"),
                Err(error) => tracing::error!(
                    "cannot reload tokens and CA certificates, keeping the previous ones: {error}"
                ),
            }
        }
    }
}

/// Refuses an admin API where the traffic will be. What does not move is where it
/// is now: the kernel may have chosen its port.
fn check_apart(state: &State, config: &Config) -> Result<(), ListenError> {
    let now = &state.table.config;
    let Some(wanted) = &config.admin else {
        return Ok(());
    };
    let admin_now = state.admin.as_ref().map(|listener| listener.address);
    let listener = state.listener.as_ref();
    let listens = listener.and_then(|listener| listener.local_addr().ok());
    let admin = address(wanted, admin_now.filter(|_| now.admin == config.admin))?;
    let traffic = address(
        &config.listen,
        listens.filter(|_| now.listen == config.listen),
    )?;
    listener::check_apart(traffic, admin)
}

/// Where it is now, else where it is wanted.
fn address(
    (host, port): &(String, u16),
    now: Option<SocketAddr>,
) -> Result<SocketAddr, ListenError> {
    now.map_or_else(|| listener::resolve(host, *port), Ok)
}
