//! Worker threads: their runtimes, accept loops and tickers.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::client::{Conn, DRAIN_HEAD_TICKS};
use super::eviction::wait_for_slot;
use super::io::Io;
use super::timers::{TICK, Wait};
use super::worker::{Admission, Shared, Worker};
use crate::descriptors::is_local_shortage;
use crate::table::Table;

/// How often the date is renewed and pools are looked through, in ticks.
const PRUNE_TICKS: u32 = 20;
/// The pause after a failed accept: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Events taken from the kernel at once. What they touch should still be in the
/// cache when their tasks run, so they are few, and all of their tasks run
/// before the kernel is asked again.
const EVENTS_MAX: usize = 64;
const TASKS_MAX: u32 = 4 * EVENTS_MAX as u32;

/// How long a draining worker goes on accepting: handshakes that began before new
/// connections were redirected still end here.
const ACCEPT_GRACE: Duration = Duration::from_millis(500);

/// What the control thread tells the workers.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The table to work by.
    pub table: Arc<Table>,
    /// The listeners to use from now on; `None`: those that the workers began
    /// with.
    pub listeners: Option<Arc<Listeners>>,
    /// Whether to stop: no new connections, those in flight may end.
    pub draining: bool,
}

/// New listeners, one for each worker to take.
#[derive(Debug)]
pub struct Listeners(Mutex<Vec<Option<StdListener>>>);

impl Listeners {
    /// To be taken in their order.
    #[must_use]
    pub fn new(listeners: Vec<StdListener>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(listeners.into_iter().map(Some).collect())))
    }

    /// This worker's, once.
    fn take(&self, index: usize) -> Option<StdListener> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(index)?.take()
    }
}

/// Starts one thread per listener. A worker that stops drops its commands once
/// its listener is closed.
///
/// # Errors
/// The error of the thread or runtime that could not be started.
pub fn spawn_workers(
    listeners: Vec<StdListener>,
    commands: &watch::Receiver<WorkerCommand>,
) -> io::Result<Vec<std::thread::JoinHandle<()>>> {
    let shared = Shared::new(listeners.len());
    let mut threads = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let (shared, commands) = (Arc::clone(&shared), commands.clone());
        let runtime_failed = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .max_io_events_per_tick(EVENTS_MAX)
                    .event_interval(TASKS_MAX)
                    .build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let started = runtime_failed.0.send(Ok(()));
                        debug_assert!(started.is_ok(), "the starter waits for this");
                        work(&runtime, listener, &shared, commands, index);
                    }
                    Err(error) => drop(runtime_failed.0.send(Err(error))),
                }
            })?;
        runtime_failed
            .1
            .recv()
            .map_err(|_| io::Error::other("a worker thread ended"))??;
        threads.push(thread);
    }
    Ok(threads)
}

fn work(
    runtime: &LocalRuntime,
    listener: StdListener,
    shared: &Arc<Shared>,
    mut commands: watch::Receiver<WorkerCommand>,
    index: usize,
) {
    let seed = u64::from(std::process::id()) << 32 | index as u64;
    // Not marked as seen: a command that came before this thread ran is carried out
    // below, with its listeners and its end.
    let table = Arc::clone(&commands.borrow().table);
    let worker = Worker::new(Arc::clone(shared), table, seed);
    runtime.block_on(async {
        let mut accepting = match Accepting::start(&worker, listener) {
            Ok(accepting) => accepting,
            Err(error) => return tracing::error!(%error, "cannot register the listening socket of a worker"),
        };
        let ticker = tokio::task::spawn_local(tick(Rc::clone(&worker)));
        while commands.changed().await.is_ok() {
            let now = commands.borrow_and_update().clone();
            worker.set_table(now.table);
            if let Some(listener) = now.listeners.and_then(|new| new.take(index)) {
                match Accepting::start(&worker, listener) {
                    Ok(new) => {
                        let old = std::mem::replace(&mut accepting, new);
                        let worker = Rc::clone(&worker);
                        drop(tokio::task::spawn_local(
                            async move { old.end(&worker).await },
                        ));
                    }
                    Err(error) => tracing::error!(%error, "cannot register the new listening socket of a worker"),
                }
            }
            if now.draining {
                break;
            }
        }
        drain(&worker, accepting, commands).await;
        ticker.abort();
    });
}

/// A listener from which connections are taken.
struct Accepting {
    listener: Rc<TcpListener>,
    acceptor: JoinHandle<Infallible>,
}

impl Accepting {
    fn start(worker: &Rc<Worker>, listener: StdListener) -> io::Result<Self> {
        let listener = Rc::new(TcpListener::from_std(listener)?);
        let acceptor = tokio::task::spawn_local(accept(Rc::clone(worker), Rc::clone(&listener)));
        Ok(Self { listener, acceptor })
    }

    /// Accepts for a grace period, for handshakes that have begun, then closes.
    async fn end(self, worker: &Rc<Worker>) {
        let drain = worker.table().table.config.timeouts.drain;
        tokio::time::sleep(drain.min(ACCEPT_GRACE)).await;
        self.acceptor.abort();
        let ended = self.acceptor.await;
        debug_assert!(ended.is_err(), "the acceptor only ends by being told to");
        sweep(worker, self.listener);
    }
}

/// Waits for connections in flight until the drain timeout, then aborts them.
async fn drain(
    worker: &Rc<Worker>,
    accepting: Accepting,
    commands: watch::Receiver<WorkerCommand>,
) {
    let start = tokio::time::Instant::now();
    let drain = worker.table().table.config.timeouts.drain;
    worker.draining.set(true);
    worker.timers.fire(Wait::NextRequest);
    accepting.end(worker).await;
    drop(commands);
    worker.timers.bring_forward(Wait::Head, DRAIN_HEAD_TICKS);
    let drained = async {
        while worker.live() > 0 {
            worker.drained.notified().await;
        }
    };
    if tokio::time::timeout_at(start + drain, drained)
        .await
        .is_err()
    {
        tracing::warn!(
            connections = worker.live(),
            "drain timeout: the remaining connections are closed"
        );
        worker.aborting.set(true);
    }
}

/// Accepts what is still in the listener's queue, and closes it.
fn sweep(worker: &Rc<Worker>, listener: Rc<TcpListener>) {
    let Some(Ok(listener)) = Rc::into_inner(listener).map(TcpListener::into_std) else {
        return;
    };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => start_client(worker, stream, peer.ip()),
            Err(error) => tracing::debug!(%error, "cannot use a connection"),
        }
    }
}

/// Advances the coarse clock.
async fn tick(worker: Rc<Worker>) {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut pruned = 0;
    loop {
        ticks.tick().await;
        let elapsed = start.elapsed().as_millis() / TICK.as_millis();
        let now = u32::try_from(elapsed)
            .unwrap_or(u32::MAX / 2)
            .saturating_add(1);
        worker.timers.advance(now);
        worker.serve_demand();
        if now - pruned >= PRUNE_TICKS {
            pruned = now;
            worker.prune();
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: Rc<TcpListener>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if !worker.shared.descriptors.allows_client(&stream) {
                    worker.wait_for_descriptor(&stream).await;
                }
                start_client(&worker, stream, peer.ip());
            }
            Err(error) if is_transient(&error) => {}
            Err(error) if is_local_shortage(&error) => {
                if worker.evict_idle() {
                    tokio::task::yield_now().await;
                } else {
                    worker.warn_of_shortage();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection ended before it was accepted; nothing is wrong here.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

fn start_client(worker: &Rc<Worker>, stream: TcpStream, peer: std::net::IpAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut admission = worker.admit();
    let admitted = admission.take_slot() || admission.evict_idle_client();
    let worker = Rc::clone(worker);
    if admitted && worker.table().table.tls.is_none() {
        let conn = Conn::new(worker, Io::Tcp(stream), peer, admission);
        drop(tokio::task::spawn_local(conn.serve()));
        return;
    }
    drop(tokio::task::spawn_local(Box::pin(async move {
        let others = worker.shared.workers > 1;
        let admitted = admitted || (others && wait_for_slot(&worker, &mut admission).await);
        serve_client(worker, stream, peer, admission, admitted).await;
    })));
}

/// Serves a client that speaks TLS, or for which there is no slot.
async fn serve_client(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: std::net::IpAddr,
    admission: Admission,
    admitted: bool,
) {
    let tls = worker.table().table.tls.clone();
    match (tls, admitted) {
        (None, true) => {
            let conn = Conn::new(worker, Io::Tcp(stream), peer, admission);
            conn.serve().await;
        }
        (None, false) => {
            let conn = Conn::new(worker, Io::Tcp(stream), peer, admission);
            conn.turn_away().await;
        }
        (Some(tls), true) => {
            if let Some(io) = secure(&worker, stream, tls).await {
                Conn::new(worker, io, peer, admission).serve().await;
            }
        }
        // An error by TLS would need the handshake, and so a slot.
        (Some(_), false) => {}
    }
}

/// The TLS handshake with a client, which may take as long as a head.
async fn secure(worker: &Worker, stream: TcpStream, tls: Arc<ServerConfig>) -> Option<Io> {
    let timer = worker.timers.timer();
    timer.arm_for(
        Wait::Head,
        if worker.draining.get() {
            DRAIN_HEAD_TICKS
        } else {
            worker.ticks.get().request_head
        },
    );
    let mut shaking = std::pin::pin!(TlsAcceptor::from(tls).accept(stream));
    poll_fn(|cx| {
        timer.register(cx);
        if timer.fired() {
            return Poll::Ready(None);
        }
        shaking.as_mut().poll(cx).map(|shaken| match shaken {
            Ok(stream) => Some(Io::Tls(Box::new(stream.into()))),
            Err(error) => {
                tracing::debug!(%error, "the TLS handshake with a client failed");
                None
            }
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_stop_before_the_workers_run_is_carried_out() {
        let text =
            "backends: {u: [{id: a, host: 127.0.0.1, port: 1}]}\nrouting: {r: {upstream: u}}\n";
        let table = Arc::new(Table::build(Config::parse(text).unwrap(), None).unwrap());
        let command = |draining| WorkerCommand {
            table: Arc::clone(&table),
            listeners: None,
            draining,
        };
        let (commands, received) = watch::channel(command(false));
        commands.send_replace(command(true));
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let threads = spawn_workers(vec![listener], &received).unwrap();
        drop(received);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !threads.iter().all(std::thread::JoinHandle::is_finished) {
            assert!(Instant::now() < deadline, "a worker did not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
