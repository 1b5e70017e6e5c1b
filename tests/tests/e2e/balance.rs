//! Balancers follow what this host's kernel measured: ours by the agent's socket,
//! `HAProxy` by its agent checks.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Cgroup, eventually,
    fixtures::{Agent, AgentPlan, Binaries, Haproxy, Proxy},
    traffic::{Exchange, LimitedOrigin, Load},
};

use super::{
    Case,
    scene::{REPORTS, send},
};

pub(crate) const CASES: &[Case] = &[
    ("the_agents_socket_has_what_backends_answered", figures),
    ("requests_leave_a_backend_that_became_slow", adaptive),
];

pub(crate) const HAPROXY_CASES: &[Case] =
    &[("haproxy_weighs_a_slow_server_by_agent_checks", agent_checks)];

/// An origin that waits before each answer, of however many requests at once.
fn waiting(ms: u64) -> LimitedOrigin {
    LimitedOrigin::start(1_000, Duration::from_millis(ms)).unwrap()
}

/// Answers have no body.
fn load(at: SocketAddr, connections: usize, requests: u64) -> Load {
    let load = Load::on(at).connections(connections).requests(requests);
    load.mix(vec![Exchange::get(0)])
}

/// A proxy's cgroup, and an agent that serves balancers.
struct Balanced {
    directory: TempDir,
    cgroup: Cgroup,
    agent: Agent,
}

impl Balanced {
    fn start(more: &[String]) -> Self {
        let directory = TempDir::with_prefix("speedmimi-balance-").unwrap();
        let cgroup = Cgroup::create("e2e").unwrap();
        let socket = directory.path().join("backends.sock");
        let agent = AgentPlan::watching(&Binaries::of_this_build().unwrap(), &cgroup)
            .unwrap()
            .with(["--backends-socket".into(), socket.into_os_string()])
            .with(more)
            .start()
            .unwrap();
        Self {
            directory,
            cgroup,
            agent,
        }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("backends.sock")
    }

    fn end(self) {
        self.agent.stop().unwrap().uninstall().unwrap();
    }

    fn proxy(&self, algorithm: &str, backends: &[SocketAddr]) -> Proxy {
        let list: Vec<_> = backends
            .iter()
            .map(|at| {
                format!(
                    "{{id: b{}, host: {}, port: {}}}",
                    at.port(),
                    at.ip(),
                    at.port()
                )
            })
            .collect();
        let text = format!(
            "server: {{host: 127.0.0.1, port: 0}}\nbackends: {{u: [{}]}}\n\
             routing: {{r: {{path: /, upstream: u, load_balancer: {algorithm}}}}}\n\
             agent: {{socket: {}, decay: 1s}}\n",
            list.join(", "),
            self.socket().display()
        );
        Proxy::start_with(&Binaries::of_this_build().unwrap(), &self.cgroup, &text).unwrap()
    }
}

/// Waits for a sample in which every backend has what it answered, and gives it.
fn sample_with(socket: &std::path::Path, expected: &[(SocketAddr, u64)]) -> Value {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(REPORTS)).unwrap();
    let mut lines = BufReader::new(stream).lines();
    eventually("a sample with all exchanges", REPORTS, || {
        let sample: Value = serde_json::from_str(&lines.next()?.unwrap()).unwrap();
        let has = |(at, answers): &(SocketAddr, u64)| {
            let backend = backend(&sample, *at);
            backend.is_some_and(|backend| backend["exchanges"] == *answers)
        };
        expected.iter().all(has).then_some(sample)
    })
}

fn backend(sample: &Value, at: SocketAddr) -> Option<&Value> {
    let mut backends = sample["backends"].as_array().unwrap().iter();
    backends.find(|backend| backend["address"] == at.to_string())
}

fn figures() {
    let scene = Balanced::start(&[]);
    let (quick, slow) = (waiting(0), waiting(20));
    let proxy = scene.proxy("weight", &[quick.address(), slow.address()]);
    send(load(proxy.address(), 4, 200));
    let expected = [&quick, &slow].map(|origin| (origin.address(), origin.answers()));
    assert_eq!(expected[0].1 + expected[1].1, 200);
    let sample = sample_with(&scene.socket(), &expected);
    for (at, answers) in expected {
        let backend = backend(&sample, at).unwrap();
        assert_eq!(backend["attempts"], answers);
        assert_eq!(backend["failures"], 0);
    }
    // The slow one waited so long before each of its answers.
    let waited = backend(&sample, slow.address()).unwrap()["exchange_ns"]
        .as_u64()
        .unwrap();
    assert!(waited >= expected[1].1 * 20_000_000, "{waited}");
    let total = backend(&sample, quick.address()).unwrap()["exchange_ns"]
        .as_u64()
        .unwrap();
    assert!(total > 0 && total < waited, "{total} of {waited}");
    proxy.stop().unwrap();
    let socket = scene.socket();
    scene.end();
    assert!(!socket.exists(), "the socket goes with the agent");
}

fn adaptive() {
    let scene = Balanced::start(&[]);
    let origins = [waiting(1), waiting(1), waiting(1)];
    let addresses = origins.each_ref().map(LimitedOrigin::address);
    let proxy = scene.proxy("adaptive", &addresses);
    let send_all = || send(load(proxy.address(), 2, 300));
    send_all();
    let before = origins.each_ref().map(LimitedOrigin::answers);
    assert_eq!(before.iter().sum::<u64>(), 300);
    assert!(before.iter().all(|n| *n > 0), "{before:?}");
    // The first one is a hundred times as slow from now on. What it gets until that is
    // measured is bounded by what is in flight; then it loses against each other one.
    origins[0].set_service(Duration::from_millis(100));
    send_all();
    send_all();
    let after = origins.each_ref().map(LimitedOrigin::answers);
    let gained: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert_eq!(gained.iter().sum::<u64>(), 600);
    assert!(
        gained[0] * 10 < gained[1] && gained[0] * 10 < gained[2],
        "{gained:?}"
    );
    proxy.stop().unwrap();
    scene.end();
}

fn agent_checks() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let scene = Balanced::start(&["--agent-check-listen".to_owned(), port.to_string()]);
    let (quick, slow) = (waiting(1), waiting(40));
    let server = |name: &str, at: SocketAddr| {
        format!(
            "\x20 server {name} {at} weight 100 check agent-check agent-inter 100ms \
             agent-addr 127.0.0.1 agent-port {} agent-send \"{at}\\n\"\n",
            port.port()
        )
    };
    let servers = server("quick", quick.address()) + &server("slow", slow.address());
    let haproxy = Haproxy::start_with(&scene.cgroup, quick.address(), &servers).unwrap();
    let weights = eventually("the slow server's weight to follow", REPORTS, || {
        send(load(haproxy.address(), 4, 40));
        let weight = |name: &str| haproxy.server(name).unwrap()["weight"];
        let (quick, slow) = (weight("quick"), weight("slow"));
        (slow * 4 <= quick).then_some((quick, slow))
    });
    assert!(weights.1 >= 1, "never none: {weights:?}");
    haproxy.stop().unwrap();
    scene.end();
}
