//! Clients of listeners, told apart by their addresses.
//!
//! Each test has programs of its own beside those of the others, and clients with
//! addresses of its own: what other tests' clients do is told beside it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use bpf::Kernel;
use kernel_sample::{ClientPrefixes, Level};
use libtest_mimic::Failed;
use monitor_agent::clock;
use monitor_proto::{ReportKey, json::ClientFigures, json::Report, v1};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt::set_socket_linger};
use window::{Baseline, ContainerNames, Environment, Observation, TargetReading, Windows};

use crate::{
    Case, Watch,
    watch::{DEADLINE, Own, fresh},
};

pub(crate) const CASES: [Case; 4] = [
    (
        "clients_have_what_each_of_them_sent_and_received",
        each_client,
    ),
    ("clients_go_on_when_the_agent_is_killed", killed_agent),
    (
        "more_clients_than_there_is_room_for_are_among_the_others",
        full_map,
    ),
    ("clients_are_as_wide_as_their_prefix_or_not_told", prefixes),
];

/// An agent's windows over programs of a test's own.
struct Agent<'a> {
    own: &'a Own,
    watch: &'a Watch,
    kernel: Option<Kernel>,
    windows: Windows,
    baseline: Option<Baseline>,
    sequence: u64,
    clients: BTreeMap<String, ClientFigures>,
    /// What the listeners had besides.
    other: ClientFigures,
    /// What they had in all.
    all: ClientFigures,
}

impl<'a> Agent<'a> {
    fn start(own: &'a Own, watch: &'a Watch) -> Self {
        Self {
            own,
            watch,
            kernel: Some(own.open(watch)),
            windows: Windows::new(v1::Host::default(), None, Environment::default()),
            baseline: None,
            sequence: 0,
            clients: BTreeMap::new(),
            other: ClientFigures::default(),
            all: ClientFigures::default(),
        }
    }

    /// Another agent goes on from what the spool has; `meanwhile` happens without one.
    fn restart(&mut self, meanwhile: impl FnOnce()) {
        self.kernel = None;
        meanwhile();
        let stored = self.baseline.as_ref().map(Baseline::encode);
        let baseline = stored.and_then(|stored| Baseline::decode(&stored));
        self.windows = Windows::new(v1::Host::default(), baseline, Environment::default());
        self.kernel = Some(self.own.open(self.watch));
    }

    fn observe(&self) -> Observation {
        let target = TargetReading {
            names: ContainerNames::default(),
            label: self.watch.target().label,
            cgroup_id: 1,
            process: String::new(),
            usage: Default::default(),
        };
        Observation {
            environment: Environment {
                at: clock::now(),
                targets: vec![target],
                ..Environment::default()
            },
            kernel: self.kernel.as_ref().unwrap().read(),
            level: Level::Http,
            names: Arc::default(),
            notes: Vec::new(),
            incomplete_reasons: Default::default(),
        }
    }

    /// Closes a window that nobody gets: an agent is killed before it is durable.
    fn lose_window(&self) {
        let key = ReportKey {
            epoch: 1,
            sequence: self.sequence + 1,
        };
        drop(self.windows.close(key, self.observe(), &[]));
    }

    fn window(&mut self) -> Option<monitor_proto::json::Clients> {
        self.sequence += 1;
        let key = ReportKey {
            epoch: 1,
            sequence: self.sequence,
        };
        let closed = self.windows.close(key, self.observe(), &[]);
        self.baseline = Some(closed.baseline.clone());
        let listeners = ClientFigures::of_listeners(&closed.report);
        let clients = Report::from(&closed.report).clients;
        self.windows.commit(closed);
        self.all.add(&listeners);
        let told = clients.as_ref()?;
        for client in &told.top {
            let sum = self.clients.entry(client.address.clone()).or_default();
            sum.add(&client.figures);
        }
        self.other.add(&told.other);
        clients
    }

    /// Closes windows until it is so, or for long.
    #[track_caller]
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = StdInstant::now() + DEADLINE;
        loop {
            self.window();
            // All that was told is what the listeners had.
            let mut sum = self.other;
            self.clients.values().for_each(|client| sum.add(client));
            assert_eq!(sum, self.all);
            if is_so(self) {
                return;
            }
            assert!(StdInstant::now() < deadline, "{what}: {:#?}", self.clients);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn of(&self, client: &str) -> ClientFigures {
        self.clients.get(client).copied().unwrap_or_default()
    }
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";

/// A connection from an address of a client's own.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn from(listener: &TcpListener, client: IpAddr) -> Self {
        let to = listener.local_addr().unwrap();
        let family = if to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let from = socket(family, SocketType::STREAM, None).unwrap();
        bind(&from, &SocketAddr::new(client, 0)).unwrap();
        connect(&from, &to).unwrap();
        Self {
            client: TcpStream::from(from),
            server: listener.accept().unwrap().0,
        }
    }

    fn ask(&mut self) {
        self.client.write_all(REQUEST).unwrap();
        self.server.read_exact(&mut [0; REQUEST.len()]).unwrap();
    }

    fn exchange(&mut self) {
        self.ask();
        let response = [RESPONSE, &[b'x'; 100]].concat();
        self.server.write_all(&response).unwrap();
        let mut got = vec![0; response.len()];
        self.client.read_exact(&mut got).unwrap();
    }

    /// The client is first.
    fn close(self) {
        drop(self.client);
        assert_eq!((&self.server).read(&mut [0]).unwrap(), 0);
    }

    /// The client resets it.
    fn reset(self) {
        set_socket_linger(&self.client, Some(Duration::ZERO)).unwrap();
        drop(self.client);
        (&self.server).read(&mut [0]).unwrap_err();
    }
}

const IN: i64 = REQUEST.len() as i64;
const OUT: i64 = RESPONSE.len() as i64 + 100;

/// So many connections with so many exchanges in all.
fn figures(connections: i64, exchanges: i64) -> ClientFigures {
    ClientFigures {
        connections_opened: connections,
        bytes_received: exchanges * IN,
        bytes_sent: exchanges * OUT,
        requests: Some(exchanges),
        exchanges: Some(0),
        requests_without_response: Some(0),
        ..ClientFigures::default()
    }
}

fn client(net: u8, n: u8) -> IpAddr {
    Ipv4Addr::new(127, 77, net, n).into()
}

fn each_client(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("clients");
    let mut agent = Agent::start(&own, watch);
    let listener = TcpListener::bind(fresh())?;
    let listener_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?;
    let mut expected = BTreeMap::new();
    // Connections that end at once, and that stay while windows pass.
    let mut open = Vec::new();
    for n in 1..=20u8 {
        for connection in 0..n {
            let mut talk = Talk::from(&listener, client(1, n));
            (0..3).for_each(|_| talk.exchange());
            if connection % 3 == 0 {
                open.push(talk);
            } else {
                talk.close();
            }
        }
        if n % 7 == 0 {
            agent.window();
        }
        let n = i64::from(n);
        expected.insert(client(1, n as u8).to_string(), figures(n, 3 * n));
    }
    let is_told = |agent: &Agent<'_>, expected: &BTreeMap<String, ClientFigures>| {
        expected
            .iter()
            .all(|(client, figures)| agent.of(client) == *figures)
    };
    // What is open is told before it ends.
    agent.until("while they are open", |agent| is_told(agent, &expected));
    for (n, mut talk) in (0..).zip(open) {
        let address = talk.client.local_addr()?.ip().to_string();
        let figures = expected.get_mut(&address).unwrap();
        talk.exchange();
        figures.bytes_received += IN;
        figures.bytes_sent += OUT;
        *figures.requests.as_mut().unwrap() += 1;
        match n % 3 {
            0 => talk.close(),
            1 => {
                talk.reset();
                figures.closed_reset_received += 1;
            }
            _ => {
                talk.ask();
                talk.close();
                figures.bytes_received += IN;
                *figures.requests.as_mut().unwrap() += 1;
                *figures.requests_without_response.as_mut().unwrap() += 1;
            }
        }
        if n % 10 == 0 {
            agent.window();
        }
    }
    let mut talk = Talk::from(&listener_v6, Ipv6Addr::LOCALHOST.into());
    talk.exchange();
    talk.close();
    agent.until("when they have ended", |agent| is_told(agent, &expected));
    // Other tests are of this network, too.
    agent.until("by IPv6", |agent| agent.of("::/64").bytes_received >= IN);
    // And nothing of it comes again.
    for _ in 0..4 {
        agent.window();
    }
    assert!(is_told(&agent, &expected), "{:#?}", agent.clients);
    Ok(())
}

fn killed_agent(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("clients-killed");
    let mut agent = Agent::start(&own, watch);
    let listener = TcpListener::bind(fresh())?;
    let mut long = Talk::from(&listener, client(2, 1));
    long.exchange();
    agent.window();
    let (mut long_exchanges, mut short) = (1, 0);
    for round in 0..6 {
        let mut some = |long: &mut Talk| {
            long.exchange();
            long_exchanges += 1;
            for _ in 0..3 {
                let mut talk = Talk::from(&listener, client(2, 2));
                talk.exchange();
                talk.close();
                short += 1;
            }
        };
        some(&mut long);
        if round % 2 == 0 {
            agent.window();
        } else {
            // Its report was never durable.
            agent.lose_window();
        }
        some(&mut long);
        agent.restart(|| some(&mut long));
    }
    let expected = [
        ("127.77.2.1", figures(1, long_exchanges)),
        ("127.77.2.2", figures(short, short)),
    ];
    let is_told = |agent: &Agent<'_>| {
        expected
            .iter()
            .all(|(of, figures)| agent.of(of) == *figures)
    };
    agent.until("after the last agent began", is_told);
    long.close();
    for _ in 0..4 {
        agent.window();
    }
    assert!(is_told(&agent), "{:#?}", agent.clients);
    Ok(())
}

fn full_map(watch: &Watch) -> Result<(), Failed> {
    const ROOM: u32 = 16;
    let mut own = Own::new("clients-full");
    own.options.clients_max = ROOM;
    let mut agent = Agent::start(&own, watch);
    let listener = TcpListener::bind(fresh())?;
    let short = |net: u8, n: u8| {
        let mut talk = Talk::from(&listener, client(net, n));
        talk.exchange();
        talk.close();
    };
    for n in 0..200 {
        short(3, n);
    }
    let told = |agent: &Agent<'_>| {
        let of_net = agent
            .clients
            .iter()
            .filter(|(c, _)| c.starts_with("127.77.3."));
        of_net.map(|(_, f)| *f).collect::<Vec<_>>()
    };
    let port = listener.local_addr()?;
    let kernel_has_all = |agent: &Agent<'_>| {
        let kernel = agent.kernel.as_ref().unwrap();
        let role = monitor_common::endpoint::Role::Downstream;
        own.counters(kernel, role, port).closed() >= 200
    };
    agent.until("200 clients", kernel_has_all);
    agent.window();
    let found = told(&agent);
    assert!(
        !found.is_empty() && found.len() <= ROOM as usize,
        "{found:?}"
    );
    // Who is told has exactly its own; the others' is among what the listeners had besides.
    assert!(found.iter().all(|f| *f == figures(1, 1)), "{found:?}");
    let missing = 200 - found.len() as i64;
    assert!(
        agent.other.connections_opened >= missing,
        "{:?}",
        agent.other
    );
    // What was reported gives its room to others.
    for n in 1..=9 {
        agent.window();
        short(4, n);
        let client = client(4, n).to_string();
        agent.until("room again", |agent| agent.of(&client) == figures(1, 1));
    }
    Ok(())
}

fn prefixes(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("clients-prefix");
    own.options.client_prefixes = Some(ClientPrefixes::try_new(24, 48)?);
    let mut agent = Agent::start(&own, watch);
    // Of both protocols: what comes by IPv4 is told as such.
    let listener = TcpListener::bind("[::]:0")?;
    let to: SocketAddr = ([127, 0, 0, 1], listener.local_addr()?.port()).into();
    let ask = |n: u8| {
        let from = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&from, &SocketAddr::new(client(5, n), 0)).unwrap();
        connect(&from, &to).unwrap();
        let server = listener.accept().unwrap().0;
        let mut talk = Talk {
            client: TcpStream::from(from),
            server,
        };
        talk.exchange();
        talk
    };
    let talks: Vec<Talk> = (1..=5).map(ask).collect();
    agent.until("five of a network", |agent| {
        agent.of("127.77.5.0/24") == figures(5, 5)
    });
    for talk in talks {
        talk.close();
    }
    for _ in 0..4 {
        agent.window();
    }
    assert_eq!(agent.of("127.77.5.0/24"), figures(5, 5));
    assert!(
        agent
            .clients
            .keys()
            .all(|c| c.ends_with("/24") || c.ends_with("/48"))
    );
    // An agent that is told to does not look at clients.
    drop(agent);
    own.options.client_prefixes = None;
    let mut agent = Agent::start(&own, watch);
    ask(6).close();
    assert_eq!(agent.window(), None);
    Ok(())
}
