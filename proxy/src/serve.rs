//! The life of the process: listeners, workers, signals, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use daemon::token::{Token, TokenError};

use crate::admin;
use crate::cli::RunArgs;
use crate::config::{Config, ConfigError};
use crate::control::{self, BoundAdmin, Control, Fingerprint};
use crate::descriptors;
use crate::driver::listener::{self, ListenError};
use crate::driver::reuseport;
use crate::driver::run::{WorkerCommand, spawn_workers};
use crate::explain;
use crate::names::Names;
use crate::table::{BuildError, Table};
use crate::token::Sources;

/// Why the proxy could not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A host name or certificate cannot be used.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no token for the admin API.
    #[error("{}", daemon::error_chain(.0))]
    Token(#[from] TokenError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// A worker panicked.
    #[error("a worker thread panicked: see the message above")]
    Worker,
}

impl ServeError {
    /// Whether the user has to change the configuration.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Build(_) | Self::Token(_))
    }

    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// How often the files are looked at for a change.
const FILE_WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// How often it is asked whether it is time to look host names up again.
const RESOLVE_TICK: Duration = Duration::from_secs(1);

/// Runs the proxy until a signal stops it.
///
/// # Errors
/// What could not be started, or failed.
pub fn run(args: &RunArgs) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::system("cannot start the control runtime"))?;
    // First: a signal without a handler ends the process.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let origin = args.origin()?;
    let file = control::file_stamp(&origin.path);
    let config = origin.load()?;
    let sources = Sources {
        file: args.token_file.clone(),
        environment: args.token.clone(),
        data_dir: args.data_dir.clone(),
    };
    let used = Fingerprint::new(file, &config, &sources);
    descriptors::raise_limit();
    for warning in explain::warnings(&config)
        .into_iter()
        .chain(descriptors::shortage(&config))
    {
        tracing::warn!("{warning}");
    }
    let workers = args.workers.map_or_else(default_workers, usize::from);
    let (host, port) = &config.listen;
    let address = listener::resolve(host, *port)?;
    let (bound_admin, token) = bind_admin(&config, address, &sources)?;
    let names = runtime.block_on(async {
        tokio::select! {
            () = signals.stop() => None,
            names = Names::resolve(&config) => Some(names),
        }
    });
    let Some(names) = names else {
        tracing::info!("stopped before startup was complete");
        return Ok(());
    };
    let table = Arc::new(Table::build_with(config, &names, None)?);
    // Last: from here on the kernel gives this process a share of the clients
    // of one that already runs, and they wait for its workers.
    let listeners = listener::open(address, workers)?;
    let (held, listen) = listener::duplicate_first(&listeners)?;
    let (commands, received) = watch::channel(WorkerCommand {
        table,
        listeners: None,
        draining: false,
    });
    let threads = spawn_workers(listeners, &received)
        .map_err(ServeError::system("cannot start the workers"))?;
    drop(received);
    runtime.block_on(async {
        let control = Control::new(origin, commands, held, workers, sources, admin::spawn);
        match bound_admin {
            Some(bound) => {
                let address = bound.address();
                control.open_admin(bound, token)?;
                tracing::info!(%listen, admin = %address, workers, "ready");
            }
            None => tracing::info!(%listen, workers, "ready"),
        }
        control_until_stopped(&control, used, signals).await;
        hand_over(&control, workers).await;
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

/// The admin API's listener and its token, where it is enabled.
fn bind_admin(
    config: &Config,
    traffic: SocketAddr,
    sources: &Sources,
) -> Result<(Option<BoundAdmin>, Option<Token>), ServeError> {
    let Some(place) = &config.admin else {
        return Ok((None, None));
    };
    listener::check_apart(traffic, listener::resolve(&place.0, place.1)?)?;
    let bound = BoundAdmin::bind(place)?;
    let token = sources.find(&config.raw.admin, bound.address().ip().is_loopback())?;
    Ok((Some(bound), token))
}

/// The signals that the process handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let on = |kind, what| signal(kind).map_err(ServeError::system(what));
        Ok(Self {
            terminate: on(SignalKind::terminate(), "cannot await SIGTERM")?,
            interrupt: on(SignalKind::interrupt(), "cannot await SIGINT")?,
            hangup: on(SignalKind::hangup(), "cannot await SIGHUP")?,
        })
    }

    /// Waits for one of the signals that end the process.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn control_until_stopped(
    control: &Arc<Control>,
    mut used: Fingerprint,
    mut signals: Signals,
) {
    notify(NotifyState::Ready);
    drop(tokio::spawn(resolve_forever(Arc::clone(control))));
    let mut before = used.clone();
    let mut looks = tokio::time::interval(FILE_WATCH_INTERVAL);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            // Look-ups of names may take long, and a stop does not wait for them.
            _ = signals.hangup.recv() => {
                let control = Arc::clone(control);
                drop(tokio::spawn(async move { control.reload().await }));
            }
            _ = looks.tick() => {
                let now = control.fingerprint();
                // A file that is still being written looks new again next time.
                if now == before && now != used {
                    let earlier = std::mem::replace(&mut used, now.clone());
                    let (control, now) = (Arc::clone(control), now.clone());
                    drop(tokio::spawn(async move { control.apply_file_changes(earlier, now).await }));
                }
                before = now;
            }
        }
    }
    notify(NotifyState::Stopping);
    tracing::info!("stopping: draining connections");
}

/// Looks host names up again, as often as is configured.
async fn resolve_forever(control: Arc<Control>) {
    let mut latest = Instant::now();
    loop {
        tokio::time::sleep(RESOLVE_TICK).await;
        let interval = control.table().config.resolve_interval;
        if interval.is_some_and(|interval| latest.elapsed() >= interval) {
            control.resolve().await;
            latest = Instant::now();
        }
    }
}

/// Leads new connections to a newer process where there is one, and has the
/// workers stop. The listener is held until theirs are closed, because it takes
/// the redirection back: left in place it would outlive this process.
async fn hand_over(control: &Control, workers: usize) {
    let Some(held) = control.take_listener() else {
        return control.drain();
    };
    let redirected = reuseport::redirect(&held, workers);
    if let Err(error) = &redirected {
        tracing::debug!(%error, "cannot lead new connections elsewhere");
    }
    control.drain();
    control.listeners_closed().await;
    if redirected.is_ok()
        && let Err(error) = reuseport::restore(held)
    {
        tracing::debug!(%error, "cannot take the redirection of new connections back");
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
