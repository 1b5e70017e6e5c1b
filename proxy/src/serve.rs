//! The life of the process: listeners, workers, signals, the end.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::RunArgs;
use crate::config::{Config, ConfigError};
use crate::driver::listener::{self, ListenError};
use crate::driver::run::{Orders, spawn_workers};
use crate::health::Watch;
use crate::state::{ResolveError, Table};

/// Why the proxy could not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A backend's host name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// A worker panicked.
    #[error("a worker thread has failed; its message is above")]
    Worker,
}

impl ServeError {
    /// Whether the user has to change the configuration.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What could not be started, or failed.
pub fn run(args: &RunArgs) -> Result<(), ServeError> {
    let config = Config::load(&args.config)?;
    for warning in crate::explain::warnings(&config) {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    let workers = args.workers.map_or_else(default_workers, usize::from);
    let (host, port) = &config.listen;
    let listeners = listener::open(listener::resolve(host, *port)?, workers)?;
    let listen = listeners[0]
        .local_addr()
        .map_err(ServeError::system("the listener has no address"))?;
    let table = Arc::new(Table::build(config, None)?);
    let watched = Arc::clone(&table);
    let (orders, received) = watch::channel(Orders {
        table,
        draining: false,
    });
    let threads = spawn_workers(listeners, &received)
        .map_err(ServeError::system("cannot start the workers"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::system("cannot start the control runtime"))?;
    runtime.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(ServeError::system("cannot await SIGTERM"))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(ServeError::system("cannot await SIGINT"))?;
        let _watch = Watch::start(&watched);
        tracing::info!(%listen, workers, "ready");
        notify(NotifyState::Ready);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(NotifyState::Stopping);
        tracing::info!("stopping: connections in flight may end");
        orders.send_modify(|orders| orders.draining = true);
        Ok::<(), ServeError>(())
    })?;
    for thread in threads {
        if thread.join().is_err() {
            return Err(ServeError::Worker);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

/// Every connection is two descriptors; the soft limit is often 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
