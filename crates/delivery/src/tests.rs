//! Against a real server in this process, whose every answer a test decides.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use monitor_proto::{
    AUTHORIZATION,
    v1::{
        self, ExportOutcome,
        report_service_server::{ReportService, ReportServiceServer},
    },
};
use prost::Message;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use super::*;
use monitor_proto::ReportKey;

/// What the server does with the next report.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Outcome(ExportOutcome),
    Unknown,
    WrongKey,
    Twice,
    Nothing,
    Close,
    Fail,
    Invalid,
}

/// A collector of the test's making.  Where no answer is prescribed it stores.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    stored: Arc<Mutex<Vec<u64>>>,
    seen: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    token: Option<&'static str>,
    tls: Option<ServerTlsConfig>,
    // Answers the stream itself only after its first report.
    late: bool,
    // What it says of what is no report, in place of what gRPC says.
    unreadable: Option<Code>,
}

/// A server with a runtime of its own: with it, every connection ends at once.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Collector {
    fn answering(answers: &[Answer]) -> Self {
        let collector = Self::default();
        lock(&collector.answers).extend(answers);
        collector
    }

    async fn start(&self, address: SocketAddr) -> Running {
        let listener = TcpListener::bind(address)
            .await
            .unwrap()
            .into_std()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::builder();
        if let Some(tls) = self.tls.clone() {
            server = server.tls_config(tls).unwrap();
        }
        let server = server.add_service(ReportServiceServer::new(self.clone()));
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            tokio::select! {
                served = server.serve_with_incoming(incoming) => served.unwrap(),
                _ = stopped => {}
            }
        };
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
        };
        let thread = std::thread::spawn(move || runtime().unwrap().block_on(serve));
        Running {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn stored(&self) -> Vec<u64> {
        lock(&self.stored).clone()
    }

    /// Without what was sent again: a real collector calls it a duplicate.
    fn stored_once(&self) -> Vec<u64> {
        let mut stored = self.stored();
        stored.sort_unstable();
        stored.dedup();
        stored
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ReportService for Collector {
    type ExportStream = Responses;

    async fn export(
        &self,
        request: Request<Streaming<v1::ExportRequest>>,
    ) -> Result<Response<Responses>, Status> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let given = request.metadata().get(AUTHORIZATION).cloned();
        if self
            .token
            .is_some_and(|token| given.is_none_or(|g| g != token))
        {
            return Err(Status::unauthenticated("a token is needed"));
        }
        let mut reports = request.into_inner();
        let first = if self.late {
            reports.next().await
        } else {
            None
        };
        let (sender, responses) = mpsc::channel(1);
        let collector = self.clone();
        tokio::spawn(async move {
            let mut next = first;
            loop {
                let report = match next.take() {
                    Some(report) => Some(report),
                    None => reports.next().await,
                };
                let request = match report {
                    Some(Ok(request)) => request,
                    Some(Err(error)) => {
                        let code = collector.unreadable.unwrap_or(error.code());
                        let status = Status::new(code, "invalid report");
                        drop(sender.send(Err(status)).await);
                        return;
                    }
                    None => return,
                };
                for response in collector.respond(&request.report.unwrap()) {
                    if sender.send(response).await.is_err() {
                        return;
                    }
                }
                if lock(&collector.answers)
                    .front()
                    .is_some_and(|a| matches!(a, Answer::Close))
                {
                    lock(&collector.answers).pop_front();
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

impl Collector {
    fn respond(&self, report: &v1::Report) -> Vec<Result<v1::ExportResponse, Status>> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let answer = lock(&self.answers).pop_front();
        let answer = answer.unwrap_or(Answer::Outcome(ExportOutcome::Stored));
        let response = |outcome: i32| v1::ExportResponse {
            epoch: report.agent.as_ref().unwrap().epoch,
            sequence: report.sequence,
            outcome,
            message: "because\n".to_owned(),
        };
        let stored = response(ExportOutcome::Stored.into());
        match answer {
            Answer::Outcome(outcome) => {
                if outcome == ExportOutcome::Stored {
                    lock(&self.stored).push(report.sequence);
                }
                vec![Ok(response(outcome.into()))]
            }
            Answer::Unknown => vec![Ok(response(99))],
            Answer::WrongKey => vec![Ok(v1::ExportResponse {
                sequence: report.sequence + 7,
                ..stored
            })],
            Answer::Twice => vec![Ok(stored.clone()), Ok(stored)],
            Answer::Nothing | Answer::Close => vec![],
            Answer::Fail => vec![Err(Status::resource_exhausted("the disk is full"))],
            Answer::Invalid => vec![Err(Status::invalid_argument("invalid report"))],
        }
    }
}

/// A spool with a delivery to somewhere.
struct Agent {
    _dir: TempDir,
    spool: SharedSpool,
    wake: Arc<Notify>,
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    destination: watch::Sender<Destination>,
    task: JoinHandle<()>,
}

const SPOOL_BYTES: u64 = 16 << 20;

impl Agent {
    fn start(address: SocketAddr, token: Option<&str>, reports: u64) -> Self {
        Self::with_spool(address, token, reports, SPOOL_BYTES)
    }

    fn with_spool(address: SocketAddr, token: Option<&str>, reports: u64, bytes: u64) -> Self {
        Self::over(address, None, token, reports, bytes)
    }

    fn over(
        address: SocketAddr,
        tls: Option<Tls>,
        token: Option<&str>,
        reports: u64,
        bytes: u64,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(dir.path(), bytes, 1_000).unwrap();
        let spool = Arc::new(Mutex::new(spool));
        for _ in 0..reports {
            append(&spool);
        }
        let (stop, stopped) = watch::channel(false);
        let (wake, progress) = (Arc::<Notify>::default(), Arc::<Progress>::default());
        let destination = Destination {
            collector: format!(
                "{}://{address}",
                if tls.is_some() { "https" } else { "http" }
            )
            .parse()
            .unwrap(),
            tls,
            token: Token::new(None, token.map(str::to_owned)).unwrap(),
        };
        let (destination, is) = watch::channel(destination);
        let delivery = Delivery {
            destination: is,
            spool: Arc::clone(&spool),
            wake: Arc::clone(&wake),
            progress: Arc::clone(&progress),
            stop: stopped,
        };
        let task = tokio::spawn(delivery.run());
        Self {
            _dir: dir,
            spool,
            wake,
            progress,
            stop,
            destination,
            task,
        }
    }

    fn report(&self) {
        append(&self.spool);
        self.wake.notify_one();
    }

    fn pending(&self) -> u64 {
        lock(&self.spool).pending()
    }

    async fn delivered_all(&self) {
        eventually("everything is delivered", || self.pending() == 0).await;
    }

    /// Stops as SIGTERM does.
    async fn drain(self) {
        self.stop.send_replace(true);
        timeout(TIMEOUT, self.task).await.unwrap().unwrap();
    }
}

fn append(spool: &SharedSpool) -> ReportKey {
    let mut spool = lock(spool);
    let key = spool.next_key();
    let report = v1::Report {
        sequence: key.sequence,
        agent: Some(v1::Agent {
            epoch: key.epoch,
            ..v1::Agent::default()
        }),
        ..v1::Report::default()
    };
    spool.append(&report.encode_to_vec(), b"baseline").unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test]
async fn reports_arrive_in_order_and_once_over_one_stream() {
    let collector = Collector::default();
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 250);
    agent.delivered_all().await;
    (0..3).for_each(|_| agent.report());
    agent.delivered_all().await;
    assert_eq!(collector.stored(), (1..=253).collect::<Vec<_>>());
    assert_eq!(collector.streams.load(Ordering::Relaxed), 1);
    assert!(agent.progress.connected.load(Ordering::Relaxed));
    assert_eq!(agent.progress.delivered.load(Ordering::Relaxed), 253);
    agent.drain().await;
}

#[tokio::test]
async fn a_collector_that_answers_only_after_its_first_report_is_served() {
    let collector = Collector {
        late: true,
        ..Collector::default()
    };
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 20);
    agent.delivered_all().await;
    assert_eq!(collector.stored().len(), 20);
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_everything() {
    let collector = Collector::default();
    let server = collector.start(anywhere()).await;
    let address = server.address;
    let agent = Agent::start(address, None, 5);
    agent.delivered_all().await;
    drop(server);
    (0..5).for_each(|_| agent.report());
    eventually("the failure is noticed", || {
        agent.progress.last_error().is_some()
    })
    .await;
    assert_eq!(agent.pending(), 5);
    let _server = collector.start(address).await;
    agent.delivered_all().await;
    assert_eq!(collector.stored(), (1..=10).collect::<Vec<_>>());
    assert_eq!(agent.progress.last_error(), None);
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again() {
    use Answer::{Close, Fail, Nothing};
    for broken in [Close, Fail] {
        // The second report is taken and never answered.
        let collector =
            Collector::answering(&[Answer::Outcome(ExportOutcome::Stored), Nothing, broken]);
        let server = collector.start(anywhere()).await;
        let agent = Agent::start(server.address, None, 4);
        agent.delivered_all().await;
        assert_eq!(collector.stored_once(), [1, 2, 3, 4], "{broken:?}");
        assert!(collector.seen.load(Ordering::Relaxed) > 4);
    }
}

#[tokio::test]
async fn a_lying_collector_makes_nothing_disappear() {
    for lie in [
        Answer::WrongKey,
        Answer::Unknown,
        Answer::Twice,
        Answer::Outcome(ExportOutcome::Unspecified),
    ] {
        let collector = Collector::answering(&[lie]);
        let server = collector.start(anywhere()).await;
        let agent = Agent::start(server.address, None, 3);
        agent.delivered_all().await;
        // Its first answer of two was true.
        let missed = if matches!(lie, Answer::Twice) { 1 } else { 0 };
        assert_eq!(collector.stored_once(), [1, 2, 3][missed..], "{lie:?}");
        assert_eq!(collector.streams.load(Ordering::Relaxed), 2, "{lie:?}");
    }
}

#[tokio::test]
async fn refused_and_conflicting_reports_are_counted_and_not_sent_again() {
    let collector = Collector::answering(&[
        Answer::Outcome(ExportOutcome::Rejected),
        Answer::Outcome(ExportOutcome::Conflict),
        Answer::Outcome(ExportOutcome::Duplicate),
    ]);
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 4);
    agent.delivered_all().await;
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let losses = lock(&agent.spool).losses();
    assert_eq!((losses.rejected, losses.conflicting), (1, 1));
    assert_eq!(of(&agent.progress.delivered), 2);
    assert_eq!(of(&collector.seen), 4);
}

#[tokio::test]
async fn a_conflict_begins_an_epoch() {
    let collector = Collector::answering(&[Answer::Outcome(ExportOutcome::Conflict)]);
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 1);
    agent.delivered_all().await;
    let (before, next) = (1_000, lock(&agent.spool).next_key());
    assert!(next.epoch > before && next.sequence == 1);
}

#[tokio::test]
async fn what_is_no_report_is_given_up_and_delivery_goes_on_behind_it() {
    for unreadable in [Some(Code::InvalidArgument), None] {
        let collector = Collector {
            unreadable,
            ..Collector::default()
        };
        let server = collector.start(anywhere()).await;
        let agent = Agent::start(server.address, None, 1);
        agent.delivered_all().await;
        lock(&agent.spool).append(b"\xff", b"baseline").unwrap();
        agent.report();
        agent.delivered_all().await;
        assert_eq!(collector.stored_once(), [1, 3], "{unreadable:?}");
        assert_eq!(lock(&agent.spool).losses().damaged, 1, "{unreadable:?}");
    }
}

/// Whatever else a collector refuses so may be its own mistake.
#[tokio::test]
async fn a_report_that_is_one_is_kept_whatever_the_collector_calls_it() {
    let collector = Collector::answering(&[Answer::Invalid, Answer::Invalid]);
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 2);
    agent.delivered_all().await;
    assert_eq!(collector.stored_once(), [1, 2]);
    assert_eq!(lock(&agent.spool).losses().damaged, 0);
}

#[tokio::test]
async fn a_collector_is_tried_before_there_is_a_report() {
    let collector = Collector {
        token: Some("Bearer right"),
        late: true,
        ..Collector::default()
    };
    let server = collector.start(anywhere()).await;
    let right = Agent::start(server.address, Some("right"), 0);
    let connected = || right.progress.connected.load(Ordering::Relaxed);
    eventually("it is taken", connected).await;
    let wrong = Agent::start(server.address, Some("wrong"), 0);
    let told = |agent: &Agent, what| {
        agent
            .progress
            .last_error()
            .is_some_and(|e| e.contains(what))
    };
    eventually("it is refused", || told(&wrong, "a token is needed")).await;
    let unbound = std::net::TcpListener::bind(anywhere()).unwrap();
    let address = unbound.local_addr().unwrap();
    drop(unbound);
    let astray = Agent::start(address, None, 0);
    eventually("nobody is there", || told(&astray, "cannot be reached")).await;
    assert_eq!(collector.seen.load(Ordering::Relaxed), 0);
    right.report();
    right.delivered_all().await;
    for agent in [right, wrong, astray] {
        agent.drain().await;
    }
}

#[tokio::test]
async fn another_destination_is_taken_over_at_once() {
    let (one, other) = (Collector::default(), Collector::default());
    let servers = (one.start(anywhere()).await, other.start(anywhere()).await);
    let agent = Agent::start(servers.0.address, None, 1);
    agent.delivered_all().await;
    let url = format!("http://{}", servers.1.address);
    agent
        .destination
        .send_modify(|to| to.collector = url.parse().unwrap());
    agent.report();
    agent.delivered_all().await;
    assert_eq!((one.stored(), other.stored()), (vec![1], vec![2]));
    assert_eq!(agent.progress.last_error(), None);
}

#[tokio::test]
async fn a_token_is_sent_and_a_wrong_one_is_told() {
    let collector = Collector {
        token: Some("Bearer right"),
        ..Collector::default()
    };
    let server = collector.start(anywhere()).await;
    let wrong = Agent::start(server.address, Some("wrong"), 1);
    eventually("the refusal is told", || {
        let error = wrong.progress.last_error();
        error.is_some_and(|e| e.contains("a token is needed"))
    })
    .await;
    assert_eq!(wrong.pending(), 1);
    let right = Agent::start(server.address, Some("right"), 1);
    right.delivered_all().await;
}

/// Time is the test's own here: five seconds pass at once.
#[tokio::test(start_paused = true)]
async fn a_collector_that_never_answers_is_left_after_five_seconds() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let agent = Agent::start(address, None, 1);
    eventually("the silence is noticed", || {
        let error = agent.progress.last_error();
        error.is_some_and(|e| e.contains("within 5 s"))
    })
    .await;
    assert_eq!(agent.pending(), 1);
}

#[tokio::test]
async fn a_dead_collector_costs_nothing_but_spool_space() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind(anywhere())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let bytes = 16 << 10;
    let agent = Agent::with_spool(address, None, 500, bytes);
    eventually("the failure is told", || {
        agent.progress.last_error().is_some()
    })
    .await;
    let (pending, dropped, held) = {
        let spool = lock(&agent.spool);
        (spool.pending(), spool.losses().dropped, spool.bytes())
    };
    assert!(dropped > 0 && held <= bytes);
    assert_eq!(pending + dropped, 500);
    agent.drain().await;
}

#[tokio::test]
async fn told_to_stop_the_last_report_is_brought_away() {
    let collector = Collector::default();
    let server = collector.start(anywhere()).await;
    let agent = Agent::start(server.address, None, 2);
    agent.delivered_all().await;
    agent.report();
    let progress = Arc::clone(&agent.progress);
    agent.drain().await;
    assert_eq!(collector.stored(), [1, 2, 3]);
    assert_eq!(progress.delivered.load(Ordering::Relaxed), 3);
}

/// A certificate for 127.0.0.1 that is its own authority, and its key.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test]
async fn over_tls_both_sides_show_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (server, server_key) = certificate();
    let (own, own_key) = certificate();
    let collector = Collector {
        tls: Some(
            ServerTlsConfig::new()
                .identity(Identity::from_pem(&server, server_key))
                .client_ca_root(Certificate::from_pem(&own)),
        ),
        ..Collector::default()
    };
    let running = collector.start(anywhere()).await;
    let ca = write("ca.pem", &server);
    let tls = Tls {
        ca_cert: Some(ca.clone()),
        client: Some((write("own.pem", &own), write("own.key", &own_key))),
    };
    let agent = Agent::over(running.address, Some(tls.clone()), None, 2, SPOOL_BYTES);
    agent.delivered_all().await;
    assert_eq!(collector.stored(), [1, 2]);

    // Another authority, or no certificate: nothing is brought, and it is said.
    let stranger = Tls {
        ca_cert: Some(write("stranger.pem", &certificate().0)),
        ..tls.clone()
    };
    let nobody = Tls {
        ca_cert: Some(ca),
        client: None,
    };
    for tls in [stranger, nobody] {
        let agent = Agent::over(running.address, Some(tls), None, 1, SPOOL_BYTES);
        eventually("the failure is told", || {
            agent.progress.last_error().is_some()
        })
        .await;
        assert_eq!(agent.pending(), 1);
    }
    assert_eq!(collector.stored(), [1, 2]);

    // A key that is not the certificate's is told at the start.
    let mismatch = Tls {
        client: Some((
            dir.path().join("own.pem"),
            write("other.key", &certificate().1),
        )),
        ..tls
    };
    let url = "https://127.0.0.1:1".parse().unwrap();
    let error = mismatch.endpoint(&url).unwrap_err().to_string();
    assert!(error.contains("own.pem"), "{error}");
}

/// Each says what is wrong, and what to write.
#[tokio::test]
async fn a_port_or_a_certificate_that_cannot_serve_is_told_with_what_to_do() {
    use std::io::{Read as _, Write as _};
    let http = std::net::TcpListener::bind(anywhere()).unwrap();
    let plain = http.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in http.incoming() {
            let mut stream = stream.unwrap();
            drop(stream.read(&mut [0; 1_024]));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
            drop(stream.read(&mut [0; 1_024]));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let made = |names: &[&str], is_ca| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.self_signed(&key).unwrap().pem()
    };
    let authority = made(&["127.0.0.1"], true);
    let other_name = made(&["collector.example"], false);
    let trusted = |name: &str, pem: &str| {
        let ca_cert = Some(file(name, pem));
        let client = None;
        Some(Tls { ca_cert, client })
    };
    let serve = |pem: &str| Collector {
        tls: Some(ServerTlsConfig::new().identity(Identity::from_pem(pem, key.serialize_pem()))),
        ..Collector::default()
    };
    let of_authority = serve(&authority).start(anywhere()).await;
    let of_other_name = serve(&other_name).start(anywhere()).await;
    let stranger = certificate().0;
    for (address, tls, told) in [
        (plain, None, "not its HTTP port"),
        (of_authority.address, None, "https:// where it takes TLS"),
        (plain, trusted("a", &authority), "write http://"),
        (of_authority.address, trusted("b", &authority), "CA:FALSE"),
        (
            of_other_name.address,
            trusted("c", &other_name),
            "subjectAltName",
        ),
        (of_other_name.address, trusted("d", &stranger), "--ca-cert"),
    ] {
        let agent = Agent::over(address, tls, None, 1, SPOOL_BYTES);
        let error = || agent.progress.last_error().unwrap_or_default();
        eventually("it is told", || !error().is_empty()).await;
        assert!(error().contains(told), "{told}: {}", error());
    }
}
