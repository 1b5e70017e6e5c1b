//! Who balances, each before backends of its own.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anyhow::Result;
use tempfile::TempDir;
use testkit::{
    Cgroup,
    fixtures::{Agent, AgentPlan, Binaries, Haproxy, Nginx, Proxy, free_address},
    traffic::LimitedOrigin,
};

/// Backends of each balancer.
pub(super) const BACKENDS: usize = 4;

/// Requests that a backend works on at once; more wait there for their turn.
const WORKERS: usize = 2;

/// How long a backend that is well works on a request.
pub(super) const SERVICE: Duration = Duration::from_millis(20);

/// Who is measured, and how it chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balancer {
    /// Ours: in turn, by weight.
    Weight,
    /// Ours.
    LeastConnections,
    /// Ours, by what the agent measures.
    Adaptive,
    NginxLeastConn,
    NginxRandomTwo,
    HaproxyLeastconn,
    /// With weights from the agent.
    HaproxyLeastconnAgentCheck,
    /// With weights from the agent.
    HaproxyRandomAgentCheck,
}

pub(super) const BALANCERS: [Balancer; 8] = [
    Balancer::Weight,
    Balancer::LeastConnections,
    Balancer::Adaptive,
    Balancer::NginxLeastConn,
    Balancer::NginxRandomTwo,
    Balancer::HaproxyLeastconn,
    Balancer::HaproxyLeastconnAgentCheck,
    Balancer::HaproxyRandomAgentCheck,
];

impl Balancer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::LeastConnections => "least_connections",
            Self::Adaptive => "adaptive",
            Self::NginxLeastConn => "nginx least_conn",
            Self::NginxRandomTwo => "nginx random two",
            Self::HaproxyLeastconn => "haproxy leastconn",
            Self::HaproxyLeastconnAgentCheck => "haproxy leastconn, agent",
            Self::HaproxyRandomAgentCheck => "haproxy random, agent",
        }
    }

    /// Whether another proxy balances, without our agent.
    pub(super) fn is_peer(self) -> bool {
        matches!(
            self,
            Self::NginxLeastConn | Self::NginxRandomTwo | Self::HaproxyLeastconn
        )
    }
}

/// A balancer with its backends, and the agent that it may need.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) backends: Vec<LimitedOrigin>,
    server: Server,
    agent: Option<Agent>,
    _directory: TempDir,
    _cgroup: Cgroup,
}

#[derive(Debug)]
enum Server {
    Proxy(Proxy),
    Nginx(Nginx),
    Haproxy(Haproxy),
}

impl Stand {
    pub(super) fn start(balancer: Balancer, binaries: &Binaries) -> Result<Self> {
        let cgroup = Cgroup::create("bench")?;
        let directory = TempDir::with_prefix("speedmimi-balance-")?;
        let backends = (0..BACKENDS)
            .map(|_| LimitedOrigin::start(WORKERS, SERVICE))
            .collect::<std::io::Result<Vec<_>>>()?;
        let at: Vec<SocketAddr> = backends.iter().map(LimitedOrigin::address).collect();
        let socket = directory.path().join("backends.sock");
        let checks = free_address(at[0])?;
        let watch = || AgentPlan::watching(binaries, &cgroup);
        let agent = match balancer {
            Balancer::Adaptive => {
                let argument = "--backends-socket".into();
                Some(watch()?.with([argument, socket.clone().into_os_string()]))
            }
            Balancer::HaproxyLeastconnAgentCheck | Balancer::HaproxyRandomAgentCheck => {
                Some(watch()?.with(["--agent-check-listen".to_owned(), checks.to_string()]))
            }
            _ => None,
        };
        let agent = agent.map(AgentPlan::start).transpose()?;
        let ours = |algorithm: &str, more: &str| {
            let text = configuration(algorithm, &at, more);
            Proxy::start_with(binaries, &cgroup, &text).map(Server::Proxy)
        };
        let nginx = |method: &str| {
            let servers = servers(&at, |_, address| format!(" server {address};"));
            let text = format!("zone origin 256k; {method};{servers}");
            Nginx::start_with(&cgroup, at[0], &text).map(Server::Nginx)
        };
        let haproxy = |method: &str, is_checked: bool| {
            let servers = servers(&at, |index, address| {
                let check = if is_checked {
                    agent_check(address, checks)
                } else {
                    String::new()
                };
                format!("\x20 server b{index} {address} weight 100 check inter 1s{check}\n")
            });
            let text = format!("\x20 balance {method}\n{HAPROXY_BACKEND}{servers}");
            Haproxy::start_with(&cgroup, at[0], &text).map(Server::Haproxy)
        };
        let server = match balancer {
            Balancer::Weight => ours("weight", ""),
            Balancer::LeastConnections => ours("least_connections", ""),
            Balancer::Adaptive => {
                let agent = format!("agent: {{socket: {}}}\n", socket.display());
                ours("adaptive", &agent)
            }
            Balancer::NginxLeastConn => nginx("least_conn"),
            Balancer::NginxRandomTwo => nginx("random two least_conn"),
            Balancer::HaproxyLeastconn => haproxy("leastconn", false),
            Balancer::HaproxyLeastconnAgentCheck => haproxy("leastconn", true),
            Balancer::HaproxyRandomAgentCheck => haproxy("random", true),
        }?;
        Ok(Self {
            backends,
            server,
            agent,
            _directory: directory,
            _cgroup: cgroup,
        })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.server {
            Server::Proxy(one) => one.address(),
            Server::Nginx(one) => one.address(),
            Server::Haproxy(one) => one.address(),
        }
    }

    /// Ends what was started.
    pub(super) fn end(self) -> Result<()> {
        match self.server {
            Server::Proxy(one) => one.stop()?,
            Server::Nginx(one) => one.stop()?,
            Server::Haproxy(one) => one.stop()?,
        }
        match self.agent {
            Some(agent) => agent.stop()?.uninstall(),
            None => Ok(()),
        }
    }
}

/// Requests that a server did not answer go to another one, as with the others.
const HAPROXY_BACKEND: &str = "\x20 option httpchk GET /healthz
\x20 option redispatch 1
\x20 retry-on conn-failure empty-response
";

/// As docs/balancing.md has it.
fn agent_check(address: SocketAddr, checks: SocketAddr) -> String {
    let (host, port) = (checks.ip(), checks.port());
    format!(
        " agent-check agent-inter 1s agent-addr {host} agent-port {port} agent-send \"{address}\\n\""
    )
}

fn servers(at: &[SocketAddr], line: impl Fn(usize, SocketAddr) -> String) -> String {
    at.iter()
        .enumerate()
        .map(|(index, address)| line(index, *address))
        .collect()
}

fn configuration(algorithm: &str, at: &[SocketAddr], more: &str) -> String {
    let mut text = "server: {host: 127.0.0.1, port: 0}\nbackends:\n  u:\n".to_owned();
    for (index, address) in at.iter().enumerate() {
        let (host, port) = (address.ip(), address.port());
        writeln!(
            text,
            "    - {{id: b{index}, host: {host}, port: {port}, \
             health_check: {{path: /healthz, interval: 1s, timeout: 1s}}}}"
        )
        .expect("a String takes every write");
    }
    text + &format!("routing: {{r: {{path: /, upstream: u, load_balancer: {algorithm}}}}}\n{more}")
}
