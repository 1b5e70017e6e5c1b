//! The control side: who changes the configuration, and how it reaches the
//! workers. Nothing is applied before all of it has been checked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::admin::token::Token;
use crate::config::raw::RawConfig;
use crate::config::{Config, ConfigError};
use crate::driver::run::Orders;
use crate::explain;
use crate::health::Watch;
use crate::state::{Backend, BuildError, Table};

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A host name or certificate cannot be used.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What cannot be changed while running.
    #[error(
        "{0} cannot be changed while running: start a new process beside this one, then stop this one"
    )]
    Restart(&'static str),
}

/// The one place where the configuration changes.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    orders: watch::Sender<Orders>,
    state: Mutex<State>,
    token: Option<Token>,
    admin_is_loopback: bool,
}

#[derive(Debug)]
struct State {
    table: Arc<Table>,
    watch: Watch,
}

impl Control {
    /// Begins to control the workers that listen to `orders`. Must be called
    /// within a runtime, because it starts to watch the backends.
    #[must_use]
    pub fn new(
        path: &Path,
        orders: watch::Sender<Orders>,
        token: Option<Token>,
        admin_is_loopback: bool,
    ) -> Self {
        let table = Arc::clone(&orders.borrow().table);
        let watch = Watch::start(&table);
        let state = Mutex::new(State { table, watch });
        Self {
            path: path.to_owned(),
            orders,
            state,
            token,
            admin_is_loopback,
        }
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

    /// What is configured, secrets included.
    #[must_use]
    pub fn raw(&self) -> RawConfig {
        self.table().config.raw.clone()
    }

    /// What looks like an oversight.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        explain::warnings(&self.table().config)
    }

    /// The token of the admin API.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Whether only this machine can reach the admin API.
    #[must_use]
    pub fn admin_is_loopback(&self) -> bool {
        self.admin_is_loopback
    }

    /// A backend by its names.
    #[must_use]
    pub fn find(&self, upstream: &str, id: &str) -> Option<Arc<Backend>> {
        let table = self.table();
        let mut all = table.upstreams.iter().flatten();
        all.find(|one| one.upstream == upstream && one.config.id == id)
            .map(Arc::clone)
    }

    /// Checks a configuration and has the workers use it.
    ///
    /// # Errors
    /// [`ApplyError`]; then everything stays as it was.
    pub fn apply(&self, raw: RawConfig) -> Result<(), ApplyError> {
        let config = Config::try_new(raw)?;
        let mut state = self.state();
        let now = &state.table.config;
        if config.listen != now.listen {
            return Err(ApplyError::Restart("server.host and server.port"));
        }
        if config.admin != now.admin {
            return Err(ApplyError::Restart("the address of the admin API"));
        }
        if config.tls.is_some() != now.tls.is_some() {
            return Err(ApplyError::Restart("ssl.enabled"));
        }
        let table = Arc::new(Table::build(config, Some(&state.table))?);
        state.table = Arc::clone(&table);
        state.watch = Watch::start(&table);
        self.orders.send_modify(|orders| orders.table = table);
        Ok(())
    }

    /// Reads the file again; a file that cannot be used changes nothing.
    pub fn reload(&self) {
        let applied = Config::load(&self.path)
            .map_err(ApplyError::from)
            .and_then(|new| self.apply(new.raw));
        match applied {
            Ok(()) => {
                for warning in self.warnings() {
                    tracing::warn!("{warning}");
                }
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    /// Has the workers stop once what is in flight has ended.
    pub fn drain(&self) {
        self.orders.send_modify(|orders| orders.draining = true);
    }

    /// What can be seen of the files that matter: configuration, certificate
    /// and key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(seen(&self.path), &self.table().config)
    }

    /// Acts on a change of the files since `earlier`.
    pub fn follow(&self, earlier: &Fingerprint, now: &Fingerprint) {
        if earlier.config != now.config {
            self.reload();
        } else if earlier.tls != now.tls {
            match self.apply(self.raw()) {
                Ok(()) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!("the certificate stays as it was: {error}"),
            }
        }
    }
}

/// What can be seen of the files that matter, to notice a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    config: Option<Seen>,
    tls: Option<(Option<Seen>, Option<Seen>)>,
}

impl Fingerprint {
    /// To be taken before the files are read, so that no change is missed.
    #[must_use]
    pub fn new(file: Option<Seen>, config: &Config) -> Self {
        let tls = config
            .tls
            .as_ref()
            .map(|(cert, key)| (seen(cert), seen(key)));
        Self { config: file, tls }
    }
}

/// Time of the last change, and size.
pub type Seen = (SystemTime, u64);

/// What can be seen of one file.
#[must_use]
pub fn seen(path: &Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
