//! Which clients the listeners' connections came from.
//!
//! What a client's connections carried is that of the ended ones, as the programs have
//! added them up, and of the live ones, as a dump has them.  What of it was told before
//! is kept with the baseline, so that a connection counts window by window and its end
//! adds only what is new.  All that finds no place here, for whatever reason, is what
//! the endpoints' counters have besides: no sum is ever wrong.
//!
//! A connection that ends between the reading of the ended ones and the dump is in
//! neither for one window.  Then a client has less than was told of it: that stands,
//! and the next window has the connection again.  Where it has not, it is not coming.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use kernel_sample::{ClientPrefixes, SocketSample, TargetClients};
use monitor_common::{
    client::{CLIENT_FIGURES, ClientCounters},
    endpoint::Role,
    http::Exchange,
    tcp::Stream,
};
use monitor_proto::{REPORT_CLIENTS_TOP, client::ClientAddress, v1};

use super::Baseline;

/// How many clients of a target are remembered across agents.
pub(super) const STORED_MAX: usize = 1_024;

/// Of those that are told, how many are chosen by their bytes.
const BY_BYTES: usize = 40;

/// How many targets that are not there are remembered.
const TARGETS_GONE_MAX: usize = 64;

/// After so many windows in a row what was told and is not there is given up: its end
/// was not seen.
const ABOVE_MAX: u8 = 10;

/// In the order of the fields of [`ClientCounters`].
type ClientCounts = [u64; CLIENT_FIGURES];

/// What was told of one target's clients and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldClients {
    /// When the target began to be counted.
    pub(super) since_unix_ns: u64,
    /// How many bits of an IPv4 and of an IPv6 address count.
    pub(super) prefixes: [u8; 2],
    /// Ended connections of generations before this one were told for good.
    pub(super) settled_before: u64,
    /// Some of the clients are not known any more.
    pub(super) is_partial: bool,
    pub(super) clients: BTreeMap<IpAddr, Told>,
}

/// What was told of one client's connections that are live, or ended in a generation
/// that is not settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) figures: ClientCounts,
    /// How many windows in a row found less than that.
    pub(super) above: u8,
}

/// What one window tells of the clients.
pub(super) struct Compared {
    pub(super) clients: Option<v1::Clients>,
    pub(super) told: BTreeMap<Arc<str>, ToldClients>,
}

/// Compares what there is with what was told.  `unknown` says that nobody knows what
/// was told.
pub(super) fn compare(
    baseline: Option<&Baseline>,
    unknown: bool,
    targets: &[TargetClients],
    sockets: &[SocketSample],
    http: bool,
) -> Compared {
    let mut told: BTreeMap<Arc<str>, ToldClients> = BTreeMap::new();
    // A target that cannot be read now comes again.
    if let Some(baseline) = baseline {
        told.clone_from(&baseline.clients);
    }
    let mut window: HashMap<IpAddr, ClientCounts> = HashMap::new();
    let mut of_target: HashMap<&str, Vec<&SocketSample>> = HashMap::new();
    for socket in sockets {
        let target = &*socket.endpoint.target;
        of_target.entry(target).or_default().push(socket);
    }
    for target in targets {
        if !target.sees_live {
            // What was live is unknown: the next window has it all.
            continue;
        }
        let before = told.remove(&target.target);
        let before = before.filter(|before| before.is_of(target));
        let is_known = match &before {
            Some(before) => !before.is_partial,
            None => !unknown && !was_reported(baseline, target),
        };
        let sockets = of_target.get(&*target.target).map(Vec::as_slice);
        let now = now(target, before.as_ref(), sockets.unwrap_or_default());
        let next = settle(target, before, &now, is_known, &mut window);
        told.insert(Arc::clone(&target.target), next);
    }
    forget_targets(&mut told, targets);
    let prefixes = targets.first().map(|target| target.prefixes);
    Compared {
        clients: prefixes.map(|prefixes| message(prefixes, window, http)),
        told,
    }
}

/// Remembers a few of the targets that are not there.
fn forget_targets(told: &mut BTreeMap<Arc<str>, ToldClients>, targets: &[TargetClients]) {
    let mut left = TARGETS_GONE_MAX;
    told.retain(|label, _| {
        let is_there = targets.iter().any(|target| target.target == *label);
        left -= usize::from(!is_there && left > 0);
        is_there || left > 0
    });
}

/// Whether anything of a target was reported before its clients were.
fn was_reported(baseline: Option<&Baseline>, target: &TargetClients) -> bool {
    let endpoints = baseline.iter().flat_map(|baseline| &baseline.endpoints);
    let mut of_target = endpoints.filter(|(id, _)| id.target == target.target);
    of_target.any(|(_, totals)| totals.since_unix_ns == target.since_unix_ns)
}

/// What one client's connections carried.
#[derive(Clone, Copy, Debug, Default)]
struct Now {
    all: ClientCounts,
    /// Of it, what changes no more.
    settled: ClientCounts,
}

fn now(
    target: &TargetClients,
    before: Option<&ToldClients>,
    sockets: &[&SocketSample],
) -> HashMap<IpAddr, Now> {
    let mut now: HashMap<IpAddr, Now> = HashMap::new();
    let first = before.map_or(0, |before| before.settled_before);
    for ended in target.ended.iter().filter(|e| e.generation >= first) {
        let figures = ended.counters.figures();
        let client = now.entry(ended.client).or_default();
        add(&mut client.all, &figures);
        if ended.generation < target.settled.before {
            add(&mut client.settled, &figures);
        }
    }
    for socket in sockets {
        if let Some(figures) = live(socket) {
            let client = target.prefixes.client(socket.live.remote.ip());
            add(&mut now.entry(client).or_default().all, &figures);
        }
    }
    now
}

/// What a live connection of a listener carried, as the programs will add it up at its
/// end; `None` where they will not, or have done so.
fn live(socket: &SocketSample) -> Option<ClientCounts> {
    let storage = socket.live.storage.as_ref()?;
    let (stream, exchange) = (&storage.stream, &storage.exchange);
    let is_open = stream.is_followed() && !stream.has(Stream::ENDED);
    if socket.endpoint.role != Role::Downstream || !is_open {
        return None;
    }
    let rest = socket.live.remainder();
    let speaks = |protocol, n: u32| {
        if exchange.protocol == protocol {
            u64::from(n)
        } else {
            0
        }
    };
    let counters = ClientCounters {
        connections: 1,
        bytes_received: stream.folded_received + rest.bytes_received,
        bytes_sent: stream.folded_sent + rest.bytes_sent,
        requests: speaks(Exchange::HTTP1, exchange.requests),
        exchanges: speaks(Exchange::NOT_HTTP1, exchange.responses),
        ..ClientCounters::default()
    };
    Some(counters.figures())
}

/// Adds to the window what is new, and says what is told then.
fn settle(
    target: &TargetClients,
    before: Option<ToldClients>,
    now: &HashMap<IpAddr, Now>,
    is_known: bool,
    window: &mut HashMap<IpAddr, ClientCounts>,
) -> ToldClients {
    let before = before.map(|before| before.clients).unwrap_or_default();
    let mut clients = BTreeMap::new();
    let gone = before.keys().filter(|client| !now.contains_key(client));
    for client in now.keys().chain(gone) {
        let Now { all, settled } = now.get(client).copied().unwrap_or_default();
        let told = match before.get(client) {
            Some(told) => *told,
            None if is_known => Told::default(),
            // What of it was told is not known: it counts from here on.
            None => Told {
                figures: all,
                above: 0,
            },
        };
        let is_above = told.figures.iter().zip(all).any(|(told, all)| *told > all);
        let above = if is_above {
            told.above.saturating_add(1)
        } else {
            0
        };
        let mut next = told.figures;
        for (i, next) in next.iter_mut().enumerate() {
            let new = all[i].saturating_sub(*next);
            if new > 0 {
                window.entry(*client).or_default()[i] += new;
                *next = all[i];
            } else if above >= ABOVE_MAX {
                *next = all[i];
            }
            *next = next.saturating_sub(settled[i]);
        }
        if next != ClientCounts::default() {
            let told = Told {
                figures: next,
                above: above % ABOVE_MAX,
            };
            clients.insert(*client, told);
        }
    }
    ToldClients {
        since_unix_ns: target.since_unix_ns,
        prefixes: [target.prefixes.v4(), target.prefixes.v6()],
        settled_before: target.settled.before,
        is_partial: false,
        clients,
    }
}

impl ToldClients {
    fn is_of(&self, target: &TargetClients) -> bool {
        self.since_unix_ns == target.since_unix_ns
            && self.prefixes == [target.prefixes.v4(), target.prefixes.v6()]
    }
}

fn add(sum: &mut ClientCounts, figures: &ClientCounts) {
    for (sum, figure) in sum.iter_mut().zip(figures) {
        *sum = sum.saturating_add(*figure);
    }
}

/// The clients that are told: those with the most bytes, then those with the most
/// connections.
fn message(
    prefixes: ClientPrefixes,
    window: HashMap<IpAddr, ClientCounts>,
    http: bool,
) -> v1::Clients {
    let bytes = |c: &ClientCounters| Reverse(c.bytes_received.saturating_add(c.bytes_sent));
    let all = window.into_iter().map(|(c, f)| (c, ClientCounters::of(f)));
    let mut all: Vec<(IpAddr, ClientCounters)> = all.collect();
    all.sort_by_key(|(client, c)| (bytes(c), Reverse(c.connections), *client));
    let mut rest = all.split_off(all.len().min(BY_BYTES));
    rest.sort_by_key(|(client, c)| (Reverse(c.connections), bytes(c), *client));
    let top = all.into_iter().chain(rest).take(REPORT_CLIENTS_TOP);
    let client = |(ip, c): (IpAddr, ClientCounters)| v1::Client {
        address: ClientAddress::new(ip, prefixes.v4(), prefixes.v6()).to_string(),
        connections_opened: c.connections,
        bytes_received: c.bytes_received,
        bytes_sent: c.bytes_sent,
        closed_reset_sent: c.closed_reset_sent,
        closed_reset_received: c.closed_reset_received,
        requests: http.then_some(c.requests),
        exchanges: http.then_some(c.exchanges),
        requests_without_response: http.then_some(c.requests_without_response),
    };
    v1::Clients {
        prefix_v4: prefixes.v4().into(),
        prefix_v6: prefixes.v6().into(),
        top: top.map(client).collect(),
    }
}

#[cfg(test)]
mod tests;
