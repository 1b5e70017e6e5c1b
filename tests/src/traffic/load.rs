//! The load generator: many keep-alive connections, one exchange at a time on
//! each, every byte counted.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;

use super::{
    client::{Client, Next},
    outcome::Outcome,
    plan::Exchange,
    poller::Poller,
};

/// Read at once from a socket.
const BUFFER_BYTES: usize = 128 * 1024;

/// Connections of one load generator at the most.
const CONNECTIONS_MAX: usize = 20_000;

/// How a connection ends after its last exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// By a FIN, when the last answer has come.
    #[default]
    Close,
    /// By a FIN behind the last request, before its answer.
    HalfClose,
    /// By a reset, when the last answer has come.
    Reset,
}

/// A load that is described and not yet begun.
#[derive(Clone, Debug)]
pub struct Load {
    target: SocketAddr,
    connections: usize,
    requests: Option<u64>,
    duration: Option<Duration>,
    give_up_after: Duration,
    pause: Duration,
    mix: Vec<Exchange>,
    ending: Ending,
}

/// A load that is under way.
#[derive(Debug)]
pub struct RunningLoad {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Outcome>>,
}

impl Load {
    /// One connection and one `GET` of 100 bytes.
    #[must_use]
    pub fn on(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 1,
            requests: Some(1),
            duration: None,
            give_up_after: Duration::from_secs(120),
            pause: Duration::ZERO,
            mix: vec![Exchange::get(100)],
            ending: Ending::Close,
        }
    }

    /// How many connections are open at once.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, CONNECTIONS_MAX);
        self
    }

    /// How many requests are sent in all, spread evenly.
    #[must_use]
    pub fn requests(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self.duration = None;
        self
    }

    /// Sends requests for this long, in place of a number of them.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self.requests = None;
        self.give_up_after = duration + Duration::from_secs(60);
        self
    }

    /// The exchanges, which every connection goes through in turn.
    #[must_use]
    pub fn mix(mut self, mix: impl IntoIterator<Item = Exchange>) -> Self {
        self.mix = mix.into_iter().collect();
        self
    }

    /// How connections end that are not stopped.
    #[must_use]
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// How long a connection rests between two exchanges.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// How long the whole may take; what is not answered by then is an error.
    #[must_use]
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = limit;
        self
    }

    /// Begins in a thread of its own.
    #[must_use]
    pub fn start(self) -> RunningLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || self.drive(&seen));
        RunningLoad { stop, thread }
    }

    /// Sends everything and returns when the last answer has come.
    ///
    /// # Errors
    ///
    /// Where sockets cannot be watched; what goes wrong with an exchange is
    /// counted in the outcome.
    pub fn run(self) -> io::Result<Outcome> {
        self.drive(&AtomicBool::new(false))
    }

    fn drive(self, stop: &AtomicBool) -> io::Result<Outcome> {
        assert!(!self.mix.is_empty(), "a load needs an exchange");
        Driver::new(self, stop)?.run()
    }

    /// How many requests fall to a connection.
    fn share(&self, slot: usize) -> u64 {
        let Some(requests) = self.requests else {
            return u64::MAX;
        };
        let connections = self.connections as u64;
        requests / connections + u64::from((slot as u64) < requests % connections)
    }
}

impl RunningLoad {
    /// Lets every connection end its exchange, and closes them.
    ///
    /// # Errors
    ///
    /// As [`Load::run`].
    pub fn stop(self) -> io::Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// As [`Load::run`].
    pub fn finish(self) -> io::Result<Outcome> {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// One place for a connection, and what is left to do on it.
#[derive(Debug)]
struct Slot {
    client: Option<Client>,
    left: u64,
    /// Which exchange of the mix is under way.
    turn: usize,
    watches_write: bool,
    rests_until: Option<Instant>,
}

struct Driver<'a> {
    load: Load,
    stop: &'a AtomicBool,
    authority: String,
    poller: Poller,
    slots: Vec<Slot>,
    buffer: Vec<u8>,
    outcome: Outcome,
    ends: Option<Instant>,
}

impl<'a> Driver<'a> {
    fn new(load: Load, stop: &'a AtomicBool) -> io::Result<Self> {
        let slots = (0..load.connections)
            .map(|slot| Slot {
                client: None,
                left: load.share(slot),
                turn: slot % load.mix.len(),
                watches_write: false,
                rests_until: None,
            })
            .collect();
        Ok(Self {
            authority: load.target.to_string(),
            ends: load.duration.map(|duration| Instant::now() + duration),
            poller: Poller::new()?,
            buffer: vec![0; BUFFER_BYTES],
            outcome: Outcome::default(),
            load,
            stop,
            slots,
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let start = Instant::now();
        for slot in 0..self.slots.len() {
            self.advance(slot)?;
        }
        while self.slots.iter().any(|slot| slot.client.is_some()) {
            if start.elapsed() > self.load.give_up_after {
                let open = self.slots.iter().filter(|slot| slot.client.is_some());
                self.outcome.errors.unfinished += open.count() as u64;
                break;
            }
            for slot in self.poller.wait(self.patience())? {
                self.drive(slot)?;
            }
            self.wake()?;
        }
        self.outcome.elapsed_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(self.outcome)
    }

    /// How long events may be waited for before something else is due.
    fn patience(&self) -> Duration {
        let tick = Duration::from_millis(100);
        if self.load.pause.is_zero() {
            tick
        } else {
            tick.min(self.load.pause)
        }
    }

    /// Goes on with the slots that have rested.
    fn wake(&mut self) -> io::Result<()> {
        if self.load.pause.is_zero() {
            return Ok(());
        }
        let now = Instant::now();
        for at in 0..self.slots.len() {
            if self.slots[at].rests_until.is_some_and(|until| until <= now) {
                self.slots[at].rests_until = None;
                self.advance(at)?;
            }
        }
        Ok(())
    }

    /// Begins the next exchange of a slot, or closes its connection.
    fn advance(&mut self, at: usize) -> io::Result<()> {
        loop {
            let is_over = self.stop.load(Ordering::Relaxed)
                || self.ends.is_some_and(|ends| Instant::now() >= ends);
            let slot = &mut self.slots[at];
            if slot.left == 0 || is_over {
                if let Some(client) = slot.client.take()
                    && self.load.ending == Ending::Reset
                {
                    set_socket_linger(&client.socket, Some(Duration::ZERO))?;
                }
                return Ok(());
            }
            slot.left -= 1;
            if slot.client.is_none() {
                match Client::connect(self.load.target) {
                    Ok(client) => {
                        self.outcome.connections += 1;
                        self.poller.add(&client.socket, at, false)?;
                        slot.watches_write = false;
                        slot.client = Some(client);
                    }
                    Err(_) => {
                        self.outcome.errors.connect += 1;
                        continue;
                    }
                }
            }
            if let Some(client) = &mut slot.client {
                let is_last = slot.left == 0 && self.load.ending == Ending::HalfClose;
                client.begin(&self.load.mix[slot.turn], &self.authority, is_last);
            }
            return self.drive(at);
        }
    }

    fn drive(&mut self, at: usize) -> io::Result<()> {
        let slot = &mut self.slots[at];
        let Some(client) = &mut slot.client else {
            return Ok(());
        };
        if slot.rests_until.is_some() {
            // Nothing is due to it: an event now is the end of the connection,
            // and a keep-alive connection that ends counts as an error.
            self.outcome.errors.connection += 1;
            slot.rests_until = None;
            slot.client = None;
            return self.advance(at);
        }
        let exchange = &self.load.mix[slot.turn];
        match client.drive(exchange, &mut self.buffer, &mut self.outcome) {
            Next::Wait { write } => {
                if write != slot.watches_write {
                    self.poller.modify(&client.socket, at, write)?;
                    slot.watches_write = write;
                }
                return Ok(());
            }
            Next::Idle => {}
            Next::Over => slot.client = None,
        }
        slot.turn = (slot.turn + 1) % self.load.mix.len();
        if self.load.pause.is_zero() || slot.client.is_none() {
            return self.advance(at);
        }
        slot.rests_until = Some(Instant::now() + self.load.pause);
        Ok(())
    }
}
