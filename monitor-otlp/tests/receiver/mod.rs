//! A strict receiver of OTLP, made of the official types: what the data model
//! forbids is a fault, and every point is kept.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "every test uses its part of the fixture, and fails by panicking"
)]

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{ExponentialHistogramDataPoint, metric::Data, number_data_point},
};
use prost::Message;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};

/// Host id, metric and attributes; a histogram's name ends in `#count` or
/// `#sum`.
pub type Key = (String, String, String);

/// What to answer instead of a plain success.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Over HTTP: a status, and seconds of `Retry-After`.
    Http(u16, Option<u64>),
    /// Over gRPC.
    Grpc(Code),
    /// All is taken, but for so many points.
    Partial(i64),
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    bodies: Vec<Vec<u8>>,
    headers: Vec<String>,
    points: BTreeMap<Key, BTreeMap<u64, f64>>,
    starts: BTreeMap<Key, u64>,
    faults: Vec<String>,
}

/// A running receiver; it stops when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    stop_grpc: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Receiver {
    /// Of OTLP/HTTP; port 0 takes a free one.
    pub fn http(port: u16) -> Self {
        let listener = listen(port);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(State::default()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (state, ended) = (Arc::clone(&shared), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Relaxed) {
                    return;
                }
                // One that is broken off is asked again.
                drop(stream.and_then(|stream| serve(&stream, &state)));
            }
        });
        Self {
            address,
            shared,
            stopped,
            stop_grpc: None,
            thread: Some(thread),
        }
    }

    /// Of OTLP/gRPC.
    pub fn grpc(port: u16) -> Self {
        let listener = listen(port);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(State::default()));
        let service = MetricsServiceServer::new(Service(Arc::clone(&shared)));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let serving = tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming);
                // Connections are broken off, as by a receiver that is killed.
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            shared,
            stopped: Arc::default(),
            stop_grpc: Some(stop),
            thread: Some(thread),
        }
    }

    /// What the next requests are answered.
    pub fn answer(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().unwrap().script.extend(replies);
    }

    /// The requests that were taken, as they came.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.shared.lock().unwrap().bodies.clone()
    }

    /// The heads of HTTP requests.
    pub fn heads(&self) -> Vec<String> {
        self.shared.lock().unwrap().headers.clone()
    }

    /// Every point that was taken.
    pub fn points(&self) -> BTreeMap<Key, BTreeMap<u64, f64>> {
        let state = self.shared.lock().unwrap();
        assert_eq!(state.faults, Vec::<String>::new());
        state.points.clone()
    }

    /// How many points a metric's first stream has that matches.
    pub fn count(&self, metric: &str, attribute: &str) -> usize {
        let points = self.points();
        let mut found = points
            .iter()
            .filter(|((_, name, attributes), _)| name == metric && attributes.contains(attribute));
        found.next().map_or(0, |(_, points)| points.len())
    }

    /// The sum of a metric's newest values over all its streams.
    pub fn sum(&self, metric: &str) -> Option<f64> {
        let points = self.points();
        let newest: Vec<f64> = points
            .iter()
            .filter(|((_, name, _), _)| name == metric)
            .filter_map(|(_, points)| points.values().next_back().copied())
            .collect();
        (!newest.is_empty()).then(|| newest.iter().sum())
    }

    /// When the streams of a metric began.
    pub fn starts(&self, metric: &str) -> Vec<u64> {
        let state = self.shared.lock().unwrap();
        let of = state
            .starts
            .iter()
            .filter(|((_, name, _), _)| name == metric);
        of.map(|(_, start)| *start).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        if let Some(stop) = self.stop_grpc.take() {
            stop.send(()).ok();
        } else {
            // Wakes the thread up.
            drop(TcpStream::connect(self.address));
        }
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// A port that was used a moment ago may need one.
fn listen(port: u16) -> TcpListener {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// One request of HTTP/1.1.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body)?;
    let mut state = state.lock().unwrap();
    if !head.starts_with("post /v1/metrics http/1.1\r\n")
        || !head.contains("\r\ncontent-type: application/x-protobuf\r\n")
    {
        state.faults.push(format!("not OTLP/HTTP: {head}"));
    }
    state.headers.push(head);
    let (status, more, answer) = match state.script.pop_front() {
        Some(Reply::Http(status, after)) => {
            let after = after.map(|s| format!("Retry-After: {s}\r\n"));
            (status, after.unwrap_or_default(), Vec::new())
        }
        reply => {
            let response = state.take(&body, reply.as_ref());
            (200, String::new(), response.encode_to_vec())
        }
    };
    let length = answer.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{more}Content-Type: application/x-protobuf\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&answer)
}

struct Service(Arc<Mutex<State>>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        match state.script.pop_front() {
            Some(Reply::Grpc(code)) => Err(Status::new(code, "as the script says")),
            reply => {
                let body = request.into_inner().encode_to_vec();
                Ok(Response::new(state.take(&body, reply.as_ref())))
            }
        }
    }
}

impl State {
    fn take(&mut self, body: &[u8], reply: Option<&Reply>) -> ExportMetricsServiceResponse {
        match ExportMetricsServiceRequest::decode(body) {
            Ok(request) => self.check(&request),
            Err(error) => self.faults.push(error.to_string()),
        }
        self.bodies.push(body.to_vec());
        let partial = match reply {
            Some(Reply::Partial(rejected)) => Some(ExportMetricsPartialSuccess {
                rejected_data_points: *rejected,
                error_message: "as the script says".to_owned(),
            }),
            _ => None,
        };
        ExportMetricsServiceResponse {
            partial_success: partial,
        }
    }

    fn check(&mut self, request: &ExportMetricsServiceRequest) {
        let mut seen = HashSet::new();
        for resource in &request.resource_metrics {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let known: BTreeMap<_, _> = attributes.iter().map(pair).collect();
            for needed in [
                "host.id",
                "host.name",
                "service.name",
                "service.instance.id",
            ] {
                if !known.contains_key(needed) {
                    self.faults.push(format!("no {needed} in the resource"));
                }
            }
            let host = known.get("host.id").cloned().unwrap_or_default();
            for metric in resource.scope_metrics.iter().flat_map(|s| &s.metrics) {
                let points = match metric.data.as_ref().unwrap() {
                    Data::Gauge(gauge) => numbers(&gauge.data_points, false),
                    Data::Sum(sum) => {
                        if sum.aggregation_temporality != 2 || !sum.is_monotonic {
                            self.faults
                                .push(format!("{} is not cumulative", metric.name));
                        }
                        // Time is counted too, and has fractions.
                        numbers(&sum.data_points, metric.unit != "s")
                    }
                    Data::ExponentialHistogram(histogram) => {
                        if histogram.aggregation_temporality != 2 {
                            self.faults
                                .push(format!("{} is not cumulative", metric.name));
                        }
                        let points = &histogram.data_points;
                        points.iter().flat_map(durations).collect()
                    }
                    other => panic!("{other:?}"),
                };
                if points.is_empty() || metric.unit.is_empty() || metric.description.is_empty() {
                    self.faults.push(format!("{} says too little", metric.name));
                }
                for point in points {
                    let name = format!("{}{}", metric.name, point.part);
                    let key = (host.clone(), name, point.attributes);
                    if let Some(fault) = point.fault {
                        self.faults.push(format!("{key:?}: {fault}"));
                    }
                    if !seen.insert((key.clone(), point.time)) {
                        self.faults.push(format!("{key:?} is there twice"));
                    }
                    self.starts.insert(key.clone(), point.start);
                    self.points
                        .entry(key)
                        .or_default()
                        .insert(point.time, point.value);
                }
            }
        }
    }
}

struct Point {
    part: &'static str,
    attributes: String,
    start: u64,
    time: u64,
    value: f64,
    fault: Option<&'static str>,
}

fn pair(kv: &KeyValue) -> (String, String) {
    let value = match kv.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(n) => n.to_string(),
        other => panic!("{other:?}"),
    };
    (kv.key.clone(), value)
}

fn joined(attributes: &[KeyValue]) -> (String, bool) {
    let mut pairs: Vec<_> = attributes.iter().map(pair).collect();
    pairs.sort();
    let unique = pairs.windows(2).all(|two| two[0].0 != two[1].0);
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    (pairs.join(","), unique)
}

fn fault(start: u64, time: u64, unique: bool) -> Option<&'static str> {
    if time == 0 || start > time {
        Some("its times are impossible")
    } else if !unique {
        Some("an attribute is there twice")
    } else {
        None
    }
}

fn numbers(
    points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint],
    counts: bool,
) -> Vec<Point> {
    let number = |p: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let value = match p.value.unwrap() {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        let (attributes, unique) = joined(&p.attributes);
        let mut fault = fault(p.start_time_unix_nano, p.time_unix_nano, unique);
        if counts && (value < 0.0 || !matches!(p.value, Some(number_data_point::Value::AsInt(_)))) {
            fault = Some("is no count");
        }
        Point {
            part: "",
            attributes,
            start: p.start_time_unix_nano,
            time: p.time_unix_nano,
            value,
            fault,
        }
    };
    points.iter().map(number).collect()
}

fn durations(p: &ExponentialHistogramDataPoint) -> [Point; 2] {
    let (attributes, unique) = joined(&p.attributes);
    let buckets = p.positive.as_ref().map_or(&[][..], |b| &b.bucket_counts);
    let mut fault = fault(p.start_time_unix_nano, p.time_unix_nano, unique);
    if p.count != buckets.iter().sum::<u64>() + p.zero_count || p.scale != 2 {
        fault = Some("its buckets do not add up");
    }
    let point = |part, value| Point {
        part,
        attributes: attributes.clone(),
        start: p.start_time_unix_nano,
        time: p.time_unix_nano,
        value,
        fault,
    };
    [
        point("#count", p.count as f64),
        point("#sum", p.sum.unwrap()),
    ]
}
