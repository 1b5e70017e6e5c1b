//! An origin of a known capacity: so many workers, each busy for so long with a
//! request.
//!
//! The capacity is made of waiting, so that it takes next to no CPU time and is the
//! same on a machine that has other things to do.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::{Shutdown, listen, shutdown, sockopt::set_socket_linger};

/// The largest head of a request that is read.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Connections that wait to be accepted at the most.
const BACKLOG: i32 = 1024;

/// Ports that are tried before a taken one is an error.
const PORTS_MAX: usize = 16;

/// Asked for by health checks: answered at once, by no worker, and not counted.
const HEALTH: &str = "GET /healthz ";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// A running origin; its threads end with its connections.
#[derive(Debug)]
pub struct LimitedOrigin {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    service_us: AtomicU64,
    /// Every so manieth request is answered with 503 at once; 0: none.
    unavailable_every: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
    /// When each worker has done what it was given.
    free_at: Mutex<Vec<Instant>>,
    connections: Mutex<Connections>,
}

/// Those that are open, to be reset.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, Arc<TcpStream>>,
}

impl LimitedOrigin {
    /// Listens on a free port of the loopback, with so many workers (one at least) that
    /// each take so long for a request.
    ///
    /// # Errors
    ///
    /// Where there is no free port.
    pub fn start(workers: usize, service: Duration) -> io::Result<Self> {
        let listener = free_port(TcpListener::bind)?;
        let origin = Self {
            address: listener.local_addr()?,
            listener: Arc::new(listener),
            state: Arc::new(State {
                service_us: AtomicU64::new(micros(service)),
                unavailable_every: AtomicU64::new(0),
                requests: AtomicU64::new(0),
                answers: AtomicU64::new(0),
                free_at: Mutex::new(vec![Instant::now(); workers.max(1)]),
                connections: Mutex::default(),
            }),
        };
        origin.accept();
        Ok(origin)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that were answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.state.answers.load(Ordering::SeqCst)
    }

    /// From now on a worker takes so long for a request.
    pub fn set_service(&self, service: Duration) {
        let us = micros(service);
        self.state.service_us.store(us, Ordering::SeqCst);
    }

    /// From now on every so manieth request is answered with 503, at once; 0: none.
    pub fn set_unavailable_every(&self, nth: u64) {
        self.state.unavailable_every.store(nth, Ordering::SeqCst);
    }

    /// Refuses connections and resets those that are open, as when its process dies;
    /// returns how many requests were in flight.
    ///
    /// # Errors
    ///
    /// Where the system does not let it.
    pub fn fail(&self) -> io::Result<u64> {
        shutdown(&*self.listener, Shutdown::Both)?;
        let requests = self.state.requests.load(Ordering::SeqCst);
        let in_flight = requests.saturating_sub(self.answers());
        for stream in lock(&self.state.connections).open.values() {
            set_socket_linger(stream, Some(Duration::ZERO))?;
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        let now = Instant::now();
        lock(&self.state.free_at).fill(now);
        Ok(in_flight)
    }

    /// Listens again.
    ///
    /// # Errors
    ///
    /// Where the system does not let it.
    pub fn recover(&self) -> io::Result<()> {
        listen(&*self.listener, BACKLOG)?;
        self.accept();
        Ok(())
    }

    /// Accepts in a thread of its own, until nobody listens any more.
    fn accept(&self) {
        let (listener, state) = (Arc::clone(&self.listener), Arc::clone(&self.state));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                thread::spawn(move || state.serve(stream));
            }
        });
    }
}

impl Drop for LimitedOrigin {
    fn drop(&mut self) {
        self.fail().ok();
    }
}

impl State {
    fn serve(&self, stream: TcpStream) {
        let stream = Arc::new(stream);
        let key = {
            let mut connections = lock(&self.connections);
            connections.next += 1;
            let key = connections.next;
            connections.open.insert(key, Arc::clone(&stream));
            key
        };
        // A peer that is gone, or a reset: the connection is over.
        drop(self.answer_all(&stream));
        lock(&self.connections).open.remove(&key);
    }

    fn answer_all(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(first) = head(&mut reader)? {
            if first.starts_with(HEALTH) {
                (&mut &*stream).write_all(OK)?;
                continue;
            }
            let nth = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            let every = self.unavailable_every.load(Ordering::SeqCst);
            let answer = if every > 0 && nth.is_multiple_of(every) {
                UNAVAILABLE
            } else {
                let done = self.occupy_a_worker();
                thread::sleep(done.saturating_duration_since(Instant::now()));
                OK
            };
            // Counted before it is sent: who has the answer finds it counted.
            self.answers.fetch_add(1, Ordering::SeqCst);
            (&mut &*stream).write_all(answer)?;
        }
        Ok(())
    }

    /// Gives a request to the worker that is free first; returns when it will be done.
    fn occupy_a_worker(&self) -> Instant {
        let service = Duration::from_micros(self.service_us.load(Ordering::SeqCst));
        let now = Instant::now();
        let mut free_at = lock(&self.free_at);
        let Some(first) = free_at.iter_mut().min() else {
            return now + service;
        };
        *first = now.max(*first) + service;
        *first
    }
}

/// Reads a head; returns its first line, or `None` at the end of the stream.
fn head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut limited = reader.take(HEAD_BYTES_MAX);
    let mut first = String::new();
    let mut line = String::new();
    if limited.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    while line != "\r\n" {
        line.clear();
        if limited.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(first))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A port that was asked for by its number stays bound while nobody listens; another
/// process may take it before it is asked for.
fn free_port(bind: impl Fn(SocketAddr) -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    let mut tries = 0..PORTS_MAX;
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match bind(free) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
            bound => return bound,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        traffic::{Exchange, Load},
        wait_until,
    };

    fn get(origin: &LimitedOrigin, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(origin.address()).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").ok()?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).ok()?;
        status.split(' ').nth(1)?.parse().ok()
    }

    #[test]
    fn a_port_that_was_taken_meanwhile_is_left_for_another() {
        let tries = AtomicU64::new(0);
        let taken = |address| match tries.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(io::ErrorKind::AddrInUse.into()),
            _ => TcpListener::bind(address),
        };
        assert!(free_port(taken).is_ok());
        assert_eq!(tries.load(Ordering::SeqCst), 3);
        let refused = |_| Err(io::ErrorKind::PermissionDenied.into());
        let error = free_port(refused).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let never = |_| Err(io::ErrorKind::AddrInUse.into());
        let error = free_port(never).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn workers_are_given_requests_in_turn() {
        let origin = LimitedOrigin::start(2, Duration::from_secs(10)).unwrap();
        let start = Instant::now();
        let done: Vec<u64> = (0..4)
            .map(|_| (origin.state.occupy_a_worker() - start).as_secs())
            .collect();
        assert_eq!(done, [10, 10, 20, 20]);
    }

    #[test]
    fn every_request_is_answered_and_counted() {
        let origin = LimitedOrigin::start(4, Duration::ZERO).unwrap();
        let load = Load::on(origin.address()).connections(3).requests(60);
        let outcome = load.mix([Exchange::get(0)]).run().unwrap();
        assert_eq!((outcome.errors.total(), origin.answers()), (0, 60));
        assert_eq!(get(&origin, "/healthz"), Some(200));
        assert_eq!(origin.answers(), 60, "a check is no request");
        origin.set_unavailable_every(2);
        let statuses = [1, 2, 3, 4].map(|_| get(&origin, "/"));
        assert_eq!(statuses, [Some(200), Some(503), Some(200), Some(503)]);
    }

    #[test]
    fn one_that_fails_resets_and_refuses_until_it_is_back() {
        let origin = LimitedOrigin::start(1, Duration::from_secs(3600)).unwrap();
        let mut waiting = TcpStream::connect(origin.address()).unwrap();
        waiting.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        wait_until("the request is there", || {
            origin.state.requests.load(Ordering::SeqCst) == 1
        });
        assert_eq!(origin.fail().unwrap(), 1);
        assert!(matches!(waiting.read(&mut [0]), Ok(0) | Err(_)));
        assert!(TcpStream::connect(origin.address()).is_err());
        origin.set_service(Duration::ZERO);
        origin.recover().unwrap();
        assert_eq!(get(&origin, "/"), Some(200));
    }
}
