//! The accept queues of a target's listeners, looked at with each sample.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use kernel_sample::{KernelSample, ListenerSample};

use crate::{
    adoption::Membership, error::KernelError, namespaces::Namespaces, sockdiag::Listening,
};

/// How many addresses of one target are told of; a proxy has far fewer.
const ADDRESSES_MAX: usize = 1_024;

/// The listeners of one target.
pub(crate) struct Listeners {
    cgroup: Option<PathBuf>,
    members: Option<Membership>,
    /// Whether they were looked at before: what was dropped until then is not told.
    looked: bool,
    /// Whether the last look failed: what was seen before is not told as what is now.
    unknown: bool,
    /// The drops of each socket when it was seen last, by cookie.
    drops: HashMap<u64, u32>,
    addresses: BTreeMap<SocketAddr, Queue>,
}

/// The queue of one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Queue {
    sockets: u64,
    now: u64,
    max: u64,
    limit: u64,
    drops: u64,
    drops_total: u64,
}

impl Queue {
    /// Whether somebody listens there, or has since the reading before.
    fn is_told(&self) -> bool {
        self.sockets > 0 || self.max > 0 || self.drops > 0
    }
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Listeners {
    /// Those of a cgroup.
    pub(crate) fn of(cgroup: Option<PathBuf>) -> Self {
        Self {
            cgroup,
            members: None,
            looked: false,
            unknown: false,
            drops: HashMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Looks at the queues.
    pub(crate) fn look(&mut self, label: &str, namespaces: &Namespaces) -> Result<(), KernelError> {
        let Some(cgroup) = &self.cgroup else {
            return Ok(());
        };
        let members = self
            .members
            .get_or_insert_with(|| Membership::of(cgroup, label));
        let found = namespaces.listening();
        self.unknown = found.is_err();
        let mut found = found?;
        found.retain(|socket| members.has_cgroup(socket.cgroup_id));
        self.take(&found);
        Ok(())
    }

    fn take(&mut self, found: &[Listening]) {
        for queue in self.addresses.values_mut() {
            (queue.sockets, queue.now, queue.limit) = (0, 0, 0);
        }
        let before = std::mem::take(&mut self.drops);
        for socket in found {
            let drops_before = match before.get(&socket.cookie) {
                Some(drops) => *drops,
                None if self.looked => 0,
                None => socket.drops,
            };
            // A socket is in one namespace alone, and told once.
            match self.drops.entry(socket.cookie) {
                Entry::Vacant(place) => place.insert(socket.drops),
                Entry::Occupied(_) => continue,
            };
            if self.addresses.len() >= ADDRESSES_MAX
                && !self.addresses.contains_key(&socket.address)
            {
                // What was dropped at an address where nobody listens has to make room.
                self.addresses.retain(|_, queue| queue.is_told());
                if self.addresses.len() >= ADDRESSES_MAX {
                    continue;
                }
            }
            let queue = self.addresses.entry(socket.address).or_default();
            queue.sockets += 1;
            queue.now += u64::from(socket.queue);
            queue.limit += u64::from(socket.limit);
            let drops = u64::from(socket.drops.wrapping_sub(drops_before));
            queue.drops += drops;
            queue.drops_total += drops;
        }
        for queue in self.addresses.values_mut() {
            queue.max = queue.max.max(queue.now);
        }
        self.looked = true;
    }

    /// Adds them to a reading, and begins the next one.
    pub(crate) fn read(&mut self, label: &Arc<str>, sample: &mut KernelSample) {
        // Those of the next reading are of the cgroups that there are then.
        self.members = None;
        if self.unknown {
            return;
        }
        // A listener that is made again goes on counting.
        self.addresses
            .retain(|_, queue| queue.is_told() || queue.drops_total > 0);
        let told = self.addresses.iter_mut().filter(|(_, q)| q.is_told());
        for (address, queue) in told {
            sample.listeners.push(ListenerSample {
                target: Arc::clone(label),
                address: *address,
                sockets: queue.sockets,
                accept_queue: queue.now,
                accept_queue_max: queue.max,
                accept_queue_limit: queue.limit,
                drops: queue.drops,
                drops_total: queue.drops_total,
            });
            (queue.max, queue.drops) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(cookie: u64, queue: u32, drops: u32) -> Listening {
        Listening {
            cookie,
            address: ([127, 0, 0, 1], 80).into(),
            cgroup_id: 1,
            queue,
            limit: 10,
            drops,
        }
    }

    fn read(listeners: &mut Listeners) -> Vec<[u64; 6]> {
        let mut sample = KernelSample::default();
        listeners.read(&Arc::from("/t"), &mut sample);
        let row = |l: &ListenerSample| {
            [
                l.sockets,
                l.accept_queue,
                l.accept_queue_max,
                l.accept_queue_limit,
                l.drops,
                l.drops_total,
            ]
        };
        sample.listeners.iter().map(row).collect()
    }

    #[test]
    fn a_reading_has_the_most_of_its_samples_and_what_was_dropped_since_the_one_before() {
        let mut listeners = Listeners::of(None);
        listeners.take(&[socket(1, 3, 7)]);
        listeners.take(&[socket(1, 9, 8), socket(2, 2, 1)]);
        listeners.take(&[socket(1, 1, 8), socket(2, 0, 5)]);
        assert_eq!(read(&mut listeners), [[2, 1, 11, 20, 6, 6]]);
        listeners.take(&[socket(2, 0, 6)]);
        assert_eq!(read(&mut listeners), [[1, 0, 0, 10, 1, 7]]);
        listeners.take(&[]);
        assert_eq!(read(&mut listeners), <[[u64; 6]; 0]>::default());
        // It is made again.
        listeners.take(&[socket(3, 0, 2)]);
        assert_eq!(read(&mut listeners), [[1, 0, 0, 10, 2, 9]]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_told_as_it_was() {
        let mut listeners = Listeners::of(None);
        listeners.take(&[socket(1, 3, 7)]);
        listeners.take(&[socket(1, 9, 8)]);
        listeners.unknown = true;
        assert_eq!(read(&mut listeners), <[[u64; 6]; 0]>::default());
        listeners.unknown = false;
        listeners.take(&[socket(1, 1, 8)]);
        assert_eq!(read(&mut listeners), [[1, 1, 9, 10, 1, 1]]);
    }

    #[test]
    fn more_addresses_than_there_is_room_for_take_no_memory() {
        let mut listeners = Listeners::of(None);
        let many = (0..5_000u16).map(|port| Listening {
            address: ([127, 0, 0, 1], port).into(),
            ..socket(port.into(), 0, 0)
        });
        listeners.take(&many.collect::<Vec<_>>());
        assert_eq!(read(&mut listeners).len(), ADDRESSES_MAX);
        // Those that dropped something and are gone make room for those that are there.
        let dropped = (0..1_024u16).map(|port| Listening {
            address: ([127, 0, 0, 1], port).into(),
            ..socket(u64::from(port), 0, 1)
        });
        listeners.take(&dropped.collect::<Vec<_>>());
        listeners.take(&[]);
        read(&mut listeners);
        listeners.take(&[Listening {
            address: ([127, 0, 0, 2], 80).into(),
            ..socket(9_999, 0, 0)
        }]);
        assert_eq!(read(&mut listeners), [[1, 0, 0, 10, 0, 0]]);
    }
}
