//! The live sockets of one target, as often as there is time for it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use kernel_sample::LiveSocket;
use monitor_common::tcp::{Delta, Stream};

use crate::{
    adoption::{
        Adoption, Books, Rows,
        journal::{Entry, StreamCounters, peek},
    },
    error::KernelError,
    namespaces::Namespaces,
    watched::{
        counts::{Connections, Counts},
        listening::Listeners,
    },
};

/// How often a dump that does not fit the counters is tried again: what it missed
/// while sockets came and went it will have then.
const TRIES: usize = 3;

/// Where the adopted connections are known from.
pub(crate) enum Adopted {
    /// This agent follows them.
    Followed(Box<Adoption>),
    /// Another one does, or did.
    Peeked(Rows),
    /// There are none, or the kernel does not tell.
    Unknown,
}

/// The maps of what the programs keep of each socket.
pub(crate) struct Storages {
    pub(crate) sockets: OwnedFd,
    pub(crate) proxy_headers: OwnedFd,
}

/// The live sockets of one target.
pub(crate) struct Live {
    storages: Storages,
    pub(crate) namespaces: Namespaces,
    pub(crate) adopted: Adopted,
    /// The share of a core that dumps may take.
    budget: f64,
    cost: Duration,
    dumped_at: Option<Instant>,
    warned: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("dumped_at", &self.dumped_at)
            .finish_non_exhaustive()
    }
}

/// What a dump found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What the callbacks have not folded yet, by slot.
    pub(crate) remainders: HashMap<u32, Delta>,
    /// The sockets, each with its slot.
    pub(crate) sockets: Vec<(u32, LiveSocket)>,
    /// The connections that the counters say are open, less the sockets there
    /// are: how far beyond what began and ended meanwhile.  `None` where sockets
    /// of other network namespaces cannot be looked at.
    pub(crate) difference: Option<i64>,
}

impl Live {
    pub(crate) fn new(
        storages: Storages,
        namespaces: Namespaces,
        adopted: Adopted,
        budget: f64,
    ) -> Self {
        Self {
            storages,
            namespaces,
            adopted,
            budget,
            cost: Duration::ZERO,
            dumped_at: None,
            warned: false,
        }
    }

    /// The map of what the programs keep of each socket that they follow.
    pub(crate) fn sockets(&self) -> &OwnedFd {
        &self.storages.sockets
    }

    /// Takes what the kernel told of the ends of adopted connections.
    pub(crate) fn take_ends(&mut self, books: &impl Books) {
        if let Adopted::Followed(adoption) = &mut self.adopted {
            adoption.take_ends(books);
        }
    }

    /// Looks at the accept queues; that they cannot be is told where the other sockets
    /// cannot be, either.
    pub(crate) fn listeners(&self, label: &str, listeners: &mut Listeners) {
        if let Err(error) = listeners.look(label, &self.namespaces) {
            tracing::debug!(%error, "the listeners cannot be looked at");
        }
    }

    /// Whether there are sockets in other network namespaces that cannot be looked
    /// at.
    pub(crate) fn hidden(&self) -> bool {
        self.namespaces.hidden()
    }

    /// How long ago the live sockets were looked at.
    pub(crate) fn age(&self) -> Duration {
        self.dumped_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    fn due(&self) -> bool {
        let pause = self.cost.as_secs_f64() / self.budget;
        self.dumped_at
            .is_none_or(|at| at.elapsed().as_secs_f64() >= pause)
    }

    /// Looks at the live sockets; `None` where it is too early for that again, or
    /// the kernel does not let us.  `before` is what was counted just before.
    pub(crate) fn look(&mut self, counts: &Counts, before: Connections) -> Option<Found> {
        if !self.due() {
            return None;
        }
        let began = cpu_time();
        let found = self.look_until_it_fits(counts, before);
        self.cost = cpu_time().saturating_sub(began);
        self.dumped_at = Some(Instant::now());
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    let error = daemon::error_chain(&error);
                    tracing::warn!(
                        error,
                        "the live sockets cannot be read: bytes of connections that only \
                         receive come late; see `speedmimi-agent doctor`"
                    );
                }
                None
            }
        }
    }

    fn look_until_it_fits(
        &mut self,
        counts: &Counts,
        mut before: Connections,
    ) -> Result<Found, KernelError> {
        let mut tries = 1;
        loop {
            let mut found = self.dump(counts, before)?;
            match found.difference {
                Some(0) => self.namespaces.complete(),
                Some(1..) => self.namespaces.search(),
                _ => {}
            }
            let difference = found.difference.unwrap_or(0);
            if difference == 0 || tries == TRIES {
                // What was not found cannot be compared.
                if difference > 0 && self.namespaces.hidden() {
                    found.difference = None;
                }
                return Ok(found);
            }
            tries += 1;
            before = counts.connections();
        }
    }

    fn dump(&mut self, counts: &Counts, before: Connections) -> Result<Found, KernelError> {
        self.namespaces.refresh()?;
        let Storages {
            sockets,
            proxy_headers,
        } = &self.storages;
        let live = self
            .namespaces
            .sockets(|diag, found| diag.live(&[sockets, proxy_headers], found))?;
        let mut found = Found::default();
        let mut open = 0u64;
        if let Adopted::Followed(adoption) = &mut self.adopted {
            adoption.leave(&self.namespaces);
            adoption.observe(&live);
        }
        let peeked: HashMap<u64, Entry> = match &self.adopted {
            Adopted::Peeked(rows) => peek(rows, rows.entries).map(|e| (e.cookie, e)).collect(),
            Adopted::Followed(_) | Adopted::Unknown => HashMap::new(),
        };
        for socket in &live {
            let Some((slot, delta, is_open)) = self.place(socket, &peeked) else {
                continue;
            };
            add(found.remainders.entry(slot).or_default(), &delta);
            found.sockets.push((slot, *socket));
            open += u64::from(is_open);
        }
        if let Adopted::Followed(adoption) = &mut self.adopted {
            adoption.judge_missing(&live, counts);
        }
        // What cannot be looked at cannot be compared.
        let visible = !self.namespaces.closed();
        found.difference = visible.then(|| distance(before, counts.connections(), open));
        Ok(found)
    }

    /// The slot of a socket, what it has on top of the counters, and whether it is
    /// among the connections that are counted as open.
    fn place(
        &self,
        socket: &LiveSocket,
        peeked: &HashMap<u64, Entry>,
    ) -> Option<(u32, Delta, bool)> {
        let entry = match &self.adopted {
            Adopted::Followed(adoption) => adoption.get(socket.cookie),
            Adopted::Peeked(_) => peeked.get(&socket.cookie).copied(),
            Adopted::Unknown => None,
        };
        if let Some(entry) = entry {
            return Some((entry.slot, Delta::default(), !entry.has(Entry::GONE)));
        }
        let storage = socket.storage?;
        let stream = &storage.stream;
        let is_open = stream.is_followed() && !stream.has(Stream::ENDED);
        Some((storage.exchange.slot, socket.remainder(), is_open))
    }

    /// What adopted connections carried and no counter has yet, by slot.
    pub(crate) fn pending(&self) -> HashMap<u32, StreamCounters> {
        let mut pending: HashMap<u32, StreamCounters> = HashMap::new();
        let mut add = |entry: Entry| {
            let sum = pending.entry(entry.slot).or_default();
            for (sum, figure) in sum.iter_mut().zip(entry.pending()) {
                *sum += figure;
            }
        };
        match &self.adopted {
            Adopted::Followed(adoption) => adoption.entries().for_each(&mut add),
            Adopted::Peeked(rows) => peek(rows, rows.entries).for_each(&mut add),
            Adopted::Unknown => {}
        }
        pending
    }
}

fn add(sum: &mut Delta, delta: &Delta) {
    sum.bytes_received += delta.bytes_received;
    sum.bytes_sent += delta.bytes_sent;
    sum.packets_received += delta.packets_received;
    sum.packets_sent += delta.packets_sent;
    sum.retransmits += delta.retransmits;
}

/// How far a number of open sockets lies beyond what the counters allow.
///
/// Connections begin and end while the sockets are looked at one after the other,
/// so the counters are read before and after: what was open before and did not end
/// must be there, and no more than that and what began meanwhile.
fn distance(before: Connections, after: Connections, open: u64) -> i64 {
    let least = before.begun.saturating_sub(after.ended);
    let most = after.begun.saturating_sub(before.ended);
    if open < least {
        (least - open).cast_signed()
    } else {
        // Not positive.
        most.min(open).cast_signed() - open.cast_signed()
    }
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_and_what_is_there_may_differ_by_what_happened_meanwhile() {
        let before = Connections {
            begun: 10,
            ended: 4,
        };
        let after = Connections {
            begun: 13,
            ended: 6,
        };
        // Four were there all the time, six before, and three came.
        let distances: Vec<_> = (2..12).map(|n| distance(before, after, n)).collect();
        assert_eq!(distances, [2, 1, 0, 0, 0, 0, 0, 0, -1, -2]);
        assert_eq!(distance(before, before, 6), 0);
        assert_eq!(distance(before, before, 5), 1);
        assert_eq!(distance(before, before, 7), -1);
    }
}
