//! What programs read by gRPC.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use budget::{Budget, Held, Use};
use monitor_proto::v1::{
    self,
    query_service_server::{QueryService, QueryServiceServer},
};
use query::{
    EngineError, Filter, Partial, Pool, QueryBackend, QueryBackendError, ReadError, Readers,
    Selection,
};
use store::{Fleet, Live, LiveReport};
use tokio::sync::{
    Semaphore,
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    mpsc,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{loads, problems, shown, stream_tracking::Room};
use crate::{
    auth::Access,
    problems::Judgement,
    self_stats::{Place, Refusal, SelfStats, take_place},
    stop::{Stopping, stopped},
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Of one page: clients take 4 MiB where nothing else is set.
const PAGE_BYTES_MAX: u64 = 3 << 20;
/// Watchers at once; each costs a task and a few messages.
const WATCHERS_MAX: u64 = 1024;
/// Messages that wait for a watcher's connection; then the lag is counted.
const MESSAGES_MAX: usize = 4;
/// The metadata of an answer from which something may be missing.
const PARTIAL: &str = "speedmimi-partial-bin";
/// Reasons that one answer tells: each is a field of its own.
const REASONS_MAX: usize = 10;
/// Bytes of these reasons. Clients and what stands between refuse answers with
/// long metadata, often at 8 KiB, and base64 makes more of them.
const REASON_BYTES_MAX: usize = 2 << 10;
/// Names that one request may ask for.
const HOSTS_ASKED_MAX: usize = 1000;
/// So many names that are as long as a host's id may be take less.  It is kept
/// before anything is known of who sends it.
const REQUEST_BYTES_MAX: usize = 512 << 10;

/// The service that answers questions.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) query_backend: QueryBackend,
    pub(crate) judgement: Judgement,
    pub(crate) live: Live,
    pub(crate) stats: Arc<SelfStats>,
    pub(crate) budget: Budget,
    pub(crate) pool: Pool,
    pub(crate) stopping: Stopping,
    /// Who may read; anyone where this is absent.
    pub(crate) access: Option<Arc<Access>>,
    /// One look through all hosts' loads at a time: however many watch, they
    /// keep one thread busy.
    pub(crate) looks: Arc<Semaphore>,
}

/// What is said, and its room until it is taken.
type Answer<T> = (Result<T, Status>, Option<Held>);
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl Query {
    pub(crate) fn into_server(self) -> QueryServiceServer<Self> {
        QueryServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn allow<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(access) = &self.access else {
            return Ok(());
        };
        let (header, peer) = shown(request);
        if access.reads(header, &peer) {
            return Ok(());
        }
        const WHY: &str = "reading here needs `authorization: Bearer TOKEN` with a token of \
                           `speedmimi-collector token add --read`, or a client certificate with \
                           the URI urn:speedmimi:read";
        self.stats.refuse(Refusal::Unauthenticated, &peer, &WHY);
        Err(Status::unauthenticated(WHY))
    }

    /// What only the own store can answer.
    fn store(&self, instead: &str) -> Result<(&Fleet, &Readers), Status> {
        match &self.query_backend {
            QueryBackend::Store(fleet, readers) => Ok((fleet, readers)),
            QueryBackend::Engine(_) => Err(Status::unimplemented(format!(
                "the query backend of --query-url does not provide this: {instead}"
            ))),
        }
    }

    fn place(&self) -> Result<Place, Status> {
        take_place(&self.stats, |s| &s.watchers_active, WATCHERS_MAX).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "{WATCHERS_MAX} watchers are already connected: try again later"
            ))
        })
    }

    /// Sends reports on until the watcher goes or the collector stops.
    async fn forward(
        mut self,
        host: String,
        peer: Arc<str>,
        answers: mpsc::Sender<Answer<v1::WatchResponse>>,
        _place: Place,
    ) {
        let mut reports = self.live.watch();
        let mut skipped = 0u64;
        loop {
            let next = tokio::select! {
                next = reports.recv() => next,
                () = answers.closed() => return,
                () = stopped(&mut self.stopping) => {
                    drop(answers.send((Err(goodbye()), None)).await);
                    return;
                }
            };
            match next {
                Ok(live) if live.is_of(&host) => {
                    let room = self.budget.open(Use::Watchers, &peer);
                    let decoded = self.pool.run(move || live.decoded(room)).await;
                    let Ok(Some((report, held))) = decoded else {
                        skipped += 1;
                        continue;
                    };
                    let answer = v1::WatchResponse {
                        report: Some(report),
                        skipped: std::mem::take(&mut skipped),
                    };
                    if answers.send((Ok(answer), Some(held))).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(n)) => {
                    // On to the newest, and its answer says so.
                    skipped += n + skip_to_newest(&mut reports);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn loads(&self, fleet: &Fleet, hosts: &[String]) -> Vec<v1::BackendLoad> {
        // It is never closed.
        let _look = self.looks.acquire().await;
        loads::of(fleet, hosts)
    }

    /// Sends the loads that changed, as reports come.
    async fn forward_loads(
        mut self,
        fleet: Fleet,
        hosts: Vec<String>,
        answers: mpsc::Sender<Result<v1::WatchBackendLoadsResponse, Status>>,
        _place: Place,
    ) {
        let mut reports = self.live.watch();
        let mut sent: HashMap<String, v1::BackendLoad> = HashMap::new();
        let mut first = true;
        loop {
            let loads: Vec<_> = self
                .loads(&fleet, &hosts)
                .await
                .into_iter()
                .filter(|load| sent.get(&load.host_id) != Some(load))
                .collect();
            // The first answer comes at once, also where there is nothing yet.
            if !loads.is_empty() || first {
                first = false;
                sent.extend(
                    loads
                        .iter()
                        .map(|load| (load.host_id.clone(), load.clone())),
                );
                let answer = v1::WatchBackendLoadsResponse { loads };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                next = reports.recv() => if let Err(RecvError::Closed) = next { return },
                () = answers.closed() => return,
                () = stopped(&mut self.stopping) => {
                    drop(answers.send(Err(goodbye())).await);
                    return;
                }
            }
            // What came together is looked at together.
            while reports.try_recv().is_ok() {}
        }
    }
}

/// Takes out all but the newest report; how many those were.
fn skip_to_newest(reports: &mut broadcast::Receiver<LiveReport>) -> u64 {
    let mut skipped = 0;
    while reports.len() > 1 {
        skipped += match reports.try_recv() {
            Ok(_) => 1,
            Err(TryRecvError::Lagged(n)) => n,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        };
    }
    skipped
}

fn goodbye() -> Status {
    Status::unavailable("the collector is stopping: reconnect later")
}

fn status(error: &ReadError) -> Status {
    match error {
        ReadError::Busy | ReadError::Exhausted(_) => Status::resource_exhausted(error.to_string()),
        ReadError::Stopping => Status::unavailable(error.to_string()),
        ReadError::TooMuch(_) => Status::invalid_argument(error.to_string()),
        ReadError::Sqlite(_) => {
            tracing::error!(%error, "cannot read the store");
            Status::internal(error.to_string())
        }
    }
}

fn reading_status(error: &QueryBackendError) -> Status {
    match error {
        QueryBackendError::Store(error) => status(error),
        QueryBackendError::Engine(error @ EngineError::TooMuch(_)) => {
            Status::invalid_argument(error.to_string())
        }
        QueryBackendError::Engine(error @ EngineError::Exhausted(_)) => {
            Status::resource_exhausted(error.to_string())
        }
        QueryBackendError::Engine(error) => Status::unavailable(error.to_string()),
    }
}

/// An answer that is not whole says why in its metadata: as bytes, for the
/// words may be an engine's own.
fn response<V, T>(partial: Partial<V>, answer: impl FnOnce(V) -> T) -> Response<T> {
    let mut out = Response::new(answer(partial.value));
    for why in first_of(partial.partial) {
        let why = MetadataValue::from_bytes(why.as_bytes());
        out.metadata_mut().append_bin(PARTIAL, why);
    }
    out
}

/// The first of some reasons, and how many more there are.
fn first_of(mut reasons: Vec<String>) -> Vec<String> {
    let mut bytes = 0;
    let fitting = reasons
        .iter()
        .take(REASONS_MAX)
        .take_while(|why| {
            bytes += why.len();
            bytes <= REASON_BYTES_MAX
        })
        .count();
    let more = reasons.len() - fitting;
    reasons.truncate(fitting);
    if more > 0 {
        reasons.push(format!("{more} more: ask /api/v1 over HTTP for all"));
    }
    reasons
}

fn selection(fleet: &Fleet, request: &v1::GetReportsRequest) -> Result<Selection, Status> {
    let filter = if request.host.is_empty() {
        Filter::All
    } else {
        let hosts = fleet.find(&request.host);
        Filter::Hosts(hosts.iter().map(|host| host.row.key).collect())
    };
    let limit = match usize::try_from(request.limit) {
        Ok(0) => LIMIT_DEFAULT,
        Ok(limit) if limit <= LIMIT_MAX => limit,
        Ok(_) | Err(_) => {
            return Err(Status::invalid_argument(format!(
                "limit {} is above the maximum of {LIMIT_MAX}",
                request.limit
            )));
        }
    };
    let after = match request.cursor.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error| Status::invalid_argument(format!("{error}")))?,
        ),
    };
    let until_ns = match request.until_unix_ns {
        0 => u64::MAX,
        until => until,
    };
    if request.since_unix_ns > until_ns {
        let why = "since_unix_ns is after until_unix_ns: exchange them";
        return Err(Status::invalid_argument(why));
    }
    Ok(Selection {
        filter,
        since_ns: request.since_unix_ns,
        until_ns,
        after,
        limit,
        bytes_max: PAGE_BYTES_MAX,
    })
}

fn bounded(hosts: Vec<String>) -> Result<Vec<String>, Status> {
    if hosts.len() > HOSTS_ASKED_MAX {
        return Err(Status::invalid_argument(format!(
            "{} hosts requested: the maximum is {HOSTS_ASKED_MAX}",
            hosts.len()
        )));
    }
    Ok(hosts)
}

#[tonic::async_trait]
impl QueryService for Query {
    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        self.allow(&request)?;
        let hosts = self.query_backend.hosts().await;
        let hosts = hosts.map_err(|error| reading_status(&error))?;
        Ok(response(hosts, |hosts| v1::ListHostsResponse { hosts }))
    }

    async fn get_reports(
        &self,
        request: Request<v1::GetReportsRequest>,
    ) -> Result<Response<v1::GetReportsResponse>, Status> {
        self.allow(&request)?;
        let (fleet, readers) = self.store(
            "ask a collector without --query-url, or this one for /api/v1/series over HTTP",
        )?;
        let selection = selection(fleet, request.get_ref())?;
        let room = self.budget.open(Use::Answers, &shown(&request).1.name());
        let read = readers.page(selection, room).await;
        let page = read.map_err(|error| status(&error))?;
        let partial = page.partial();
        let decoded = self.pool.run(move || page.decoded()).await;
        let decoded = decoded.map_err(|busy| Status::resource_exhausted(busy.to_string()))?;
        let (reports, next, held) =
            decoded.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let value = v1::GetReportsResponse {
            reports,
            next_cursor: next.map(|c| c.to_string()).unwrap_or_default(),
        };
        let mut response = response(Partial { value, partial }, |value| value);
        response.extensions_mut().insert(Room::new(held));
        Ok(response)
    }

    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.allow(&request)?;
        self.store("watch the collectors that agents report to, or /api/v1/live over HTTP")?;
        let place = self.place()?;
        let (answers, queue) = mpsc::channel(MESSAGES_MAX);
        let peer = shown(&request).1.name();
        let host = request.into_inner().host;
        tokio::spawn(self.clone().forward(host, peer, answers, place));
        // What is taken is encoded at once, and counts as that.
        let taken = ReceiverStream::new(queue).map(|(answer, _held)| answer);
        Ok(Response::new(Box::pin(taken)))
    }

    async fn list_problems(
        &self,
        request: Request<v1::ListProblemsRequest>,
    ) -> Result<Response<v1::ListProblemsResponse>, Status> {
        self.allow(&request)?;
        self.store("ask the collectors that agents report to")?;
        let wanted = problems::wanted(request.into_inner())?;
        let judgement = self.judgement.clone();
        let now = self
            .pool
            .run(move || problems::told(judgement.now(&wanted, ::problems::PROBLEMS_MAX)))
            .await;
        now.map(Response::new)
            .map_err(|busy| Status::resource_exhausted(busy.to_string()))
    }

    async fn get_backend_loads(
        &self,
        request: Request<v1::GetBackendLoadsRequest>,
    ) -> Result<Response<v1::GetBackendLoadsResponse>, Status> {
        self.allow(&request)?;
        let hosts = bounded(request.into_inner().hosts)?;
        let engine = match &self.query_backend {
            QueryBackend::Store(fleet, _) => {
                let loads = self.loads(fleet, &hosts).await;
                return Ok(Response::new(v1::GetBackendLoadsResponse { loads }));
            }
            QueryBackend::Engine(engine) => engine,
        };
        let newest = engine.newest("").await;
        let newest = newest.map_err(|error| reading_status(&error.into()))?;
        Ok(response(newest, |newest| v1::GetBackendLoadsResponse {
            loads: loads::of_reports(&newest, &hosts),
        }))
    }

    type WatchBackendLoadsStream = Answers<v1::WatchBackendLoadsResponse>;

    async fn watch_backend_loads(
        &self,
        request: Request<v1::WatchBackendLoadsRequest>,
    ) -> Result<Response<Self::WatchBackendLoadsStream>, Status> {
        self.allow(&request)?;
        let hosts = bounded(request.into_inner().hosts)?;
        let (fleet, _) = self.store("ask for GetBackendLoads again and again")?;
        let fleet = fleet.clone();
        let place = self.place()?;
        let (answers, queue) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(self.clone().forward_loads(fleet, hosts, answers, place));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(partial: Vec<String>) -> Vec<String> {
        let response = response(Partial { value: (), partial }, |()| ());
        let fields = response.metadata().get_all_bin(PARTIAL).iter();
        fields
            .map(|field| String::from_utf8(field.to_bytes().unwrap().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn few_reasons_are_told_as_they_are() {
        assert!(metadata(Vec::new()).is_empty());
        let few = vec!["w".repeat(300); 6];
        assert_eq!(metadata(few.clone()), few);
    }

    #[test]
    fn many_reasons_are_bounded_in_number_and_bytes_and_counted() {
        let many = |chars: usize| metadata(vec!["ü".repeat(chars); 50]);
        let short = many(1);
        assert_eq!(short.len(), REASONS_MAX + 1);
        assert!(short[REASONS_MAX].starts_with("40 more"), "{short:?}");
        let long = many(300);
        let bytes: usize = long[..long.len() - 1].iter().map(String::len).sum();
        assert!(bytes <= REASON_BYTES_MAX, "{bytes}");
        assert_eq!(long.len(), 4);
        assert!(long[3].starts_with("47 more"), "{long:?}");
        assert!(many(10_000)[0].starts_with("50 more"));
    }
}
