//! Building the parts, running them, and stopping them in order.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tonic::transport::server::TcpIncoming;

use crate::{
    config::Config,
    fleet::Fleet,
    grpc::{Ingest, Query},
    http,
    live::Live,
    logging::READY_TARGET,
    remote_write::RemoteWrite,
    self_stats::SelfStats,
    stop::{Stopping, stopped},
    store::{self, Readers, Roller, Told, Writer},
};

/// Hosts that one collector keeps.
const HOSTS_MAX: usize = 10_000;
/// How often the store is looked through for what is too old or too much.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// How long open requests may take to end when stopping.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Where something cannot be started; the message says what to do.
pub fn run(config: Config) -> Result<()> {
    let _lock = lock(&config.data_dir)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that serve requests")?
        .block_on(serve(config))
}

/// Copies the store in `data_dir` to `file`; how many bytes that has.
///
/// # Errors
/// Where there is no store or the copy cannot be made.
pub fn backup(data_dir: &Path, file: &Path) -> Result<u64> {
    Ok(store::backup(&data_dir.join(store::FILE_NAME), file)?)
}

/// Two collectors on one store would answer from different memories.
fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| {
        format!(
            "cannot write to the data directory {}: give a writable one by --data-dir",
            data_dir.display()
        )
    })?;
    if file.try_lock().is_err() {
        bail!(
            "another collector uses the data directory {}: stop it, or give another one by \
             --data-dir",
            data_dir.display()
        );
    }
    Ok(file)
}

async fn serve(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let grpc_listener = bind(config.listen_grpc, "--listen-grpc").await?;
    let http_listener = bind(config.listen_http, "--listen-http").await?;
    let (grpc_address, http_address) = (grpc_listener.local_addr()?, http_listener.local_addr()?);

    let told = Told {
        fleet: Fleet::default(),
        live: Live::new(),
        stats: Arc::new(SelfStats::new(&config.remote_write)),
    };
    let store_path: PathBuf = config.data_dir.join(store::FILE_NAME);
    let connection = store::open(&store_path)?;
    let readers = Readers::start(&store_path).context("cannot read the store")?;
    let (writer, writer_thread) =
        Writer::start(connection, told.clone(), HOSTS_MAX, config.retention)
            .context("cannot read the hosts in the store")?;
    let roller =
        Roller::start(&store_path, writer.clone()).context("cannot read the store's roll-ups")?;
    let remotes = config
        .remote_write
        .into_iter()
        .zip(&told.stats.remotes)
        .map(|(url, stats)| RemoteWrite::start(&store_path, writer.clone(), url, Arc::clone(stats)))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot read the store for remote write")?;
    let tidying = tokio::spawn(tidy(writer.clone()));

    let (stop, stopping) = watch::channel(false);
    let ingest = Ingest {
        writer: writer.clone(),
        token: config.token,
        stats: Arc::clone(&told.stats),
        rates: Arc::default(),
        stopping: stopping.clone(),
    };
    let query = Query {
        fleet: told.fleet.clone(),
        live: told.live.clone(),
        readers: readers.clone(),
        stats: Arc::clone(&told.stats),
        stopping: stopping.clone(),
    };
    let state = http::State::new(
        told,
        readers,
        stopping.clone(),
        store_path,
        config.any_host_name,
    );
    let mut grpc = tokio::spawn(
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .add_service(ingest.into_server())
            .add_service(query.into_server())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(grpc_listener).with_nodelay(Some(true)),
                until_stopped(stopping.clone()),
            ),
    );
    let mut http = tokio::spawn(http::serve(http_listener, state, until_stopped(stopping)));

    ready(grpc_address, http_address);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut grpc => bail!("the gRPC server ended by itself: {result:?}"),
        result = &mut http => bail!("the HTTP server ended by itself: {result:?}"),
        () = writer.ended() => bail!("the store's writer ended by itself"),
    }
    tidying.abort();
    drop((roller, remotes));
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
    .context("the writer did not finish in time")
}

async fn tidy(writer: Writer) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    loop {
        ticks.tick().await;
        writer.tidy();
    }
}

async fn until_stopped(mut stopping: Stopping) {
    stopped(&mut stopping).await;
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: give a free address by {flag}, or port 0")
    })
}

fn ready(grpc: SocketAddr, http: SocketAddr) {
    tracing::info!(target: READY_TARGET, "ready grpc={grpc} http={http}");
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Without systemd this does nothing.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

async fn ended<E: std::error::Error>(mut server: JoinHandle<Result<(), E>>, what: &str) {
    match tokio::time::timeout(STOP_MAX, &mut server).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, what, "a server failed"),
        Ok(Err(error)) => tracing::error!(%error, what, "a server broke"),
        Err(_) => {
            tracing::warn!(what, "some requests did not end in time");
            server.abort();
        }
    }
}
