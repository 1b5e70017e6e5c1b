//! Problems: a fault that is made for real shows within three windows, alone, and
//! goes when it is mended.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    sockopt::set_socket_linger,
};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Cgroup, Process, eventually,
    fixtures::{Agent, AgentPlan, Binaries, Collector, CollectorPlan, Nginx},
    http,
    traffic::{Exchange, Load, RunningLoad},
};

use super::{Case, scene::REPORTS};

pub(crate) const NGINX_CASES: &[Case] = &[
    (
        "a_backend_that_refuses_connections_is_a_problem_everywhere",
        refuses,
    ),
    ("a_backend_that_answers_5xx_is_a_problem", || {
        misbehaves(FAILING, "server_errors", "critical", "answers");
    }),
    ("a_backend_that_is_slow_is_a_problem", || {
        misbehaves(SLOW, "slow_backend", "warning", "as long as its siblings");
    }),
    ("a_backend_that_does_not_answer_is_a_problem", || {
        misbehaves(CLOSING, "unanswered_requests", "critical", "unanswered");
    }),
    ("a_backend_that_resets_connections_is_a_problem", || {
        misbehaves(RESETTING, "resets", "critical", "resets the connection of");
    }),
    ("a_proxy_without_keep_alive_is_a_problem", churns),
    ("an_accept_queue_that_overflows_is_a_problem", overflows),
    (
        "a_proxy_that_does_not_accept_is_a_problem_of_its_listener",
        does_not_accept,
    ),
];

pub(crate) const CASES: &[Case] = &[("an_agent_that_is_stopped_is_a_problem", stopped)];

// What a backend does with a request.
const WELL: u8 = 0;
const FAILING: u8 = 1;
const SLOW: u8 = 2;
const CLOSING: u8 = 3;
/// It ends its connections, and listens no more.
const GONE: u8 = 4;
/// It answers once a connection, and resets two of five connections within the answer.
const RESETTING: u8 = 5;

/// The connections of backends that reset some.
static RESETTABLE: AtomicU64 = AtomicU64::new(0);

/// A backend whose behaviour can be changed.
struct Backend {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
}

impl Backend {
    fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Lives as long as the tests do.
    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(WELL));
        let seen = Arc::clone(&mode);
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while seen.load(Relaxed) != GONE {
                let Ok((socket, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                socket.set_nonblocking(false).unwrap();
                let mode = Arc::clone(&seen);
                thread::spawn(move || drop(serve(&socket, &mode)));
            }
        });
        Self { address, mode }
    }
}

fn serve(socket: &TcpStream, mode: &AtomicU8) -> std::io::Result<()> {
    let mut out = socket;
    let mut nth = 0u64;
    for line in BufReader::new(socket).lines() {
        if !line?.is_empty() {
            continue;
        }
        nth += 1;
        let (status, field) = match mode.load(Relaxed) {
            CLOSING => return Ok(()),
            RESETTING if RESETTABLE.fetch_add(1, Relaxed) % 5 < 2 => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nok")?;
                set_socket_linger(socket, Some(Duration::ZERO))?;
                return Ok(());
            }
            FAILING if nth.is_multiple_of(2) => ("503 Service Unavailable", ""),
            SLOW => {
                thread::sleep(Duration::from_millis(300));
                ("200 OK", "")
            }
            GONE | RESETTING => ("200 OK", "Connection: close\r\n"),
            _ => ("200 OK", ""),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n{field}\r\nok");
        out.write_all(head.as_bytes())?;
        if !field.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// What the machine that runs the tests does is no part of them.
pub(crate) const OF_THE_MACHINE: [&str; 12] = [
    "accept_queue_filling",
    "accept_queue_overflow",
    "agent_incomplete",
    "agent_lossy",
    "connection_churn",
    "cpu_pressure",
    "cpu_saturated",
    "disk_full",
    "io_pressure",
    "listen_overflow",
    "memory_full",
    "memory_pressure",
];

/// nginx with one upstream, an agent that knows its names, and a collector.
struct Watched {
    agent: Agent,
    collector: Collector,
    load: Option<RunningLoad>,
    nginx: Option<Process>,
    directory: TempDir,
    listens: SocketAddr,
    cgroup: Cgroup,
}

impl Watched {
    /// With a load on the way to these backends; `on` are kinds that are told too.
    fn start(backends: &[SocketAddr], keepalive: &str, on: &[&str]) -> Self {
        Self::with_backlog(4096, backends, keepalive, on)
    }

    fn with_backlog(backlog: u16, backends: &[SocketAddr], keepalive: &str, on: &[&str]) -> Self {
        let binaries = Binaries::of_this_build().unwrap();
        let mut plan = CollectorPlan::new(&binaries).unwrap();
        for kind in OF_THE_MACHINE.iter().filter(|kind| !on.contains(kind)) {
            plan = plan.flag(&["--problem-threshold", &format!("{kind}=off")]);
        }
        let collector = plan.start().unwrap();
        let cgroup = Cgroup::create("problems").unwrap();
        let directory = TempDir::with_prefix("speedmimi-problems-").unwrap();
        let listens = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let file = directory.path().join("nginx.conf");
        let servers: String = backends
            .iter()
            .map(|at| format!("server {at} max_fails=0; "))
            .collect();
        let at = directory.path().display();
        let text = format!(
            "daemon off; user root; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             keepalive_requests 1000000;\n\
             upstream app {{ {servers}{keepalive} }}\n\
             server {{ listen {listens} backlog={backlog}; server_name shop.test; location / {{\n\
             proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new(Nginx::program().unwrap());
        command.arg("-c").arg(&file).arg("-p").arg(directory.path());
        let nginx = Process::start("nginx", command, Some(&cgroup)).unwrap();
        eventually("nginx listens", REPORTS, || {
            TcpStream::connect(listens).ok()
        });
        let agent = AgentPlan::watching(&binaries, &cgroup)
            .unwrap()
            .reporting_to(&collector)
            .with(["--names-from", file.to_str().unwrap()])
            .start()
            .unwrap();
        let load = Load::on(listens)
            .connections(32)
            .duration(Duration::from_secs(600))
            .pause(Duration::from_millis(10))
            .mix([Exchange::get(2)])
            .start();
        let watched = Self {
            agent,
            collector,
            load: Some(load),
            nginx: Some(nginx),
            directory,
            listens,
            cgroup,
        };
        watched.windows(4);
        watched
    }

    fn judged(&self) -> u64 {
        let (_, body) = http::get(self.collector.http(), "/metrics").unwrap();
        let text = String::from_utf8(body).unwrap();
        let line = "speedmimi_collector_judged_windows_total ";
        let value = text.lines().find_map(|l| l.strip_prefix(line));
        value.unwrap().parse().unwrap()
    }

    /// Waits until so many more windows are judged, after the one that is under way.
    fn windows(&self, n: u64) {
        let enough = self.judged() + 1 + n;
        let is_enough = || (self.judged() >= enough).then_some(());
        eventually("the windows are judged", REPORTS + REPORTS, is_enough);
    }

    fn problems(&self) -> Vec<Value> {
        problems(&self.collector)
    }

    #[track_caller]
    fn assert_kinds(&self, expected: &[&str]) {
        let problems = self.problems();
        let kinds: Vec<_> = problems
            .iter()
            .map(|p| p["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, expected, "{problems:#?}");
    }

    /// All are gone, once as many windows are good as that takes.
    #[track_caller]
    fn assert_mended(&self) {
        let is_mended = || self.problems().is_empty().then_some(());
        eventually("no problem is left", REPORTS + REPORTS, is_mended);
    }

    /// What `speedmimi problems` prints, and its exit code.
    fn command(&self) -> (String, Option<i32>) {
        let url = format!("http://{}", self.collector.http());
        run("speedmimi", &["problems", "--collector", &url])
    }

    /// The same of `speedmimi-agent problems`.
    fn agents_own(&self) -> (String, Option<i32>) {
        let off = OF_THE_MACHINE.map(|kind| format!("--threshold={kind}=off"));
        let pins = self.agent.pins().display().to_string();
        let control = self.agent.control_socket().display().to_string();
        let mut arguments = vec!["problems", "--pin-dir", &pins, "--control-socket", &control];
        arguments.extend(off.iter().map(String::as_str));
        run("speedmimi-agent", &arguments)
    }

    /// What the newest report says of nginx's accept queue.
    fn queue(&self) -> Value {
        let path = "/api/v1/reports?latest=true";
        let answer = http::get_json(self.collector.http(), path).unwrap();
        let endpoints = answer["reports"][0]["endpoints"].as_array().unwrap();
        let is_listener =
            |e: &&Value| e["role"] == "downstream" && e["address"] == self.listens.to_string();
        endpoints.iter().find(is_listener).unwrap()["accept_queue"].clone()
    }

    fn end(mut self) {
        self.load.take().unwrap().stop().unwrap();
        self.nginx.take().unwrap().kill().unwrap();
        let left = self.agent.stop().unwrap();
        left.uninstall().unwrap();
        self.collector.stop().unwrap();
        drop(self.directory);
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let program = Binaries::of_this_build().unwrap().find(program).unwrap();
    let output = Command::new(program).args(arguments).output().unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    (
        String::from_utf8(output.stdout).unwrap(),
        output.status.code(),
    )
}

pub(crate) fn problems(collector: &Collector) -> Vec<Value> {
    let answer = http::get_json(collector.http(), "/api/v1/problems").unwrap();
    answer["problems"].as_array().unwrap().clone()
}

const KEEPALIVE: &str = "keepalive 64; keepalive_requests 1000000;";

fn refuses() {
    let backends = [Backend::start(), Backend::start()];
    let addresses = [backends[0].address, backends[1].address];
    let watched = Watched::start(&addresses, KEEPALIVE, &[]);
    watched.assert_kinds(&[]);
    let (text, code) = watched.command();
    assert_eq!(
        (text.as_str(), code),
        ("nothing is wrong on 1 host\n", Some(0))
    );

    backends[1].mode.store(GONE, Relaxed);
    watched.windows(3);
    watched.assert_kinds(&["connect_failures"]);
    let problem = &watched.problems()[0];
    let summary = format!("backend app/{} refuses connections", addresses[1]);
    assert_eq!(problem["summary"], summary);
    assert_eq!(problem["severity"], "critical");
    for (text, code) in [watched.command(), watched.agents_own()] {
        assert!(
            text.starts_with(&format!("critical  {summary}\n")),
            "{text}"
        );
        assert_eq!(code, Some(1));
    }

    let _mended = Backend::on(TcpListener::bind(addresses[1]).unwrap());
    watched.assert_mended();
    assert_eq!(watched.agents_own().1, Some(0));
    watched.end();
}

fn misbehaves(how: u8, kind: &str, severity: &str, words: &str) {
    let backends = [Backend::start(), Backend::start()];
    let addresses = [backends[0].address, backends[1].address];
    let watched = Watched::start(&addresses, KEEPALIVE, &[]);
    watched.assert_kinds(&[]);
    backends[1].mode.store(how, Relaxed);
    watched.windows(3);
    watched.assert_kinds(&[kind]);
    let problem = &watched.problems()[0];
    assert_eq!(problem["subject"]["endpoint"], addresses[1].to_string());
    assert_eq!(problem["subject"]["upstream"], "app");
    assert_eq!(problem["severity"], severity, "{problem}");
    assert!(
        problem["summary"].as_str().unwrap().contains(words),
        "{problem}"
    );
    backends[1].mode.store(WELL, Relaxed);
    watched.assert_mended();
    watched.end();
}

fn churns() {
    let backend = Backend::start();
    let watched = Watched::start(&[backend.address], "", &["connection_churn"]);
    watched.assert_kinds(&["connection_churn"]);
    watched.end();
    let watched = Watched::start(&[backend.address], KEEPALIVE, &["connection_churn"]);
    watched.assert_kinds(&[]);
    watched.end();
}

fn stopped() {
    let binaries = Binaries::of_this_build().unwrap();
    let mut plan = CollectorPlan::new(&binaries).unwrap();
    for kind in OF_THE_MACHINE {
        plan = plan.flag(&["--problem-threshold", &format!("{kind}=off")]);
    }
    let collector = plan.start().unwrap();
    let cgroup = Cgroup::create("problems").unwrap();
    let agent = AgentPlan::watching(&binaries, &cgroup).unwrap();
    let agent = agent.reporting_to(&collector).start().unwrap();
    let reports = || http::get_json(collector.http(), "/api/v1/hosts").unwrap();
    let has_reported = || (!reports()["hosts"].as_array()?.is_empty()).then_some(());
    eventually("it reports", REPORTS, has_reported);
    assert_eq!(problems(&collector), <[Value; 0]>::default());
    let plan = agent.stop().unwrap();
    let silent = || {
        let all = problems(&collector);
        let [one] = &all[..] else { return None };
        assert_eq!(one["kind"], "agent_silent");
        (one["severity"] == "critical").then(|| one.clone())
    };
    let problem = eventually("it is silent", 4 * REPORTS, silent);
    assert!(
        problem["summary"]
            .as_str()
            .unwrap()
            .ends_with("its agent is silent"),
        "{problem}"
    );
    let agent = plan.start().unwrap();
    let is_mended = || problems(&collector).is_empty().then_some(());
    eventually("it reports again", REPORTS, is_mended);
    agent.stop().unwrap().uninstall().unwrap();
    collector.stop().unwrap();
}

fn overflows() {
    let backend = Backend::start();
    let watched = Watched::start(&[backend.address], KEEPALIVE, &["listen_overflow"]);
    // Of a queue of one place, that nobody takes from.
    let deaf = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )
    .unwrap();
    bind(&deaf, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&deaf, 0).unwrap();
    let at: SocketAddr = getsockname(&deaf).unwrap().try_into().unwrap();
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let flags = SocketFlags::NONBLOCK;
            let client = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
            // In progress, for ever.
            let _under_way = connect(&client, &at);
            client
        })
        .collect();
    watched.windows(3);
    watched.assert_kinds(&["listen_overflow"]);
    assert_eq!(watched.problems()[0]["severity"], "critical");
    drop((clients, deaf));
    watched.assert_mended();
    watched.end();
}

/// The queue of a listener, its limit and its drops.
fn told_by_ss(listens: SocketAddr) -> [u64; 3] {
    let mut command = Command::new("ss");
    command.args(["-tlnHmO", "src", "=", &listens.to_string()]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let drops = text.trim_end().rsplit_once(",d").unwrap().1;
    [words[1], words[2], drops.trim_end_matches(')')].map(|number| number.parse().unwrap())
}

/// A real nginx whose processes are stopped: what the kernel completes waits for it, and
/// finds no room.
fn does_not_accept() {
    // Room for the load's connections, all of which come at once.
    const BACKLOG: u16 = 64;
    const DROPPED: u16 = 40;
    let backend = Backend::start();
    let on = ["accept_queue_filling", "accept_queue_overflow"];
    let watched = Watched::with_backlog(BACKLOG, &[backend.address], KEEPALIVE, &on);
    watched.assert_kinds(&[]);
    let processes = || {
        let all = fs::read_to_string(watched.cgroup.path().join("cgroup.procs")).unwrap();
        let pids = all.lines().map(|pid| pid.parse().unwrap());
        pids.map(|pid| rustix::process::Pid::from_raw(pid).unwrap())
            .collect::<Vec<_>>()
    };
    let signal = |signal| {
        for pid in processes() {
            rustix::process::kill_process(pid, signal).unwrap();
        }
    };
    signal(rustix::process::Signal::STOP);
    let clients: Vec<_> = (0..=BACKLOG + DROPPED)
        .map(|_| {
            let flags = SocketFlags::NONBLOCK;
            let client = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
            let _under_way = connect(&client, &watched.listens);
            client
        })
        .collect();
    watched.windows(3);
    watched.assert_kinds(&["accept_queue_overflow"]);
    let problem = &watched.problems()[0];
    assert_eq!(problem["subject"]["endpoint"], watched.listens.to_string());
    assert_eq!(problem["subject"]["type"], "listener");
    assert_eq!(problem["severity"], "critical");
    let (text, code) = watched.command();
    let summary = problem["summary"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("critical  {summary}\n")),
        "{text}"
    );
    assert_eq!(code, Some(1));
    // No SYN is sent again from now on: a report has what the kernel has.
    drop(clients);
    let (queue, figures) = eventually("what ss tells is reported", REPORTS, || {
        let queue = watched.queue();
        let figures = ["connections", "limit", "drops_total"];
        let figures = figures.map(|name| queue[name].as_u64().unwrap());
        (figures == told_by_ss(watched.listens)).then_some((queue, figures))
    });
    assert_eq!(figures[..2], [u64::from(BACKLOG) + 1, u64::from(BACKLOG)]);
    assert!(figures[2] >= u64::from(DROPPED), "{queue}");
    assert_eq!(queue["connections_max"], figures[0]);
    assert_eq!(queue["listener"], watched.listens.to_string());

    signal(rustix::process::Signal::CONT);
    watched.assert_mended();
    watched.end();
}
