//! What strangers and crowds can do to the ports, and what they cannot.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Agent, Collector, eventually, report};
use monitor_proto::v1::{self, ExportOutcome, query_service_client::QueryServiceClient};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::task::JoinSet;

/// What HTTP/2 begins with, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PREFACE_BYTES: usize = 24;

/// As in the collector.
const HTTP_CONNECTIONS_MAX: usize = 1024;
const STREAMS_OF_A_CONNECTION_MAX: usize = 256;
const STREAMS_OF_A_HOST_MAX: usize = 4;
/// With everything that 500 agents send at once, in a build without
/// optimisation.
const RSS_MAX_KB: u64 = 200 << 10;

/// Each connection is an open file of this process as well.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn metric(collector: &Collector, line: &str) -> u64 {
    let metrics = collector.get("/metrics").body;
    let line = metrics
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

/// Whether the collector has closed it; what it may have said before is read.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 1024]) {
        Ok(n) => n == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn slow_heads_take_all_places_for_a_while_and_no_more() {
    raise_open_files();
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..HTTP_CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = TcpStream::connect(&collector.http).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
                .unwrap();
            stream
        })
        .collect();
    // One more is closed at once, not left to wait.
    let mut more = TcpStream::connect(&collector.http).unwrap();
    eventually("the one too many is closed", || is_closed(&mut more));
    assert!(begun.elapsed() < common::DEADLINE);

    // A byte now and then does not keep a place.
    eventually("the slow ones are closed", || {
        slow.retain_mut(|stream| stream.write_all(b"x").is_ok() && !is_closed(stream));
        slow.is_empty()
    });
    let refused = "speedmimi_collector_refused_total{reason=\"connections\"}";
    eventually("there is room again", || {
        ureq::get(collector.url("/healthz")).call().is_ok()
    });
    assert!(metric(&collector, refused) >= 1);
}

#[tokio::test]
async fn silent_connections_to_the_grpc_port_are_closed_and_agents_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    // Nothing at all, and each beginning of what HTTP/2 begins with.
    let mut silent: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(&collector.grpc).unwrap();
            stream.write_all(&PREFACE[..n % PREFACE_BYTES]).unwrap();
            stream
        })
        .collect();
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    eventually("the silent ones are closed", || {
        silent.retain_mut(|stream| !is_closed(stream));
        silent.is_empty()
    });
    assert_eq!(agent.export(report("web", 2)).await, ExportOutcome::Stored);
    assert_eq!(
        metric(&collector, "speedmimi_collector_grpc_connections"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_so_many_streams_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let channel = collector.channel().await;
    let mut watchers = JoinSet::new();
    for _ in 0..STREAMS_OF_A_CONNECTION_MAX + 50 {
        let mut client = QueryServiceClient::new(channel.clone());
        watchers.spawn(async move {
            let request = v1::WatchRequest::default();
            let mut stream = client.watch(request).await.unwrap().into_inner();
            drop(stream.message().await);
        });
    }
    let active = || metric(&collector, "speedmimi_collector_watchers_active");
    let max = STREAMS_OF_A_CONNECTION_MAX as u64;
    eventually("the connection is full", || active() == max);
    // Before there is a report, which ends them and lets others in.
    assert_eq!(active(), max);
    // Another connection is not affected.
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_token_opens_a_few_streams_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let added = |host: &str| {
        let output = common::command()
            .args(["token", "add", "--host-id", host, "--data-dir"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        format!(
            "Bearer {}",
            String::from_utf8(output.stdout).unwrap().trim()
        )
    };
    let (web, other) = (added("id-web"), added("id-other"));
    let mut open = Vec::new();
    for _ in 0..STREAMS_OF_A_HOST_MAX {
        // A connection each: they are counted all together.
        open.push(Agent::connect(&collector, &web).await.unwrap());
    }
    let refused = Agent::connect(&collector, &web).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    let streams = "speedmimi_collector_refused_total{reason=\"streams\"}";
    assert_eq!(metric(&collector, streams), 1);
    // Neither another host's nor what any host may show is bound by it.
    open.push(Agent::connect(&collector, &other).await.unwrap());
    for _ in 0..2 * STREAMS_OF_A_HOST_MAX {
        open.push(collector.agent().await);
    }
    assert_eq!(
        open[0].export(report("web", 1)).await,
        ExportOutcome::Stored
    );
    // What was closed gives its place back.
    drop(open.swap_remove(0));
    let before = open.len() as u64;
    let active = || metric(&collector, "speedmimi_collector_streams_active");
    eventually("the stream has ended", || active() == before);
    let mut again = Agent::connect(&collector, &web).await.unwrap();
    assert_eq!(again.export(report("web", 2)).await, ExportOutcome::Stored);
}

/// The most memory that it ever had.
fn rss_max_kb(collector: &Collector) -> u64 {
    let path = format!("/proc/{}/status", collector.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let figure = line.unwrap().trim().strip_suffix(" kB").unwrap();
    figure.parse().unwrap()
}

/// One agent's spool: reports that were sent before come again.
async fn replay(mut agent: Agent, host: String, sequences: u64) -> (u64, u64) {
    for sequence in 1..=sequences {
        agent.send(report(&host, sequence)).await;
    }
    let (mut stored, mut duplicates) = (0, 0);
    for sequence in 1..=sequences {
        let answer = agent.answer().await.unwrap();
        assert_eq!(answer.sequence, sequence);
        match answer.outcome() {
            ExportOutcome::Stored => stored += 1,
            ExportOutcome::Duplicate => duplicates += 1,
            other => panic!("{other:?}"),
        }
    }
    (stored, duplicates)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_agents_come_back_at_once() {
    const AGENTS: u64 = 500;
    const BEFORE: u64 = 4;
    const AFTER: u64 = 8;
    raise_open_files();
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(dir.path());
    // The second time all come at once, each with what was not acknowledged
    // and what has come on top.
    for (sequences, expected) in [
        (BEFORE, (AGENTS * BEFORE, 0)),
        (AFTER, (AGENTS * (AFTER - BEFORE), AGENTS * BEFORE)),
    ] {
        let mut agents = JoinSet::new();
        for n in 0..AGENTS {
            let channel =
                tonic::transport::Channel::from_shared(format!("http://{}", collector.grpc))
                    .unwrap();
            let authorization = format!("Bearer {}", collector.token);
            agents.spawn(async move {
                let over = channel.connect().await.unwrap();
                let agent = Agent::over(over, &authorization).await.unwrap();
                replay(agent, format!("host-{n}"), sequences).await
            });
        }
        let counts = agents.join_all().await;
        let total = counts.iter().fold((0, 0), |(s, d), (stored, duplicates)| {
            (s + stored, d + duplicates)
        });
        assert_eq!(total, expected);
        let rss = rss_max_kb(&collector);
        assert!(rss <= RSS_MAX_KB, "{rss} KiB");
        eprintln!("{AGENTS} agents with {sequences} reports each: {rss} KiB at most");
        if sequences == BEFORE {
            collector.kill_9();
            collector = Collector::start(dir.path());
        }
    }
    let hosts = collector.json("/api/v1/hosts");
    let hosts = hosts["hosts"].as_array().unwrap();
    assert_eq!(hosts.len() as u64, AGENTS);
    assert!(hosts.iter().all(|host| host["reports"] == AFTER));
}

/// Without places for all that wait to be accepted, those beyond are dropped and
/// come again after one second, three, seven: agents would be away for minutes.
#[test]
fn more_connections_than_the_usual_backlog_wait_and_are_all_served() {
    // The usual one is 1,024.
    const CONNECTIONS: usize = 1100;
    raise_open_files();
    let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let backlog: usize = backlog.trim().parse().unwrap();
    assert!(
        backlog >= CONNECTIONS && files >= 2 * CONNECTIONS as u64,
        "this test needs net.core.somaxconn of {CONNECTIONS} or more, which is {backlog}, and \
         twice as many open files, of which {files} are allowed: raise them"
    );
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let pid = Pid::from_child(&collector.child);
    // While it stands still, the kernel alone takes connections.
    kill_process(pid, Signal::STOP).unwrap();
    let address = collector.grpc.parse().unwrap();
    let mut waiting: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&address, common::DEADLINE).unwrap();
            stream.write_all(PREFACE).unwrap();
            stream
        })
        .collect();
    kill_process(pid, Signal::CONT).unwrap();
    for stream in &mut waiting {
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[3], 4, "a SETTINGS frame");
    }
}
