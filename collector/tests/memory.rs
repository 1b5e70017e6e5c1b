//! What the collector holds for strangers, against the budget that it states.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use common::{Agent, Collector, bulky, report};
use monitor_proto::v1::{self, ExportOutcome, query_service_client::QueryServiceClient};
use prost::{Message, bytes::Bytes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, client::Grpc, transport::Channel};

const LIMIT_MIB: u64 = 64;
/// Beside the budget: the program, the store's caches, and what the allocator keeps of
/// what was given back, in a build without optimisation.
const OTHER_MIB: u64 = 136;
const PIECE: usize = 64 << 10;

fn started(dir: &std::path::Path) -> Collector {
    let limit = format!("{LIMIT_MIB}MiB");
    Collector::start_with(dir, &["--memory-limit", &limit])
}

/// The most memory that it ever had.
fn rss_max_mib(collector: &Collector) -> u64 {
    let path = format!("/proc/{}/status", collector.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let figure = line.unwrap().trim().strip_suffix(" kB").unwrap();
    figure.parse::<u64>().unwrap() >> 10
}

#[track_caller]
fn stays_within_its_limit(collector: &Collector) {
    let rss = rss_max_mib(collector);
    eprintln!("{rss} MiB at most, with a limit of {LIMIT_MIB} MiB");
    assert!(rss <= LIMIT_MIB + OTHER_MIB, "{rss} MiB");
}

fn metric(collector: &Collector, name: &str) -> u64 {
    let metrics = collector.get("/metrics").body;
    let value = metrics
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// A connection from this address of the loopback network.
fn connect_from(address: &str, to: &str) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    connect(&socket, &to.parse::<SocketAddr>().unwrap()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    stream
}

/// Asks from an address; the answer's status, and what is to be read of it.
fn ask(from: &str, collector: &Collector, path: &str) -> (u16, TcpStream) {
    let mut stream = connect_from(from, &collector.http);
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let status = std::str::from_utf8(&head[9..]).unwrap().parse().unwrap();
    (status, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_are_refused_and_others_are_served() {
    const REPORTS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=REPORTS {
        let outcome = agent.export(bulky("web", sequence)).await;
        assert_eq!(outcome, ExportOutcome::Stored);
    }
    // Each asks for all of the 12 MB, and reads nothing of it.
    let page = "/api/v1/reports?limit=1000";
    let mut asked: Vec<_> = (0..60)
        .map(|_| ask("127.0.0.2", &collector, page))
        .collect();
    let refused = asked.iter().filter(|(status, _)| *status == 503).count();
    assert!(asked.iter().all(|(status, _)| [200, 503].contains(status)));
    assert!((1..60).contains(&refused), "{refused} refused");
    let given = asked.iter().position(|(status, _)| *status == 200).unwrap();
    let refusals = "speedmimi_collector_memory_refused_total{use=\"answers\"}";
    assert!(metric(&collector, refusals) >= refused as u64);
    let limit = metric(&collector, "speedmimi_collector_memory_limit_bytes");
    assert_eq!(limit, LIMIT_MIB << 20);
    let used = "speedmimi_collector_memory_used_bytes{use=\"answers\"}";
    assert!((1..=limit).contains(&metric(&collector, used)));

    let refusal = asked.iter_mut().find(|(status, _)| *status == 503);
    let (_, refusal) = refusal.unwrap();
    let mut words = String::new();
    refusal.read_to_string(&mut words).unwrap();
    let words = words.to_lowercase();
    assert!(
        words.contains("retry-after: 5") && words.contains("--memory-limit"),
        "{words}"
    );

    // What was begun is whole, however late it is read.
    let (_, mut begun) = asked.swap_remove(given);
    let mut document = String::new();
    begun.read_to_string(&mut document).unwrap();
    assert!(document.ends_with("0\r\n\r\n"), "the last chunk");

    // Another reader, and the agent, notice nothing of it.
    let all = collector.all_reports("limit=100");
    assert_eq!(all.len() as u64, REPORTS);
    let outcome = agent.export(report("web", REPORTS + 1)).await;
    assert_eq!(outcome, ExportOutcome::Stored);
    stays_within_its_limit(&collector);
}

/// The same by gRPC: there is no room for what is asked at such a peer, so that its
/// answers wait.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_take_nothing_are_told_and_others_are_served() {
    const REPORTS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=REPORTS {
        let outcome = agent.export(bulky("web", sequence)).await;
        assert_eq!(outcome, ExportOutcome::Stored);
    }
    let (told, mut refusals) = mpsc::channel(100);
    for _ in 0..20 {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", collector.grpc));
        let endpoint = endpoint.unwrap().initial_stream_window_size(0);
        let mut client = QueryServiceClient::new(endpoint.connect().await.unwrap());
        let told = told.clone();
        tokio::spawn(async move {
            let request = v1::GetReportsRequest {
                limit: 1000,
                ..Default::default()
            };
            if let Err(status) = client.get_reports(request).await {
                drop(told.send(status).await);
            }
        });
    }
    let refusal = tokio::time::timeout(common::DEADLINE, refusals.recv());
    let refusal = refusal.await.unwrap().unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("--memory-limit"), "{refusal}");
    let (status, _) = ask("127.0.0.2", &collector, "/api/v1/reports?limit=50");
    assert_eq!(status, 200);
    let outcome = agent.export(report("web", REPORTS + 1)).await;
    assert_eq!(outcome, ExportOutcome::Stored);
    stays_within_its_limit(&collector);
}

/// A `v1::ExportRequest` whose report is given as bytes.
#[derive(Clone, PartialEq, Message)]
struct RawRequest {
    #[prost(bytes = "bytes", tag = "1")]
    report: Bytes,
}

struct RawAgent {
    requests: mpsc::Sender<RawRequest>,
    answers: Streaming<v1::ExportResponse>,
}

impl RawAgent {
    async fn connect(channel: Channel, token: &str) -> Self {
        let (requests, queue) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(queue));
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::default();
        let path = "/speedmimi.v1.ReportService/Export".parse().unwrap();
        let answers = grpc.streaming(request, path, codec).await.unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    async fn send(&self, report: Vec<u8>) {
        let report = report.into();
        self.requests.send(RawRequest { report }).await.unwrap();
    }

    async fn answer(&mut self) -> Result<v1::ExportResponse, Status> {
        let answer = tokio::time::timeout(common::DEADLINE, self.answers.message());
        answer.await.expect("an answer in time").map(Option::unwrap)
    }
}

/// A sound report with so many empty endpoints behind.
fn with_empty_endpoints(sequence: u64, endpoints: usize) -> Vec<u8> {
    let mut bytes = report("web", sequence).encode_to_vec();
    bytes.extend([10 << 3 | 2, 0].repeat(endpoints));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_decodes_to_gigabytes_is_rejected_before_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agents = Vec::new();
    for _ in 0..4 {
        agents.push(RawAgent::connect(collector.channel().await, &collector.token).await);
    }
    // All that one host's token may have open, each with 4 MB that become 1.8 GB.
    for agent in &agents {
        agent.send(with_empty_endpoints(7, 2_000_000)).await;
    }
    for agent in &mut agents {
        match agent.answer().await {
            Ok(answer) => {
                assert_eq!(answer.outcome(), ExportOutcome::Rejected);
                assert_eq!((answer.epoch, answer.sequence), (1_763_860_000_123, 7));
                assert!(
                    answer.message.contains("MiB of memory"),
                    "{}",
                    answer.message
                );
            }
            // Four at once may be too much to be looked at.
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
    }
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 8)).await, ExportOutcome::Stored);
    stays_within_its_limit(&collector);
}

/// A report as large as one may be is taken, whatever its share is.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_report_finds_room() {
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut large = report("web", 1);
    let one = large.endpoints[0].clone();
    large.endpoints = (0..monitor_proto::REPORT_ENDPOINTS_MAX)
        .map(|n| v1::Endpoint {
            address: format!("10.0.{}.{}:80", n / 256, n % 256),
            target: String::new(),
            window: None,
            ..one.clone()
        })
        .collect();
    assert!(large.encoded_len() < monitor_proto::REPORT_BYTES_MAX);
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(large).await, ExportOutcome::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_end_have_their_share_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agent = collector.agent().await;
    // Of reports that are announced as 4 MB, almost all comes.
    let begun = Begun::new(&collector);
    let mut open: Vec<TcpStream> = (0..20).map(|_| begun.send("127.0.0.3", 4 << 20)).collect();
    let refused = "speedmimi_collector_refused_total{reason=\"memory\"}";
    common::eventually("some are refused", || metric(&collector, refused) >= 1);
    let used = "speedmimi_collector_memory_used_bytes{use=\"messages\"}";
    assert!(metric(&collector, used) <= LIMIT_MIB << 20);
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    stays_within_its_limit(&collector);
    for stream in open.drain(..) {
        // A connection that was refused is closed already.
        drop(stream.shutdown(Shutdown::Both));
    }
    common::eventually("all is given back", || metric(&collector, used) == 0);
}

/// The frames of a stream of reports of which the first does not end.
struct Begun<'a> {
    collector: &'a Collector,
}

impl<'a> Begun<'a> {
    fn new(collector: &'a Collector) -> Self {
        Self { collector }
    }

    /// A connection whose message is there but for its last bytes, as far as the
    /// collector takes it.
    fn send(&self, from: &str, bytes: usize) -> TcpStream {
        let mut stream = connect_from(from, &self.collector.grpc);
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        frames.extend(frame(1, 4, &self.head()));
        stream.write_all(&frames).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let mut message = vec![0; bytes];
        message[..5].copy_from_slice(&[0, 0, 0x40, 0, 0]);
        let mut writer = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            // HTTP/2's windows open as the collector reads on.
            let mut window = (PIECE - 1) as i64;
            let mut connection = window;
            let mut rest = &message[..];
            loop {
                let n = rest.len().min(16 << 10);
                if n > 0 && (n as i64) <= window.min(connection) {
                    if writer.write_all(&frame(0, 0, &rest[..n])).is_err() {
                        return;
                    }
                    window -= n as i64;
                    connection -= n as i64;
                    rest = &rest[n..];
                    continue;
                }
                let Some((kind, stream, body)) = read_frame(&mut reader) else {
                    return;
                };
                if kind == 4 && body.len() >= 6 {
                    for setting in body.chunks_exact(6).filter(|s| s[..2] == [0, 4]) {
                        let new = u32::from_be_bytes(setting[2..].try_into().unwrap());
                        window += i64::from(new) - (PIECE - 1) as i64;
                    }
                    drop(writer.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]));
                } else if kind == 8 {
                    let more = i64::from(u32::from_be_bytes(body[..4].try_into().unwrap()));
                    *(if stream == 0 {
                        &mut connection
                    } else {
                        &mut window
                    }) += more;
                }
            }
        });
        stream
    }

    /// The fields of a request, each as a literal that is not indexed (RFC 7541, 6.2.2).
    fn head(&self) -> Vec<u8> {
        let authorization = format!("Bearer {}", self.collector.token);
        let mut out = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/speedmimi.v1.ReportService/Export"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("authorization", &authorization),
        ] {
            out.push(0);
            for text in [name, value] {
                out.push(u8::try_from(text.len()).unwrap());
                out.extend(text.as_bytes());
            }
        }
        out
    }
}

/// A frame of stream 1 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    out.extend(body);
    out
}

fn read_frame(from: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head).ok()?;
    let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut body).ok()?;
    let stream = u32::from_be_bytes(head[5..].try_into().ok()?);
    Some((head[3], stream, body))
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_decide_nothing_about_a_heat_map() {
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agent = collector.agent().await;
    for (sequence, offset) in [(1, -100_000), (2, 100_000), (3, -46)] {
        let mut one = report("web", sequence);
        one.window_end_unix_ns = common::now_ns();
        one.window_start_unix_ns = one.window_end_unix_ns - 5_000_000_000;
        let http = one.endpoints[0].window.as_mut().unwrap().http.as_mut();
        http.unwrap().exchange_duration.as_mut().unwrap().offset = offset;
        let expected = if offset == -46 {
            ExportOutcome::Stored
        } else {
            ExportOutcome::Rejected
        };
        assert_eq!(agent.export(one).await, expected, "{offset}");
    }
    let heat = collector.json("/api/v1/heatmap?since=1h&step=10s");
    assert_eq!(heat["bounds"].as_array().unwrap().len(), 3);
    stays_within_its_limit(&collector);
}

/// Slow scrapers keep what they are sent, and no more than their share.
#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_are_not_read_are_bounded_and_agents_go_on() {
    const HOSTS: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let collector = started(dir.path());
    let mut agent: Agent = collector.agent().await;
    let wide = |host: u64, sequence| {
        let mut wide = report(&format!("h{host}"), sequence);
        let one = wide.endpoints[0].clone();
        wide.endpoints = (0..1000)
            .map(|n| v1::Endpoint {
                address: format!("10.0.{}.{}:80", n / 256, n % 256),
                ..one.clone()
            })
            .collect();
        wide
    };
    let mut statuses = Vec::new();
    let mut open = Vec::new();
    // What is held of one round fits several times, and of all of them it does not.
    for sequence in 1..=20 {
        for host in 0..HOSTS {
            let outcome = agent.export(wide(host, sequence)).await;
            assert_eq!(outcome, ExportOutcome::Stored);
        }
        let (status, stream) = ask("127.0.0.2", &collector, "/metrics");
        statuses.push(status);
        open.push(stream);
        if status == 503 {
            break;
        }
    }
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&503), "{statuses:?}");
    open.clear();
    common::eventually("there is room again", || {
        ask("127.0.0.1", &collector, "/metrics").0 == 200
    });
    stays_within_its_limit(&collector);
}
