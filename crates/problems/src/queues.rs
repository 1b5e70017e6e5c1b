//! What is wrong with the accept queues of listeners.

use std::collections::{BTreeMap, BTreeSet};

use monitor_proto::{display::count, labels, v1};

use crate::{
    Evidence, Kind, Place, Subject,
    judge::Scene,
    track::{Extent, Measured, Told},
    words::{self, evidence, percent},
};

/// So many waiting connections are few, whatever the limit is.
const WAITING_MIN: u64 = 8;
/// A host's overflows are its listeners' where these dropped nearly as many.
const EXPLAINED: f64 = 0.9;

/// A listener of a target, and the endpoints whose connections wait in its queue.
struct Listener<'a> {
    queue: &'a v1::AcceptQueue,
    endpoints: Vec<&'a v1::Endpoint>,
}

impl Listener<'_> {
    /// Its only endpoint's address, or where it listens.
    fn address(&self) -> &str {
        match self.endpoints[..] {
            [only] => &only.address,
            _ => &self.queue.listener,
        }
    }

    /// What the proxy's configuration calls it.
    fn name(&self) -> &str {
        let mut names = self.endpoints.iter().map(|e| labels::listener(e));
        let first = names.next().unwrap_or_default();
        if names.all(|name| name == first) {
            first
        } else {
            ""
        }
    }

    fn subject(&self, host: Subject) -> Subject {
        Subject {
            place: Place::Listener,
            target: self.endpoints[0].target.clone(),
            endpoint: self.address().to_owned(),
            listener: self.name().to_owned(),
            ..host
        }
    }

    fn called(&self) -> String {
        format!("listener {}", words::named(self.name(), self.address()))
    }

    fn evidence(&self) -> Vec<Evidence> {
        let of = |name: &str, n: u64, unit| evidence(name, n as f64, unit);
        vec![
            of("accept_queue.drops", self.queue.drops, "packets"),
            of(
                "accept_queue.connections",
                self.queue.connections,
                "connections",
            ),
            of(
                "accept_queue.connections_max",
                self.queue.connections_max,
                "connections",
            ),
            of("accept_queue.limit", self.queue.limit, "connections"),
        ]
    }
}

/// Judges the listeners; how many of the host's overflows are told as theirs.
pub(crate) fn judge(scene: &mut Scene<'_>) -> u64 {
    let report = scene.report;
    let mut listeners: BTreeMap<(&str, &str), Listener<'_>> = BTreeMap::new();
    for endpoint in &report.endpoints {
        if let Some(queue) = &endpoint.accept_queue {
            let listener = listeners
                .entry((&endpoint.target, &queue.listener))
                .or_insert_with(|| Listener {
                    queue,
                    endpoints: Vec::new(),
                });
            listener.endpoints.push(endpoint);
        }
    }
    let namespaces = report.network_namespaces.iter();
    let overflowed = namespaces.clone().any(|one| one.listen_overflows > 0);
    let is_told_at = scene.threshold(Kind::AcceptQueueOverflow);
    let mut told = 0u64;
    for ((target, address), listener) in &listeners {
        let queue = listener.queue;
        // Segments that belong to no connection are dropped by an empty queue as well.
        let is_full = overflowed || queue.connections_max > queue.limit;
        let dropped = if is_full { queue.drops } else { 0 };
        if dropped as f64 >= is_told_at {
            told = told.saturating_add(dropped);
        }
        let key = [*target, "q", *address];
        overflow(scene, listener, key, dropped);
        filling(scene, listener, key, dropped);
    }
    // Where the target's other listeners are seen, one that is not has ended.
    let targets: BTreeSet<&str> = listeners.keys().map(|(target, _)| *target).collect();
    scene.gone(
        &[Kind::AcceptQueueOverflow, Kind::AcceptQueueFilling],
        |key| targets.contains(key.split('\0').next().unwrap_or_default()),
    );
    told
}

fn overflow(scene: &mut Scene<'_>, listener: &Listener<'_>, key: [&str; 3], dropped: u64) {
    let queue = listener.queue;
    // Where it is full and nobody tries, nobody can tell.
    let is_still_full = queue.connections > queue.limit && dropped == 0;
    let measured = Measured {
        kind: Kind::AcceptQueueOverflow,
        key,
        value: dropped as f64,
        extent: if is_still_full {
            Extent::Nothing
        } else {
            Extent::Enough
        },
        start_ns: scene.report.window_start_unix_ns,
    };
    let host = scene.subject(Place::Host);
    let packets = if dropped == 1 { "packet" } else { "packets" };
    scene.measure(measured, || Told {
        summary: format!(
            "the accept queue of {} overflows: {} {packets} of new connections dropped in a window",
            listener.called(),
            count(dropped as f64)
        ),
        subject: listener.subject(host),
        evidence: listener.evidence(),
        details: Vec::new(),
    });
}

fn filling(scene: &mut Scene<'_>, listener: &Listener<'_>, key: [&str; 3], dropped: u64) {
    let queue = listener.queue;
    let ratio = queue.connections_max as f64 / queue.limit.max(1) as f64;
    // One cause is one problem.
    let overflows = dropped > 0 || scene.is_open(Kind::AcceptQueueOverflow, key);
    let is_judged = queue.connections_max >= WAITING_MIN && !overflows;
    let measured = Measured {
        kind: Kind::AcceptQueueFilling,
        key,
        value: if is_judged { ratio } else { 0.0 },
        extent: Extent::Enough,
        start_ns: scene.report.window_start_unix_ns,
    };
    let host = scene.subject(Place::Host);
    scene.measure(measured, || {
        let mut figures = vec![evidence("accept_queue_ratio", ratio, "ratio")];
        figures.extend(listener.evidence());
        Told {
            summary: format!(
                "the accept queue of {} is {} full: {} of {} connections wait",
                listener.called(),
                percent(ratio),
                count(queue.connections_max as f64),
                count(queue.limit as f64)
            ),
            subject: listener.subject(host),
            evidence: figures,
            details: Vec::new(),
        }
    });
}

/// What listeners do not explain of the overflows of a network namespace.
pub(crate) fn unexplained(overflows: u64, of_listeners: u64) -> u64 {
    if of_listeners as f64 >= overflows as f64 * EXPLAINED {
        0
    } else {
        overflows - of_listeners
    }
}
