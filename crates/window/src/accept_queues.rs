//! The accept queues of listeners, beside the endpoints that they belong to.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use kernel_sample::{EndpointAddress, EndpointId, ListenerSample};
use monitor_common::endpoint::Role;
use monitor_proto::v1;

/// A listener: its target, and where it listens.
type ListenerId = (Arc<str>, SocketAddr);

/// How many listeners are remembered that are not there any more.
const GONE_MAX: usize = 4_096;

/// What listeners had dropped when they were reported last.
#[derive(Clone, Debug, Default)]
pub(super) struct Drops(HashMap<ListenerId, u64>);

impl Drops {
    /// The same after a report of these queues.  A listener that it does not have may
    /// come again, and could not be looked at meanwhile.
    fn after(&self, queues: &AcceptQueues) -> Self {
        let gone = self
            .0
            .iter()
            .filter(|(id, drops)| **drops > 0 && !queues.0.contains_key(*id));
        let gone = gone.take(GONE_MAX).map(|(id, drops)| (id.clone(), *drops));
        let now = queues.0.iter().map(|(id, q)| (id.clone(), q.drops_total));
        Self(gone.chain(now).collect())
    }
}

/// The queues of one reading.
#[derive(Debug)]
pub(super) struct AcceptQueues(HashMap<ListenerId, v1::AcceptQueue>);

impl AcceptQueues {
    /// With what was dropped since the last report.
    pub(super) fn new(listeners: Vec<ListenerSample>, before: &Drops) -> Self {
        let queue = |l: ListenerSample| {
            let id = (l.target, l.address);
            // Of another agent's reading, or forgotten: it counts from its beginning.
            let before = before.0.get(&id).filter(|drops| **drops <= l.drops_total);
            let queue = v1::AcceptQueue {
                listener: l.address.to_string(),
                connections: l.accept_queue,
                connections_max: l.accept_queue_max,
                limit: l.accept_queue_limit,
                drops: l.drops_total - before.copied().unwrap_or(0),
                drops_total: l.drops_total,
            };
            (id, queue)
        };
        Self(listeners.into_iter().map(queue).collect())
    }

    /// What the next report's drops are counted from.
    pub(super) fn drops(&self, before: &Drops) -> Drops {
        before.after(self)
    }

    /// The queue that connections to an endpoint wait in: of the socket that listens on
    /// its very address, else of one that listens on all of them, as the kernel looks
    /// listeners up.
    pub(super) fn of(&self, endpoint: &EndpointId) -> Option<v1::AcceptQueue> {
        let EndpointAddress::Socket(address) = endpoint.address else {
            return None;
        };
        if endpoint.role != Role::Downstream {
            return None;
        }
        let every_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let places: &[IpAddr] = match address.ip() {
            ip @ IpAddr::V4(_) => &[ip, every_v4, every],
            ip @ IpAddr::V6(_) => &[ip, every],
        };
        let mut places = places.iter().map(|ip| SocketAddr::new(*ip, address.port()));
        let at = |place| self.0.get(&(Arc::clone(&endpoint.target), place));
        places.find_map(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, drops_total: u64) -> ListenerSample {
        ListenerSample {
            target: "/t".into(),
            address: address.parse().unwrap(),
            sockets: 1,
            accept_queue: 3,
            accept_queue_max: 9,
            accept_queue_limit: 128,
            drops: 0,
            drops_total,
        }
    }

    fn endpoint(role: Role, address: &str) -> EndpointId {
        EndpointId {
            target: "/t".into(),
            role,
            address: EndpointAddress::Socket(address.parse().unwrap()),
        }
    }

    #[test]
    fn an_endpoint_has_the_queue_that_its_connections_wait_in() {
        let all = ["10.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::]:81"];
        let listeners = all.map(|address| listener(address, 0));
        let queues = AcceptQueues::new(listeners.into(), &Drops::default());
        let of = |role, address| {
            let found = queues.of(&endpoint(role, address));
            found.map(|queue| queue.listener)
        };
        for (address, listener) in [
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("10.0.0.2:80", Some("0.0.0.0:80")),
            ("10.0.0.1:81", Some("[::]:81")),
            ("[fd00::1]:80", Some("[::]:80")),
            ("10.0.0.1:82", None),
        ] {
            let found = of(Role::Downstream, address);
            assert_eq!(found.as_deref(), listener, "{address}");
        }
        assert_eq!(of(Role::Upstream, "10.0.0.1:80"), None);
        let other = EndpointId {
            address: EndpointAddress::Other,
            ..endpoint(Role::Downstream, "10.0.0.1:80")
        };
        assert_eq!(queues.of(&other), None);
    }

    #[test]
    fn drops_are_those_since_the_last_report() {
        let id = endpoint(Role::Downstream, "10.0.0.1:80");
        let read = |total, before: &Drops| {
            let queues = AcceptQueues::new(vec![listener("10.0.0.1:80", total)], before);
            let queue = queues.of(&id).unwrap();
            ((queue.drops, queue.drops_total), queues.drops(before))
        };
        let (first, before) = read(5, &Drops::default());
        assert_eq!(first, (5, 5));
        assert_eq!(read(7, &before).0, (2, 7));
        assert_eq!(read(1, &before).0, (1, 1), "it counts anew");
        let unseen = AcceptQueues::new(Vec::new(), &before).drops(&before);
        assert_eq!(read(7, &unseen).0, (2, 7), "it could not be looked at once");
    }
}
