//! One stream to the collector, from its connection to its end.

use std::{sync::atomic::Ordering, time::Duration};

use monitor_proto::{AUTHORIZATION, EXPORT, EncodedExportRequest, v1};
use prost::Message as _;
use tokio::{
    sync::mpsc::{Sender, channel, error::TrySendError},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Delivery, DeliveryError, Destination, TIMEOUT, lock, session::Session};
use daemon::clock;
use spool::{Pending, Settled};

/// Reports between the spool and the connection's own buffer.
const SENDING_MAX: usize = 4;

/// How long the collector may take to end its side of a stream.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// An acknowledgement is small.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// What is under way, and since when nothing of it was answered.
struct InFlight {
    session: Session,
    // When the last one was answered, or the first one sent after a pause.
    progress_at: Instant,
}

impl InFlight {
    fn sent(&mut self, pending: &Pending) {
        if self.session.is_answered() {
            self.progress_at = Instant::now();
        }
        self.session.sent(pending);
    }
}

impl Delivery {
    /// Delivers over one stream.  Ends well only when it was told to stop and
    /// nothing waits any more.
    pub(super) async fn stream(&mut self) -> Result<(), DeliveryError> {
        self.destination.mark_unchanged();
        let channel = self.connect().await?;
        let (sender, receiver) = tokio_channel();
        let request = self.request(ReceiverStream::new(receiver));
        let mut in_flight = InFlight {
            session: Session::begin(&mut lock(&self.spool)),
            progress_at: Instant::now(),
        };
        // A collector may answer the stream itself only after its first report.
        let mut waiting = self.fill(&sender, &mut in_flight, None)?;
        let mut responses = export(channel, request).await?;
        loop {
            if *self.stop.borrow() && self.pending() == 0 {
                // The collector sees a stream that ended, not one that broke.
                drop(sender);
                timeout(CLOSE_TIMEOUT, responses.message()).await.ok();
                return Ok(());
            }
            waiting = self.fill(&sender, &mut in_flight, waiting)?;
            self.step(&mut responses, &sender, &mut in_flight).await?;
        }
    }

    /// A stream without a report: what the collector has against this agent it says
    /// all the same.
    pub(super) async fn greet(&mut self) -> Result<(), DeliveryError> {
        let channel = self.connect().await?;
        let request = self.request(tokio_stream::empty());
        export(channel, request).await.map(drop)
    }

    fn request<T>(&self, reports: T) -> Request<T> {
        let mut request = Request::new(reports);
        if let Some(token) = self.destination.borrow().token.authorization() {
            request.metadata_mut().insert(AUTHORIZATION, token);
        }
        request
    }

    async fn connect(&self) -> Result<Channel, DeliveryError> {
        let Destination { collector, tls, .. } = self.destination.borrow().clone();
        let endpoint = match tls {
            Some(tls) => tls.endpoint(&collector)?,
            None => Endpoint::from(collector),
        };
        let connected = timeout(TIMEOUT, endpoint.connect_timeout(TIMEOUT).connect()).await;
        let connected = connected.map_err(|_| DeliveryError::Timeout)?;
        connected.map_err(DeliveryError::Connect)
    }

    /// Sends as much as there is room for without waiting; gives back a report
    /// that was read and found none.
    fn fill(
        &self,
        sender: &Sender<EncodedExportRequest>,
        in_flight: &mut InFlight,
        mut waiting: Option<Pending>,
    ) -> Result<Option<Pending>, DeliveryError> {
        loop {
            let next = match waiting.take() {
                Some(pending) => Some(pending),
                None => in_flight.session.next(&mut lock(&self.spool))?,
            };
            let Some(pending) = next else {
                return Ok(None);
            };
            let permit = match sender.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return Ok(Some(pending)),
                Err(TrySendError::Closed(())) => return Err(DeliveryError::Closed),
            };
            in_flight.sent(&pending);
            // As the spool has it: where that is no report, the collector says so.
            permit.send(EncodedExportRequest {
                report: pending.report.into(),
            });
        }
    }

    /// Gives the oldest report up where it is none: every stream would begin with it,
    /// and end.  Whether it was so.
    pub(super) fn discard_unreadable(&self, error: &DeliveryError) -> bool {
        // Internal is what a collector says that leaves decoding to gRPC.
        let is_refused = matches!(error, DeliveryError::Status(status)
            if matches!(status.code(), Code::InvalidArgument | Code::Internal));
        if !is_refused {
            return false;
        }
        let mut spool = lock(&self.spool);
        spool.rewind();
        match spool.read_next() {
            Ok(Some(oldest)) if v1::Report::decode(&*oldest.report).is_err() => {
                spool.discard(oldest.key);
                true
            }
            // Where it cannot be read now, the next stream tells.
            Ok(_) | Err(_) => false,
        }
    }

    /// Waits for the next thing to happen.
    async fn step(
        &mut self,
        responses: &mut Streaming<v1::ExportResponse>,
        sender: &Sender<EncodedExportRequest>,
        in_flight: &mut InFlight,
    ) -> Result<(), DeliveryError> {
        let deadline = in_flight.progress_at + TIMEOUT;
        let full = sender.capacity() == 0;
        tokio::select! {
            response = responses.message() => {
                let response = response.map_err(status)?.ok_or(DeliveryError::Closed)?;
                self.take(&response, in_flight)
            }
            () = sleep_until(deadline), if !in_flight.session.is_answered() => {
                Err(DeliveryError::Timeout)
            }
            // Room for the next report; it is given back at once and filled.
            permit = sender.reserve(), if full => {
                permit.map(drop).map_err(|_| DeliveryError::Closed)
            }
            () = self.wake.notified() => Ok(()),
            Ok(()) = self.destination.changed() => Err(DeliveryError::Reloaded),
            changed = self.stop.changed() => changed.map_err(|_| DeliveryError::Closed),
        }
    }

    fn take(
        &self,
        response: &v1::ExportResponse,
        in_flight: &mut InFlight,
    ) -> Result<(), DeliveryError> {
        let mut spool = lock(&self.spool);
        let session = &mut in_flight.session;
        let settled = session.answered(&mut spool, response, clock::unix_ms())?;
        in_flight.progress_at = Instant::now();
        if settled == Settled::Delivered {
            self.progress.delivered.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.answered();
        Ok(())
    }
}

async fn export(
    channel: Channel,
    request: Request<impl Stream<Item = EncodedExportRequest> + Send + 'static>,
) -> Result<Streaming<v1::ExportResponse>, DeliveryError> {
    let mut client = Grpc::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
    let exported = async {
        client
            .ready()
            .await
            .map_err(|error| tonic::Status::unknown(format!("Service was not ready: {error}")))?;
        let path = PathAndQuery::from_static(EXPORT);
        client.streaming(request, path, ProstCodec::default()).await
    };
    let answer = timeout(TIMEOUT, exported).await;
    let answer = answer.map_err(|_| DeliveryError::Timeout)?;
    Ok(answer.map_err(no_answer)?.into_inner())
}

fn tokio_channel() -> (
    Sender<EncodedExportRequest>,
    tokio::sync::mpsc::Receiver<EncodedExportRequest>,
) {
    channel(SENDING_MAX)
}

/// Of a connection that was just made: a status that nobody sent has its cause here,
/// and one without gRPC's own fields is of another program.
fn no_answer(status: tonic::Status) -> DeliveryError {
    let is_own = std::error::Error::source(&status).is_some();
    if is_own || status.message().contains("grpc-status header missing") {
        DeliveryError::NoGrpc(Box::new(status))
    } else {
        self::status(status)
    }
}

fn status(status: tonic::Status) -> DeliveryError {
    DeliveryError::Status(Box::new(status))
}
