use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use kernel_sample::{
    EndedConnections, EndpointAddress, EndpointId, LiveSocket, Settled, SocketSample,
};
use monitor_common::{
    endpoint::Role,
    socket::Socket,
    tcp::{Reading, Stream, state},
};
use proptest::prelude::*;

use super::*;

const SINCE: u64 = 9;

fn ip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn ended(n: u8, generation: u64, bytes: u64) -> EndedConnections {
    EndedConnections {
        client: ip(n),
        generation,
        counters: ClientCounters {
            connections: 1,
            bytes_received: bytes,
            ..ClientCounters::default()
        },
    }
}

/// A connection of which so much was folded, and a byte was not.
fn live(cookie: u64, n: u8, folded: u64) -> SocketSample {
    let listener: SocketAddr = ([127, 0, 0, 1], 80).into();
    let mut storage = Socket::default();
    storage.stream.flags = Stream::ESTABLISHED;
    storage.stream.folded_received = folded;
    SocketSample {
        endpoint: EndpointId {
            target: Arc::from("/web"),
            role: Role::Downstream,
            address: EndpointAddress::Socket(listener),
        },
        live: LiveSocket {
            cookie,
            local: listener,
            remote: (ip(n), 5).into(),
            state: state::ESTABLISHED,
            cgroup_id: 1,
            srtt_us: 5,
            last_ack_recv_ms: 0,
            reading: Reading {
                bytes_received: folded + 1,
                ..Reading::default()
            },
            payload_sent: 0,
            receive_queue: 0,
            send_queue: 0,
            storage: Some(storage),
            client: None,
        },
    }
}

fn target(ended: Vec<EndedConnections>, settled_before: u64) -> TargetClients {
    TargetClients {
        target: Arc::from("/web"),
        since_unix_ns: SINCE,
        prefixes: ClientPrefixes::default(),
        ended,
        sees_live: true,
        settled: Settled::new(settled_before, &Arc::new(AtomicU64::new(0))),
    }
}

/// Windows, one after the other.
#[derive(Default)]
struct Book {
    baseline: Option<Baseline>,
}

impl Book {
    fn close(
        &mut self,
        target: TargetClients,
        sockets: &[SocketSample],
    ) -> Vec<(String, u64, u64)> {
        let compared = compare(self.baseline.as_ref(), false, &[target], sockets, true);
        self.baseline = Some(Baseline {
            clients: compared.told,
            ..Baseline::default()
        });
        let top = compared.clients.unwrap().top.into_iter();
        top.map(|c| (c.address, c.connections_opened, c.bytes_received))
            .collect()
    }

    /// Another agent goes on from what was stored.
    fn restart(&mut self) {
        let stored = self.baseline.as_ref().unwrap().encode();
        self.baseline = Baseline::decode(&stored);
    }

    fn told(&self) -> usize {
        let clients = &self.baseline.as_ref().unwrap().clients;
        clients.values().map(|told| told.clients.len()).sum()
    }
}

fn told(n: u8, connections: u64, bytes: u64) -> (String, u64, u64) {
    (ip(n).to_string(), connections, bytes)
}

#[test]
fn a_long_connection_counts_window_by_window_and_its_end_adds_what_is_new() {
    let mut book = Book::default();
    assert_eq!(
        book.close(target(vec![], 1), &[live(1, 1, 99)]),
        [told(1, 1, 100)]
    );
    assert_eq!(
        book.close(target(vec![], 2), &[live(1, 1, 149)]),
        [told(1, 0, 50)]
    );
    book.restart();
    // It ended with ten more, in a generation that may get others.
    let end = || target(vec![ended(1, 3, 160)], 3);
    assert_eq!(book.close(end(), &[]), [told(1, 0, 10)]);
    assert_eq!((book.close(end(), &[]), book.told()), (vec![], 1));
    // The generation is over, and once that was told nothing is remembered.
    let over = || target(vec![ended(1, 3, 160)], 4);
    assert_eq!((book.close(over(), &[]), book.told()), (vec![], 0));
    // An agent that was killed has not removed it.
    book.restart();
    assert_eq!(book.close(over(), &[]), []);
    assert_eq!(
        book.close(target(vec![ended(1, 4, 7)], 5), &[]),
        [told(1, 1, 7)]
    );
}

#[test]
fn what_ends_between_the_two_readings_comes_with_the_next_window() {
    let mut book = Book::default();
    book.close(target(vec![], 1), &[live(1, 1, 99), live(2, 1, 9)]);
    // Neither among the ended nor the live ones, while the other one goes on.
    assert_eq!(book.close(target(vec![], 2), &[live(2, 1, 19)]), []);
    let end = target(vec![ended(1, 2, 100)], 3);
    assert_eq!(book.close(end, &[live(2, 1, 19)]), [told(1, 0, 10)]);
}

#[test]
fn what_does_not_come_again_hides_nothing_for_long() {
    let mut book = Book::default();
    book.close(target(vec![], 1), &[live(1, 1, 999)]);
    // Another program took its callbacks away: its end was never told.
    for n in 1..=u64::from(ABOVE_MAX) {
        assert_eq!(book.close(target(vec![], n), &[]), []);
    }
    assert_eq!(book.told(), 0);
    assert_eq!(
        book.close(target(vec![], 20), &[live(2, 1, 4)]),
        [told(1, 1, 5)]
    );
}

#[test]
fn without_a_dump_everything_comes_with_the_next_one() {
    let mut book = Book::default();
    book.close(target(vec![], 1), &[live(1, 1, 9)]);
    let blind = TargetClients {
        sees_live: false,
        ..target(vec![ended(2, 1, 5)], 2)
    };
    assert_eq!(book.close(blind, &[]), []);
    let both = target(vec![ended(2, 1, 5)], 3);
    assert_eq!(
        book.close(both, &[live(1, 1, 19)]),
        [told(1, 0, 10), told(2, 1, 5)]
    );
}

#[test]
fn by_another_prefix_clients_begin_anew_and_nothing_is_told_twice() {
    let mut book = Book::default();
    book.close(target(vec![], 1), &[live(1, 1, 99)]);
    let baseline = book.baseline.as_mut().unwrap();
    let id = live(1, 1, 0).endpoint;
    let totals = crate::Totals {
        since_unix_ns: SINCE,
        counters: Box::new(monitor_common::counters::EndpointCounters::ZERO),
    };
    baseline.endpoints.insert(id, totals);
    let wider = || TargetClients {
        prefixes: ClientPrefixes::try_new(24, 48).unwrap(),
        ..target(vec![], 2)
    };
    let window = |book: &Book, bytes| {
        let compared = compare(
            book.baseline.as_ref(),
            false,
            &[wider()],
            &[live(1, 1, bytes)],
            true,
        );
        (compared.clients.unwrap(), compared.told)
    };
    let (clients, told) = window(&book, 109);
    assert_eq!((clients.prefix_v4, clients.top.len()), (24, 0));
    book.baseline.as_mut().unwrap().clients = told;
    let (clients, _) = window(&book, 119);
    let client = &clients.top[0];
    assert_eq!(
        (client.address.as_str(), client.bytes_received),
        ("192.0.2.0/24", 10)
    );
}

#[test]
fn those_with_the_most_bytes_are_told_and_those_with_the_most_connections() {
    let mut all: Vec<EndedConnections> = (0..200).map(|n| ended(n, 0, u64::from(n))).collect();
    // The least bytes, and the most connections.
    all[3].counters.connections = 1_000;
    let rows = Book::default().close(target(all, 0), &[]);
    assert_eq!(rows.len(), REPORT_CLIENTS_TOP);
    assert_eq!(rows[0], told(199, 1, 199));
    assert_eq!(rows[39], told(160, 1, 160));
    assert_eq!(rows[40], told(3, 1_000, 3));
}

#[test]
fn a_bounded_number_is_stored_and_what_is_not_counts_for_nobody() {
    let many = (0..2_000u16).map(|n| EndedConnections {
        client: [10, 0, (n >> 8) as u8, n as u8].into(),
        ..ended(0, 0, 1_000 + u64::from(n))
    });
    let all = target(many.collect(), 0);
    let mut book = Book::default();
    book.close(all.clone(), &[]);
    assert_eq!(book.told(), 2_000);
    book.restart();
    assert_eq!(book.told(), STORED_MAX);
    // Those that are not known any more count from here on, the others as before.
    let mut more = all;
    more.ended[0].counters.bytes_received += 5;
    more.ended[1_999].counters.bytes_received += 5;
    assert_eq!(book.close(more, &[]), [("10.0.7.207".to_owned(), 0, 5)]);
    assert_eq!(book.told(), 2_000);
}

/// Connections of three clients as they come, grow, and end, read at any time, with
/// agents that are killed at any time.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open(u8),
    Grow(usize, u64),
    End(usize),
    /// One ends between the two readings.
    Close(Option<usize>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8).prop_map(Step::Open),
        (any::<usize>(), 1..50u64).prop_map(|(i, n)| Step::Grow(i, n)),
        any::<usize>().prop_map(Step::End),
        prop::option::of(any::<usize>()).prop_map(Step::Close),
        Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn every_client_is_told_what_it_carried(steps in prop::collection::vec(step(), 0..80)) {
        let mut open: Vec<(u8, u64)> = Vec::new();
        let mut map: BTreeMap<(u8, u64), (u64, u64)> = BTreeMap::new();
        let mut truth: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut sums = truth.clone();
        let (mut generation, mut reported) = (1u64, 0u64);
        let mut book = Book::default();
        let last = [Step::Close(None), Step::Close(None)];
        for step in steps.into_iter().chain(last) {
            let mut end = |open: &mut Vec<(u8, u64)>, i: usize, generation| {
                if open.is_empty() { return }
                let i = i % open.len();
                let (n, bytes) = open.remove(i);
                let entry = map.entry((n, generation)).or_default();
                *entry = (entry.0 + 1, entry.1 + bytes);
                let truth = truth.entry(ip(n).to_string()).or_default();
                *truth = (truth.0 + 1, truth.1 + bytes);
            };
            match step {
                Step::Open(n) => open.push((n, 0)),
                Step::Grow(i, by) => if !open.is_empty() {
                    let i = i % open.len();
                    open[i].1 += by;
                },
                Step::End(i) => end(&mut open, i, generation),
                Step::Restart => if book.baseline.is_some() { book.restart() },
                Step::Close(between) => {
                    map.retain(|(_, g), _| *g >= reported);
                    let settled = generation;
                    generation += 1;
                    let all = map.iter().map(|((n, g), (connections, bytes))| {
                        let mut e = ended(*n, *g, *bytes);
                        e.counters.connections = *connections;
                        e
                    });
                    let target = target(all.collect(), settled);
                    let mut end = |open: &mut Vec<(u8, u64)>, i: usize| {
                        if open.is_empty() { return }
                        let i = i % open.len();
                        let (n, bytes) = open.remove(i);
                        let entry = map.entry((n, generation)).or_default();
                        *entry = (entry.0 + 1, entry.1 + bytes);
                        let truth = truth.entry(ip(n).to_string()).or_default();
                        *truth = (truth.0 + 1, truth.1 + bytes);
                    };
                    if let Some(i) = between {
                        end(&mut open, i);
                    }
                    let sockets: Vec<_> = (1..).zip(&open)
                        .map(|(cookie, (n, bytes))| {
                            let mut socket = live(cookie, *n, *bytes);
                            socket.live.reading.bytes_received = *bytes;
                            socket
                        })
                        .collect();
                    for (client, connections, bytes) in book.close(target, &sockets) {
                        let sum = sums.entry(client).or_default();
                        *sum = (sum.0 + connections, sum.1 + bytes);
                    }
                    reported = settled;
                }
            }
        }
        for (n, bytes) in open {
            let truth = truth.entry(ip(n).to_string()).or_default();
            *truth = (truth.0 + 1, truth.1 + bytes);
        }
        prop_assert_eq!(sums, truth);
    }
}
