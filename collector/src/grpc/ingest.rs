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
    time::{Duration, Instant},
};

use budget::{Budget, Held, Use};
use daemon::{
    clock::{steady_ns, unix_ns},
    log_limit,
};
use monitor_proto::{
    EncodedExportRequest, REPORT_BYTES_MAX,
    v1::{self, ExportOutcome, ExportResponse},
};
use prost::{Message as _, bytes::Bytes};
use store::{Facts, Incoming, Outcome, WriteError, Writer, codec};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    export::{ExportServer, Identity},
    shown,
};
use crate::{
    auth::{Access, Denied, Peer, WriteGrant},
    limits::{HostRates, StreamPlace, Streams},
    self_stats::{Place, Refusal, SelfStats, take_place},
    stop::{Stopping, stopped},
    validate,
};

/// Reports of one stream that wait for their commit.
const IN_FLIGHT_MAX: usize = 64;
/// The field's own tag and length around a report.
const ENVELOPE_BYTES: usize = 64;
/// Of a report in memory: the largest that an agent makes, of 16,384 endpoints, takes
/// less.  More is rejected before it is decoded.
const DECODED_BYTES_MAX: u64 = 96 << 20;
/// The message itself, its canonical encoding and the compressed one are there at once.
const COPIES: u64 = 3;
/// How often room is looked for, and after which time again: within the five seconds
/// that an agent waits for an answer.
const ROOM_TRIES: u32 = 30;
const ROOM_PAUSE: Duration = Duration::from_millis(100);
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
    pub(crate) budget: Budget,
    pub(crate) rates: Arc<HostRates>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) stopping: Stopping,
}

/// What is answered on one stream.
pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send + 'static>>;

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
    pub(super) fn into_server(self) -> ExportServer {
        ExportServer {
            ingest: Arc::new(self),
            bytes_max: REPORT_BYTES_MAX + ENVELOPE_BYTES,
        }
    }

    fn authenticate(
        &self,
        request: &Request<Streaming<EncodedExportRequest>>,
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
                        "{max} streams are already open with this token or certificate: close \
                         some, or try again later"
                    ))
                })?)
            }
        };
        let place = take_place(&self.stats, |s| &s.streams_active, STREAMS_MAX);
        let place = place.ok_or_else(|| {
            refuse(format!(
                "{STREAMS_MAX} agents are already connected: try again later"
            ))
        })?;
        Ok((place, own))
    }

    /// Reads requests until the sender ends, breaks or the collector stops.
    async fn read(
        self,
        mut requests: Streaming<EncodedExportRequest>,
        mut grant: WriteGrant,
        holder: Arc<str>,
        pending: mpsc::Sender<Pending>,
        _place: (Place, Option<StreamPlace>),
    ) {
        let mut stopping = self.stopping.clone();
        loop {
            let next = tokio::select! {
                next = requests.next() => next,
                () = stopped(&mut stopping) => {
                    let goodbye = Status::unavailable("the collector is stopping: reconnect later");
                    drop(pending.send(Pending::Broken(goodbye)).await);
                    return;
                }
            };
            let answer = match next {
                Some(Ok(request)) => self.take(request.report, &mut grant, &holder).await,
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
        if status.code() == Code::ResourceExhausted {
            self.stats.refuse(Refusal::Memory, peer, &status.message());
            return;
        }
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
                "a report stream was interrupted: the agent reconnects and resends unacknowledged \
                 reports"
            );
        }
    }

    async fn take(&self, message: Bytes, grant: &mut WriteGrant, holder: &Arc<str>) -> Pending {
        let held = match self.room_for(&message, holder, grant.peer()).await {
            Ok(held) => held,
            Err(pending) => return pending,
        };
        let incoming = self.read_report(&message, grant, held);
        // What was received and decoded is gone before the writer is waited for.
        drop(message);
        let incoming = match incoming {
            Ok(incoming) => incoming,
            Err(pending) => return pending,
        };
        let (epoch, sequence) = (incoming.agent.epoch, incoming.sequence);
        match self.writer.submit(incoming).await {
            Ok(answered) => Pending::Committing {
                epoch,
                sequence,
                answered,
            },
            Err(error) => Pending::Broken(self.status(&error, grant.peer())),
        }
    }

    /// A report that keeps to all rules, as it is stored.
    fn read_report(
        &self,
        message: &Bytes,
        grant: &mut WriteGrant,
        mut held: Held,
    ) -> Result<Incoming, Pending> {
        let peer = grant.peer().clone();
        let report =
            v1::Report::decode(&**message).map_err(|error| self.unreadable(&error, &peer))?;
        if let Err(invalid) = validate::report(&report) {
            let epoch = report.agent.as_ref().map_or(0, |agent| agent.epoch);
            return Err(self.rejected(epoch, report.sequence, invalid.to_string(), &peer));
        }
        let host = report.host.as_ref().map_or("", |host| host.id.as_str());
        let granted = self.granted(grant, host);
        granted
            .and_then(|()| self.allow(&report, &peer))
            .map_err(Pending::Broken)?;
        let body = codec::encode(&report).map_err(|error| {
            Pending::Broken(self.status(&WriteError::Failed(error.to_string()), &peer))
        })?;
        held.shrink(body.len() as u64);
        let facts = Facts::from(&report);
        Ok(Incoming {
            host: report.host.unwrap_or_default(),
            agent: report.agent.unwrap_or_default(),
            sequence: report.sequence,
            window_end_ns: report.window_end_unix_ns,
            received_ns: unix_ns(),
            steady_ns: steady_ns(),
            body: body.into(),
            facts,
            _held: held,
        })
    }

    /// Room for a report, before it is decoded; where many come at once, it is waited
    /// for.
    async fn room_for(
        &self,
        message: &Bytes,
        holder: &Arc<str>,
        peer: &Peer,
    ) -> Result<Held, Pending> {
        let decoded = codec::decoded_bytes(message)
            .ok_or_else(|| self.unreadable(&"it is not a report of the protocol", peer))?;
        if decoded > DECODED_BYTES_MAX {
            let identity = Identity::decode(&**message).unwrap_or_default();
            let epoch = identity.agent.map_or(0, |agent| agent.epoch);
            let words = format!(
                "the report takes {} MiB of memory, more than {}: it has too many entries",
                decoded >> 20,
                DECODED_BYTES_MAX >> 20
            );
            return Err(self.rejected(epoch, identity.sequence, words, peer));
        }
        let bytes = decoded + COPIES * message.len() as u64;
        let mut room = self.budget.take(Use::Messages, holder, bytes);
        for _ in 0..ROOM_TRIES {
            if room.is_ok() {
                break;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
            room = self.budget.take(Use::Messages, holder, bytes);
        }
        room.map_err(|exhausted| {
            self.stats.refuse(Refusal::Memory, peer, &exhausted);
            Pending::Broken(Status::resource_exhausted(exhausted.to_string()))
        })
    }

    fn rejected(&self, epoch: u64, sequence: u64, message: String, peer: &Peer) -> Pending {
        self.stats.refuse(Refusal::Invalid, peer, &message);
        Pending::Rejected(ExportResponse {
            epoch,
            sequence,
            outcome: ExportOutcome::Rejected.into(),
            message,
        })
    }

    fn unreadable(&self, why: &dyn std::fmt::Display, peer: &Peer) -> Pending {
        self.stats.refuse(Refusal::Invalid, peer, why);
        Pending::Broken(Status::invalid_argument(format!("invalid report: {why}")))
    }

    /// The stream ends and the sender's spool waits: a report under the wrong
    /// right is not lost, as a rejected one would be.
    fn granted(&self, grant: &mut WriteGrant, host: &str) -> Result<(), Status> {
        self.access.allows(grant, host).map_err(|denied| {
            let words = format!("reports of the host {host:?} are rejected: {denied}");
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
        const WHY: &str = "rate limit for one host exceeded: send again later";
        self.stats.refuse(Refusal::Rate, peer, &WHY);
        Err(Status::resource_exhausted(WHY))
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

impl Ingest {
    /// Begins a stream.
    pub(super) fn export(
        &self,
        request: Request<Streaming<EncodedExportRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let grant = self.authenticate(&request)?;
        let place = self.place(&grant)?;
        let peer = grant.peer().clone();
        let holder = grant.holder().map(|(holder, _)| holder.into());
        let holder = holder.unwrap_or_else(|| peer.name());
        let (pending, queue) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(
            self.clone()
                .read(request.into_inner(), grant, holder, pending, place),
        );
        let ingest = self.clone();
        let answers = ReceiverStream::new(queue).then(move |pending| {
            let (ingest, peer) = (ingest.clone(), peer.clone());
            async move { ingest.answer(pending, &peer).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
