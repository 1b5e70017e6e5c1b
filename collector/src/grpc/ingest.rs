//! Where agents deliver their reports.
//!
//! Each stream has a reading task that hands reports to the writer and puts
//! the pending answers into a bounded queue; the response stream takes them in
//! that order.  A sender that does not read its answers is thereby stopped from
//! sending more.

use std::{
    error::Error as _,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use monitor_proto::{
    REPORT_BYTES_MAX,
    v1::{
        self, ExportOutcome, ExportRequest, ExportResponse,
        report_service_server::{ReportService, ReportServiceServer},
    },
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::shown;
use crate::{
    auth::{Access, Denied, Peer, WriteGrant},
    codec,
    fleet::Facts,
    limits::{HostRates, StreamPlace, Streams},
    log_limit,
    self_stats::{Place, Refusal, SelfStats, take_place},
    stop::{Stopping, stopped},
    store::{Incoming, Outcome, WriteError, Writer},
    time::{now_ns, steady_ns},
    validate,
};

/// Reports of one stream that wait for their commit.
const IN_FLIGHT_MAX: usize = 64;
/// The field's own tag and length around a report.
const ENVELOPE_BYTES: usize = 64;
const STREAMS_MAX: u64 = 4096;
/// Of them, those of a token or a certificate for each host that it is bound
/// to: an agent has one, and comes back before its last one is known to be dead.
const STREAMS_OF_A_HOST_MAX: usize = 4;

/// The service that takes reports.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    pub(crate) writer: Writer,
    pub(crate) access: Arc<Access>,
    pub(crate) stats: Arc<SelfStats>,
    pub(crate) rates: Arc<HostRates>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) stopping: Stopping,
}

type Answered = oneshot::Receiver<Result<Outcome, WriteError>>;

/// What is answered to one request, at once or after its commit.
enum Pending {
    Committing {
        epoch: u64,
        sequence: u64,
        answered: Answered,
    },
    Rejected(ExportResponse),
    /// Ends the stream.
    Broken(Status),
}

impl Ingest {
    pub(crate) fn into_server(self) -> ReportServiceServer<Self> {
        ReportServiceServer::new(self).max_decoding_message_size(REPORT_BYTES_MAX + ENVELOPE_BYTES)
    }

    fn authenticate(
        &self,
        request: &Request<Streaming<ExportRequest>>,
    ) -> Result<WriteGrant, Status> {
        let (shown, peer) = shown(request);
        self.access.write(shown, &peer).ok_or_else(|| {
            const WHY: &str = "reports need `authorization: Bearer TOKEN` with a token that may \
                               write: give the agent one of `speedmimi-collector token add \
                               --host-id ID`, or DATA_DIR/token, by --token-file";
            self.stats.refuse(Refusal::Unauthenticated, &peer, &WHY);
            Status::unauthenticated(WHY)
        })
    }

    /// A place for one more stream, and one of those that the grant has.
    fn place(&self, grant: &WriteGrant) -> Result<(Place, Option<StreamPlace>), Status> {
        let refuse = |words: String| {
            self.stats.refuse(Refusal::Streams, grant.peer(), &words);
            Status::resource_exhausted(words)
        };
        let own = match grant.holder() {
            None => None,
            Some((holder, hosts)) => {
                let max = STREAMS_OF_A_HOST_MAX * hosts;
                let own = self.streams.take(&holder, max as u64);
                Some(own.ok_or_else(|| {
                    refuse(format!(
                        "{max} streams are open with this token or certificate already: close \
                         some, or try again later"
                    ))
                })?)
            }
        };
        let place = take_place(&self.stats, |s| &s.streams_active, STREAMS_MAX);
        let place = place.ok_or_else(|| {
            refuse(format!(
                "{STREAMS_MAX} agents are connected already: try again later"
            ))
        })?;
        Ok((place, own))
    }

    /// Reads requests until the sender ends, breaks or the collector stops.
    async fn read(
        self,
        mut requests: Streaming<ExportRequest>,
        mut grant: WriteGrant,
        pending: mpsc::Sender<Pending>,
        _place: (Place, Option<StreamPlace>),
    ) {
        let mut stopping = self.stopping.clone();
        loop {
            let next = tokio::select! {
                next = requests.next() => next,
                () = stopped(&mut stopping) => {
                    let goodbye = Status::unavailable("the collector is stopping: connect again");
                    drop(pending.send(Pending::Broken(goodbye)).await);
                    return;
                }
            };
            let answer = match next {
                Some(Ok(request)) => self.take(request, &mut grant).await,
                Some(Err(status)) => {
                    self.ended(&status, grant.peer());
                    Pending::Broken(status)
                }
                None => return,
            };
            let broken = matches!(answer, Pending::Broken(_));
            if pending.send(answer).await.is_err() || broken {
                return;
            }
        }
    }

    /// What the peer sent is refused; that it went away is no refusal.
    fn ended(&self, status: &Status, peer: &Peer) {
        // Only what the connection came to has a source.
        if status.source().is_none() {
            self.stats.refuse(Refusal::Invalid, peer, &status.message());
            return;
        }
        self.stats.streams_broken.fetch_add(1, Relaxed);
        let peer = peer.to_string();
        if let Some(left_out) = log_limit::line("stream broke", &peer) {
            let why = status.message();
            tracing::info!(
                peer,
                why,
                left_out,
                "a stream of reports broke off: its agent connects again, and sends what was not \
                 acknowledged"
            );
        }
    }

    async fn take(&self, request: ExportRequest, grant: &mut WriteGrant) -> Pending {
        let report = request.report.unwrap_or_default();
        if let Err(invalid) = validate::report(&report) {
            self.stats.refuse(Refusal::Invalid, grant.peer(), &invalid);
            return Pending::Rejected(ExportResponse {
                epoch: report.agent.as_ref().map_or(0, |agent| agent.epoch),
                sequence: report.sequence,
                outcome: ExportOutcome::Rejected.into(),
                message: invalid.to_string(),
            });
        }
        let host = report.host.as_ref().map_or("", |host| host.id.as_str());
        let granted = self.granted(grant, host);
        if let Err(status) = granted.and_then(|()| self.allow(&report, grant.peer())) {
            return Pending::Broken(status);
        }
        match self.submit(report).await {
            Ok(pending) => pending,
            Err(error) => Pending::Broken(self.status(&error, grant.peer())),
        }
    }

    /// The stream ends and the sender's spool waits: a report under the wrong
    /// right is not lost, as a rejected one would be.
    fn granted(&self, grant: &mut WriteGrant, host: &str) -> Result<(), Status> {
        self.access.allows(grant, host).map_err(|denied| {
            let words = format!("reports of the host {host:?} are not taken here: {denied}");
            self.stats.refuse(Refusal::Forbidden, grant.peer(), &words);
            match denied {
                Denied::Revoked => Status::unauthenticated(words),
                Denied::Token(_) | Denied::Certificate(_) => Status::permission_denied(words),
            }
        })
    }

    fn allow(&self, report: &v1::Report, peer: &Peer) -> Result<(), Status> {
        let host = report.host.as_ref().map_or("", |host| host.id.as_str());
        if self.rates.take(host, report.encoded_len(), Instant::now()) {
            return Ok(());
        }
        const WHY: &str =
            "this host sends more than the collector takes of one host: send again later";
        self.stats.refuse(Refusal::Rate, peer, &WHY);
        Err(Status::resource_exhausted(WHY))
    }

    async fn submit(&self, report: v1::Report) -> Result<Pending, WriteError> {
        let body = codec::encode(&report).map_err(|e| WriteError::Failed(e.to_string()))?;
        let facts = Facts::from(&report);
        let agent = report.agent.unwrap_or_default();
        let (epoch, sequence) = (agent.epoch, report.sequence);
        let answered = self
            .writer
            .submit(Incoming {
                host: report.host.unwrap_or_default(),
                agent,
                sequence,
                window_end_ns: report.window_end_unix_ns,
                received_ns: now_ns(),
                steady_ns: steady_ns(),
                body: body.into(),
                facts,
            })
            .await?;
        Ok(Pending::Committing {
            epoch,
            sequence,
            answered,
        })
    }

    async fn answer(&self, pending: Pending, peer: &Peer) -> Result<ExportResponse, Status> {
        let (epoch, sequence, answered) = match pending {
            Pending::Rejected(response) => return Ok(response),
            Pending::Broken(status) => return Err(status),
            Pending::Committing {
                epoch,
                sequence,
                answered,
            } => (epoch, sequence, answered),
        };
        let outcome = answered.await.unwrap_or(Err(WriteError::Stopping));
        let (counter, outcome) = match outcome.map_err(|error| self.status(&error, peer))? {
            Outcome::Stored => (&self.stats.stored, ExportOutcome::Stored),
            Outcome::Duplicate => (&self.stats.duplicates, ExportOutcome::Duplicate),
            Outcome::Conflict => (&self.stats.conflicts, ExportOutcome::Conflict),
        };
        counter.fetch_add(1, Relaxed);
        Ok(ExportResponse {
            epoch,
            sequence,
            outcome: outcome.into(),
            message: String::new(),
        })
    }

    fn status(&self, error: &WriteError, peer: &Peer) -> Status {
        let words = error.to_string();
        let refuse = |reason| self.stats.refuse(reason, peer, &words);
        match error {
            WriteError::Full => {
                refuse(Refusal::DiskFull);
                Status::resource_exhausted(words)
            }
            WriteError::TooManyHosts(_) => {
                refuse(Refusal::Hosts);
                Status::resource_exhausted(words)
            }
            WriteError::Failed(_) => {
                refuse(Refusal::Store);
                Status::internal(words)
            }
            WriteError::Stopping => Status::unavailable(words),
        }
    }
}

#[tonic::async_trait]
impl ReportService for Ingest {
    type ExportStream =
        Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send + 'static>>;

    async fn export(
        &self,
        request: Request<Streaming<ExportRequest>>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let grant = self.authenticate(&request)?;
        let place = self.place(&grant)?;
        let peer = grant.peer().clone();
        let (pending, queue) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(
            self.clone()
                .read(request.into_inner(), grant, pending, place),
        );
        let ingest = self.clone();
        let answers = ReceiverStream::new(queue).then(move |pending| {
            let (ingest, peer) = (ingest.clone(), peer.clone());
            async move { ingest.answer(pending, &peer).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
