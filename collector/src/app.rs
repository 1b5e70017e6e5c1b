//! Building the parts, running them, and stopping them in order.

use std::{
    error::Error,
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use budget::Budget;
use export::{Forward, Otlp, RemoteUrl, RemoteWrite, Sources};
use monitor_otlp::{Headers, OtlpUrl};
use query::{Engine, Pool, QueryBackend, Readers};
use settings::{CommandLine, Setting};
pub use store::Backup;
use store::{self, Fleet, Live, Published, Roller, Writer};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    auth::Access,
    config::Config,
    grpc::{self, Ingest, Query},
    http,
    listen::{Bounds, Listener},
    logging::READY_TARGET,
    problems::Judgement,
    reload::Reload,
    self_stats::SelfStats,
    tls::Protocol,
};

/// Hosts that one collector keeps.
const HOSTS_MAX: usize = 10_000;
/// How often the store is looked through for what is too old or too much.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// How long open requests may take to end when stopping.
const STOP_MAX: Duration = Duration::from_secs(3);

/// How often the tokens are looked at, besides when one is shown.
const TOKENS_INTERVAL: Duration = Duration::from_secs(1);
/// Connections of agents, watchers and programs.
const GRPC_CONNECTIONS_MAX: u64 = 8192;
/// Connections of browsers, the command line and scrapers.
const HTTP_CONNECTIONS_MAX: u64 = 1024;
/// Connections that wait to be accepted: agents that lost a collector come back all
/// at once.  The machine's own limit (`net.core.somaxconn`) is mostly the same.
const BACKLOG: i32 = 4096;

/// Why the collector cannot run, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory cannot be written to.
    #[error("cannot write to the data directory {path}: set --data-dir to a writable one")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two collectors on one store would answer from different memories.
    #[error(
        "the data directory {0} is in use by another collector: stop it, or set another --data-dir"
    )]
    Taken(PathBuf),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: set {flag} to a free address, or to port 0")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Its flag.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The system refuses what every program needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The store fails.
    #[error("cannot {what}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A part that runs for ever ended.
    #[error("{0} stopped unexpectedly")]
    Ended(&'static str),
    /// The last reports could not be stored.
    #[error("the store writer did not finish within the shutdown timeout")]
    Unfinished,
}

impl AppError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    fn store<E: Into<Box<dyn Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Store {
            what,
            source: source.into(),
        }
    }
}

/// A collector that does not run yet, and that SIGHUP does not end any more.
#[derive(Debug)]
pub struct Daemon {
    runtime: Runtime,
    hangup: Signal,
}

impl Daemon {
    /// Starts the threads that serve requests, and catches SIGHUP.
    ///
    /// # Errors
    /// Where the system refuses them.
    pub fn new() -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(AppError::system("start the server threads"))?;
        let entered = runtime.enter();
        let hangup = signal(SignalKind::hangup()).map_err(AppError::system("listen for SIGHUP"))?;
        drop(entered);
        Ok(Self { runtime, hangup })
    }

    /// Runs until SIGTERM or SIGINT; `line` is what the configuration is read from
    /// again on SIGHUP, and `settings` what it was.
    ///
    /// # Errors
    /// Where something cannot be started; the message says what to do.
    pub fn run(
        self,
        config: Config,
        line: CommandLine,
        settings: Vec<Setting>,
    ) -> Result<(), AppError> {
        raise_open_files();
        let _lock = lock(&config.data_dir)?;
        let Self { runtime, hangup } = self;
        runtime.block_on(serve(config, hangup, line, settings))
    }
}

/// Copies the store in `data_dir` to `file`.
///
/// # Errors
/// Where there is no store or the copy cannot be made.
pub fn backup(data_dir: &Path, file: &Path) -> Result<Backup, AppError> {
    store::backup(&data_dir.join(store::FILE_NAME), file).map_err(AppError::store("copy the store"))
}

fn lock(data_dir: &Path) -> Result<File, AppError> {
    let file = File::create(data_dir.join("lock")).map_err(|source| AppError::DataDir {
        path: data_dir.to_owned(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(AppError::Taken(data_dir.to_owned())),
    }
}

/// Each connection is an open file, and the soft limit is mostly 1,024; where
/// it cannot be raised, fewer agents fit.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(
    config: Config,
    mut hangup: Signal,
    line: CommandLine,
    settings: Vec<Setting>,
) -> Result<(), AppError> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(AppError::system("listen for SIGTERM"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(AppError::system("listen for SIGINT"))?;
    let (grpc_listener, grpc_address) = bind(config.listen_grpc, "--listen-grpc").await?;
    let (http_listener, http_address) = bind(config.listen_http, "--listen-http").await?;

    let budget = Budget::new(config.memory_limit);
    let stats = Arc::new(SelfStats::new(&config.remote_write, &config.otlp));
    let published = Published {
        fleet: Fleet::default(),
        live: Live::new(budget.clone()),
        stats: Arc::clone(&stats.store),
        budget: budget.clone(),
    };
    let pool = Pool::start().map_err(AppError::system("start the query threads"))?;
    let store_path: PathBuf = config.data_dir.join(store::FILE_NAME);
    let (writer, writer_thread) =
        Writer::start(&store_path, &published, HOSTS_MAX, config.retention)
            .map_err(AppError::store("use the store"))?;
    let readers = Readers::start(&store_path, Arc::clone(&published.stats.damaged))
        .map_err(AppError::store("read the store"))?;
    let damaged = Arc::clone(&published.stats.damaged);
    let roller = Roller::start(&store_path, writer.clone(), damaged)
        .map_err(AppError::store("read the store's roll-ups"))?;
    let sources = Sources {
        store: &store_path,
        writer: &writer,
        damaged: &published.stats.damaged,
        fleet: &published.fleet,
    };
    let forwards = forwards(
        sources,
        config.remote_write,
        config.otlp,
        &config.otlp_headers,
        &stats,
    )
    .map_err(AppError::store("forward reports"))?;
    let access = Arc::new(config.access);
    let (tls, look) = config.tls.unzip();
    let mut background = JoinSet::new();
    background.spawn(tidy(writer.clone()));
    background.spawn(look_for_tokens(Arc::clone(&access)));
    if let Some(look) = look {
        background.spawn(look.run());
    }

    let judgement = Judgement::start(published.fleet.clone(), budget.clone(), config.thresholds)
        .map_err(AppError::system("start the thread that judges reports"))?;
    let (stop, stopping) = watch::channel(false);
    let ingest = Ingest {
        writer: writer.clone(),
        access: Arc::clone(&access),
        stats: Arc::clone(&stats),
        budget: budget.clone(),
        rates: Arc::default(),
        streams: Arc::default(),
        stopping: stopping.clone(),
    };
    let query_urls = config.query_url.iter().map(RemoteUrl::to_string).collect();
    let query_backend = match Engine::new(query_urls, &budget) {
        Some(engine) => QueryBackend::Engine(engine),
        None => QueryBackend::Store(published.fleet.clone(), readers),
    };
    let query = Query {
        query_backend: query_backend.clone(),
        judgement: judgement.clone(),
        live: published.live.clone(),
        stats: Arc::clone(&stats),
        budget,
        pool: pool.clone(),
        stopping: stopping.clone(),
        access: (!config.open_grpc).then(|| Arc::clone(&access)),
        looks: Arc::new(Semaphore::new(1)),
    };
    let listener = |tcp, protocol, connections_max| Listener {
        tcp,
        tls: tls.clone(),
        protocol,
        connections_max,
        bounds: Bounds::default(),
        stats: Arc::clone(&stats),
    };
    let grpc = listener(grpc_listener, Protocol::Grpc, GRPC_CONNECTIONS_MAX);
    let http = listener(http_listener, Protocol::Http, HTTP_CONNECTIONS_MAX);
    let names = http::Names::new(http_address.ip(), config.allow_host);
    let mut reload = Reload {
        line,
        settings,
        data_dir: config.data_dir,
        access: Arc::clone(&access),
        names: names.clone(),
        judgement: judgement.clone(),
        writer: writer.clone(),
    };
    let state = http::State::new(
        published,
        stats,
        pool,
        (query_backend, judgement),
        stopping.clone(),
        store_path,
        http::Guard {
            names,
            access: (!config.open_http).then_some(access),
        },
    );
    let mut grpc = tokio::spawn(grpc::serve(
        grpc.connections(stopping.clone()),
        ingest,
        query,
        stopping.clone(),
    ));
    let mut http = tokio::spawn(http::serve(http.connections(stopping), state));

    ready(grpc_address, http_address);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload.run().await,
            _ = &mut grpc => return Err(AppError::Ended("the gRPC server")),
            _ = &mut http => return Err(AppError::Ended("the HTTP server")),
            () = writer.ended() => return Err(AppError::Ended("the store's writer")),
        }
    }
    drop((background, roller, forwards));
    tracing::info!("stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    // The receivers live in the tasks that are to be stopped.
    stop.send_replace(true);
    ended(grpc, "gRPC").await;
    ended(http, "HTTP").await;
    // Nothing reads any answer by now; what is queued is stored all the same.
    writer.stop().await;
    tokio::time::timeout(store::DRAIN_MAX, async {
        while !writer_thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .map_err(|_| AppError::Unfinished)
}

/// Starts a thread for every receiver; `stats` has one entry for each.
fn forwards(
    from: Sources<'_>,
    remotes: Vec<RemoteUrl>,
    otlps: Vec<OtlpUrl>,
    headers: &Headers,
    stats: &SelfStats,
) -> Result<Vec<Forward>, Box<dyn Error + Send + Sync>> {
    let mut all = Vec::new();
    for (url, stats) in remotes.into_iter().zip(&stats.remotes) {
        let name = format!("remote-write {url}");
        let receiver = Box::new(RemoteWrite::new(url));
        all.push(Forward::start(from, name, receiver, Arc::clone(stats))?);
    }
    for (url, stats) in otlps.into_iter().zip(&stats.otlps) {
        let name = format!("otlp {url}");
        let receiver = Box::new(Otlp::new(url, headers.clone())?);
        all.push(Forward::start(from, name, receiver, Arc::clone(stats))?);
    }
    Ok(all)
}

async fn tidy(writer: Writer) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    loop {
        ticks.tick().await;
        writer.tidy();
    }
}

/// A token that was taken back ends its streams with their next report.
async fn look_for_tokens(access: Arc<Access>) {
    let mut ticks = tokio::time::interval(TOKENS_INTERVAL);
    loop {
        ticks.tick().await;
        access.refresh();
    }
}

async fn bind(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source| AppError::Listen {
        address,
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    // It listens already; this only makes more room.
    rustix::net::listen(&listener, BACKLOG).map_err(|errno| failed(errno.into()))?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn ready(grpc: SocketAddr, http: SocketAddr) {
    tracing::info!(target: READY_TARGET, "ready grpc={grpc} http={http}");
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Without systemd this does nothing.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

async fn ended<E: Error>(mut server: JoinHandle<Result<(), E>>, what: &str) {
    match tokio::time::timeout(STOP_MAX, &mut server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, what, "a server failed"),
        Ok(Err(error)) => tracing::error!(%error, what, "a server task panicked"),
        Err(_) => {
            tracing::warn!(what, "requests were still open at the shutdown timeout");
            server.abort();
        }
    }
}
