//! Looks hosts up on threads of its own: one that nobody answers for takes half a
//! minute, and neither counting nor another host waits for it.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// How many hosts are looked up at once.
pub(super) const AT_ONCE: usize = 32;

/// Looking up takes little of a stack.
const STACK_BYTES: usize = 256 << 10;

/// Says what addresses a host has; none where that is not known.
pub(super) type LookUp = Arc<dyn Fn(&str) -> Vec<IpAddr> + Send + Sync>;

/// Takes a host's addresses, on the thread that looked it up.
pub(super) type Answer = Arc<dyn Fn(String, Vec<IpAddr>) + Send + Sync>;

/// The threads, and what waits for them.
#[derive(Clone)]
pub(super) struct Lookups {
    look_up: LookUp,
    answer: Answer,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    hosts: VecDeque<String>,
    threads: usize,
}

/// As the host's own resolver says, with its file of hosts.
pub(super) fn by_the_system() -> LookUp {
    Arc::new(|host| {
        let addresses = (host, 0).to_socket_addrs();
        let addresses = addresses.map(|all| all.map(|a| a.ip().to_canonical()));
        addresses.map(Iterator::collect).unwrap_or_default()
    })
}

impl Lookups {
    pub(super) fn new(look_up: LookUp, answer: Answer) -> Self {
        Self {
            look_up,
            answer,
            queue: Arc::default(),
        }
    }

    /// Looks these up, and returns at once.
    pub(super) fn begin(&self, hosts: impl IntoIterator<Item = String>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.hosts.extend(hosts);
        while queue.threads < queue.hosts.len().min(AT_ONCE) {
            let lookups = self.clone();
            let thread = thread::Builder::new().name("look-up".to_owned());
            match thread.stack_size(STACK_BYTES).spawn(move || lookups.work()) {
                Ok(_) => queue.threads += 1,
                Err(error) => {
                    tracing::warn!(%error, "the operating system refuses a thread to look hosts up");
                    break;
                }
            }
        }
        if queue.threads == 0 {
            // As if nobody had answered: they are looked up again later.
            let hosts = std::mem::take(&mut queue.hosts);
            drop(queue);
            hosts
                .into_iter()
                .for_each(|host| (self.answer)(host, Vec::new()));
        }
    }

    fn work(&self) {
        while let Some(host) = self.next() {
            let addresses = (self.look_up)(&host);
            (self.answer)(host, addresses);
        }
    }

    /// The host that waits longest; where there is none, this thread is no more.
    fn next(&self) -> Option<String> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let host = queue.hosts.pop_front();
        queue.threads -= usize::from(host.is_none());
        host
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}
