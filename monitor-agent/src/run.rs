//! `run`: everything tied together, until a signal.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use daemon::{clock::unix_ms, once_a_minute};
use delivery::{
    Delivery, Progress, lock,
    otlp::{OtlpDelivery, OtlpError},
};
use host_metrics::{HostReader, identity};
use kernel_sample::{Level, Opener, Target};
use sd_notify::NotifyState;
use spool::{Spool, SpoolError, checkpoint::Checkpoint};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};

use crate::{
    backends::{agent_check, socket},
    config::{Config, Otlp},
    control::Control,
    metrics,
    names::FollowedFiles,
    reload::Reload,
    reporter::{ReportError, Reporter, ReporterParts},
    resume::Resume,
    sampler::{Sampler, SamplerError, SamplerOptions, Shared, environment},
    target::{Awaited, Change, Resolved, Roots, RunningNames},
    uncounted::Uncounted,
    unix_socket::{self, SocketFile},
};

/// How long the last report may take to be acknowledged.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a proxy that is gone is told of.
const GONE_FOR: Duration = Duration::from_secs(60);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The host's id can neither be read nor kept.
    #[error("this host has no /etc/machine-id, and an id cannot be kept in {dir}")]
    Identity {
        /// Where it would be kept.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Programs, maps or pins, or a thread to sample them.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The control socket that was asked for.
    #[error("control socket {path} cannot be used")]
    Control {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// OTLP.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// An address to listen on.
    #[error("{flag} {address} cannot be used")]
    Listen {
        /// What asked for it.
        flag: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The socket for balancers.
    #[error("--backends-socket {path} cannot be used")]
    BackendsSocket {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of the agent ended though it should not.
    #[error("the agent's {0} ended unexpectedly")]
    Ended(&'static str),
    /// Threads, signals.
    #[error("the operating system refuses {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What the agent is told while it runs.
#[derive(Debug)]
pub struct Signals<S> {
    /// Gives the reason to stop.
    pub stop: S,
    /// To read again what can be read again.
    pub reload: mpsc::Receiver<()>,
}

/// What balancers connect to.
pub type BackendsListener = (std::os::unix::net::UnixListener, SocketFile);

/// Runs until told to stop.  `open` is first called after
/// everything that can fail more cheaply, with the spool's lock held.
///
/// # Errors
/// Where the agent cannot start, or a part of it ends by itself.
pub async fn run(
    config: Config,
    (resolved, roots): (Resolved, Roots),
    backends: Option<BackendsListener>,
    signals: Signals<impl Future<Output = &'static str>>,
    open: Opener,
) -> Result<(), RunError> {
    let targets = &resolved.targets;
    let spool = Spool::open(&config.spool_dir, config.spool_bytes, unix_ms());
    let (mut spool, recovered) = spool?;
    let host = identity::read(&config.spool_dir, config.host.clone()).map_err(|source| {
        RunError::Identity {
            dir: config.spool_dir.clone(),
            source,
        }
    })?;
    let checkpoint = Checkpoint::of(config.checkpoint.clone(), &host.boot_id, &config.pin_dir);
    let now = unix_ms();
    let resume = Resume::find(&mut spool, recovered, &checkpoint, &host.boot_id, now)?;
    let listener = control_listener(&config)?;
    let path = config.control_socket.path.clone();
    let control_file = listener.as_ref().map(|_| SocketFile::new(path));
    let mut start = environment(
        &mut HostReader::open("/proc".as_ref(), "/".as_ref()),
        targets,
        &mut RunningNames::default(),
    );
    start.spool_losses = spool.told().by_reason().into();
    let options = SamplerOptions {
        interval: config.sample_interval,
        level: config.level,
        targets: targets.clone(),
    };
    let metrics = listen("--metrics-listen", config.metrics_listen).await?;
    let agent_check = listen("--agent-check-listen", config.agent_check_listen).await?;
    let metrics_address = metrics.as_ref().and_then(|m| m.local_addr().ok());
    let sampler = Sampler::start(open, options)?;
    let level = sampler.level();
    let spool = Arc::new(Mutex::new(spool));
    let (wake, progress) = (Arc::new(Notify::new()), Arc::new(Progress::default()));
    let (stop_delivery, stopped) = watch::channel(false);
    let (destination, _) = watch::channel(config.collector_destination());
    let mut delivery = match config.otlp.clone() {
        None => {
            let delivery = Delivery {
                destination: destination.subscribe(),
                spool: Arc::clone(&spool),
                wake: Arc::clone(&wake),
                progress: Arc::clone(&progress),
                stop: stopped,
            };
            tokio::spawn(delivery.run())
        }
        Some(Otlp { url, headers }) => {
            let (spool, wake) = (Arc::clone(&spool), Arc::clone(&wake));
            let progress = Arc::clone(&progress);
            let delivery = OtlpDelivery::start(url, headers, spool, wake, progress, stopped)?;
            tokio::spawn(delivery.run())
        }
    };
    let names = Arc::new(config.names.follow());
    let handle = sampler.handle();
    let named = Arc::clone(&names);
    let told = move |change: Change<'_>| match change {
        Change::Came(targets) => handle.watch(targets),
        Change::Are(targets, proxies) => {
            handle.watch_only(targets);
            named.find(proxies);
        }
    };
    let keep = GONE_FOR.max(config.report_interval * 2);
    let awaited = Awaited::follow(config.targets.clone(), roots, &resolved, keep, told);
    let awaited = awaited.map_err(system("a thread"))?;
    let mut reporter = Reporter::new(ReporterParts {
        host,
        resume,
        checkpoint,
        start,
        sampler: sampler.handle(),
        shared: sampler.shared(),
        spool: Arc::clone(&spool),
        wake: Arc::clone(&wake),
        progress: Arc::clone(&progress),
        names: Arc::clone(&names),
        awaited: awaited.clone(),
        client_prefixes: config.client_prefixes,
    });
    let metrics_source = metrics::Source {
        shared: sampler.shared(),
        spool: Arc::clone(&spool),
        spool_bytes_max: config.spool_bytes,
        progress: Arc::clone(&progress),
        losses: reporter.losses(),
    };
    let metrics = metrics.map(|at| tokio::spawn(metrics::serve(at, metrics_source)));
    let backends = match backends {
        Some((listener, file)) => {
            let listener = UnixListener::from_std(listener).map_err(system("a socket"))?;
            Some((listener, file))
        }
        None => None,
    };
    let balancers = Balancers::serve(backends, agent_check, sampler.shared(), &names);
    let uncounted = Uncounted::default();
    uncounted
        .follow(sampler.shared())
        .map_err(|source| RunError::System {
            what: "a thread",
            source,
        })?;
    let control = Control {
        uncounted,
        sampler: sampler.handle(),
        shared: sampler.shared(),
        spool: Arc::clone(&spool),
        progress,
        collector: config.destination(),
        metrics: metrics_address,
        awaited,
        names: Arc::clone(&names),
    };
    let control = listener.map(|listener| tokio::spawn(control.serve(listener)));
    ready(&config, targets, level, metrics_address);
    let reload = Reload {
        config,
        destination,
        names,
        sampler: sampler.handle(),
    };
    let stopped = tokio::select! {
        stopped = report_until(signals, &mut reporter, reload) => stopped,
        _ = &mut delivery => Err(RunError::Ended("delivery")),
    };
    notify(&[NotifyState::Stopping]);
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    if let Some(control) = control {
        control.abort();
    }
    drop(balancers);
    drop(control_file);
    // Where a part of the agent failed, the next one's first window covers this.
    stopped?;
    report(&mut reporter).await?;
    drop(sampler);
    drain(&stop_delivery, delivery).await;
    let pending = lock(&spool).pending();
    tracing::info!(pending, "stopped; the kernel goes on counting");
    Ok(())
}

/// Who serves balancers; ends when dropped.
#[expect(dead_code, reason = "the fields do their work when they are dropped")]
struct Balancers {
    tasks: JoinSet<()>,
    file: Option<SocketFile>,
}

impl Balancers {
    fn serve(
        backends: Option<(UnixListener, SocketFile)>,
        agent_check: Option<TcpListener>,
        shared: Arc<Shared>,
        names: &Arc<FollowedFiles>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let file = backends.map(|(listener, file)| {
            tasks.spawn(socket::serve(
                listener,
                Arc::clone(&shared),
                Arc::clone(names),
            ));
            file
        });
        if let Some(listener) = agent_check {
            tasks.spawn(agent_check::serve(listener, shared, Arc::clone(names)));
        }
        Self { tasks, file }
    }
}

async fn report_until(
    mut signals: Signals<impl Future<Output = &'static str>>,
    reporter: &mut Reporter,
    mut reload: Reload,
) -> Result<(), RunError> {
    let mut stop = pin!(signals.stop);
    let mut interval = reload.config.report_interval;
    let mut ticks = ticks(interval);
    loop {
        tokio::select! {
            _ = ticks.tick() => report(reporter).await?,
            Some(()) = signals.reload.recv() => {
                reload.again().await;
                if interval != reload.config.report_interval {
                    interval = reload.config.report_interval;
                    ticks = self::ticks(interval);
                }
            }
            why = &mut stop => {
                tracing::info!(why, "stopping");
                return Ok(());
            }
        }
    }
}

fn ticks(interval: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Makes one report.  Only a sampler that is gone is worth ending for.
async fn report(reporter: &mut Reporter) -> Result<(), RunError> {
    match reporter.report().await {
        Ok(key) => tracing::debug!(sequence = key.sequence, "reported"),
        Err(ReportError::Sampler(SamplerError::Ended)) => return Err(RunError::Ended("sampler")),
        Err(error) => {
            let error = daemon::error_chain(&error);
            if once_a_minute(&error) {
                tracing::warn!(error, "no report: the next one covers this window too");
            }
        }
    }
    Ok(())
}

/// Gives the delivery its time.  It ends by itself as soon as nothing waits, or
/// the collector is not there.
async fn drain(stop: &watch::Sender<bool>, delivery: JoinHandle<()>) {
    stop.send_replace(true);
    let aborter = delivery.abort_handle();
    if timeout(DRAIN_TIMEOUT, delivery).await.is_err() {
        tracing::warn!(
            "the collector accepts reports too slowly: those that wait stay in the spool, for the \
             agent's next start"
        );
        aborter.abort();
    }
}

fn ready(config: &Config, targets: &[Target], level: Level, metrics: Option<SocketAddr>) {
    let targets: Vec<_> = targets.iter().map(|t| &*t.label).collect();
    let collector = config.destination();
    tracing::info!(
        targets = %targets.join(","),
        level = %level_name(level),
        collector = %collector.trim_end_matches('/'),
        "pin-dir" = %config.pin_dir.display(),
        metrics = metrics.map(tracing::field::display),
        "ready"
    );
    notify(&[NotifyState::Ready]);
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Tcp => "tcp",
        Level::Http => "http",
    }
}

pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

async fn listen(
    flag: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, RunError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|source| RunError::Listen {
        flag,
        address,
        source,
    })
}

/// The socket for balancers, which is made before the agent gives up its capabilities.
///
/// # Errors
/// Where it cannot be made.
pub fn backends_socket(config: &Config) -> Result<Option<BackendsListener>, RunError> {
    let Some(wanted) = &config.backends_socket else {
        return Ok(None);
    };
    let opened = socket::open(wanted).map_err(|source| RunError::BackendsSocket {
        path: wanted.path.clone(),
        source,
    })?;
    Ok(Some(opened))
}

/// The control socket; a default place that cannot be used is not worth not
/// counting for.
fn control_listener(config: &Config) -> Result<Option<UnixListener>, RunError> {
    let path = &config.control_socket.path;
    match unix_socket::listen(path, None).and_then(UnixListener::from_std) {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if config.control_socket.required => Err(RunError::Control {
            path: path.clone(),
            source,
        }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `level` and `status` will not reach this agent");
            Ok(None)
        }
    }
}

/// Tells of every SIGHUP, from the moment of this call on; to be called where the
/// runtime is entered.
///
/// # Errors
/// Where the operating system refuses a signal handler.
pub fn hangups() -> Result<mpsc::Receiver<()>, RunError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(system("a signal handler"))?;
    // Those that come while one is served are one.
    let (told, reload) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(())) = told.try_send(()) {
                return;
            }
        }
    });
    Ok(reload)
}

/// Waits for SIGTERM or SIGINT, from the moment of this call on.
///
/// # Errors
/// Where the operating system refuses a signal handler.
pub fn signals() -> Result<impl Future<Output = &'static str>, RunError> {
    let listen = |kind| signal(kind).map_err(system("a signal handler"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}
