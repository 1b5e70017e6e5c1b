//! Brings the spool's reports to a receiver of OTLP, in place of a collector.
//!
//! One report at a time, oldest first; it is acknowledged in the spool once the
//! receiver took it or said that it never will.  What a receiver never takes is
//! counted among the losses of later reports, as what a collector rejects.

use std::{
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use daemon::once_a_minute;
use monitor_otlp::{Answer, Client, ClientError, Headers, OtlpUrl};
use monitor_proto::v1;
use prost::Message;
use spool::{Pending, Settled};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

use crate::{DeliveryError, Progress, SharedSpool, backoff, lock};

/// Why the delivery cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No thread for it.
    #[error("the operating system refuses a thread for OTLP")]
    Thread(#[source] io::Error),
}

/// The delivery's ends, as those of the delivery to a collector.
#[derive(Debug)]
pub struct OtlpDelivery {
    requests: mpsc::Sender<Request>,
    spool: SharedSpool,
    wake: Arc<Notify>,
    progress: Arc<Progress>,
    stop: watch::Receiver<bool>,
}

/// What the sending thread is asked: a request, and where its answer goes.
type Request = (Vec<u8>, oneshot::Sender<Answer>);

/// Why the delivery goes no further.
enum Ended {
    /// It was told to stop, and the receiver does not take reports now.
    Stopped,
    /// The spool cannot be read or written.
    Spool(DeliveryError),
}

impl OtlpDelivery {
    /// Starts the thread that sends; nothing is sent yet.
    ///
    /// # Errors
    /// Where the system refuses what it needs.
    pub fn start(
        url: OtlpUrl,
        headers: Headers,
        spool: SharedSpool,
        wake: Arc<Notify>,
        progress: Arc<Progress>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, OtlpError> {
        let mut client = Client::new(url, headers)?;
        let (requests, queue) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                while let Ok((body, answer)) = queue.recv() {
                    // Who asked may have gone away meanwhile.
                    answer.send(client.send(&body)).ok();
                }
            })
            .map_err(OtlpError::Thread)?;
        Ok(Self {
            requests,
            spool,
            wake,
            progress,
            stop,
        })
    }

    /// Delivers until told to stop, and then until nothing waits any more or
    /// the receiver cannot be had.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.drain().await {
                Ok(()) if *self.stop.borrow() => return,
                Ok(()) => {
                    failures = 0;
                    if !self.wait_for_work().await {
                        return;
                    }
                }
                Err(Ended::Stopped) => return,
                Err(Ended::Spool(error)) => {
                    self.progress.failed(&error);
                    if *self.stop.borrow() {
                        return;
                    }
                    failures += 1;
                    self.pause(backoff::wait(failures, fastrand::f64())).await;
                }
            }
        }
    }

    /// Delivers what is there.
    async fn drain(&mut self) -> Result<(), Ended> {
        lock(&self.spool).rewind();
        loop {
            let next = lock(&self.spool).read_next();
            let Some(pending) = next.map_err(|e| Ended::Spool(e.into()))? else {
                return Ok(());
            };
            self.deliver(&pending).await?;
        }
    }

    async fn deliver(&mut self, pending: &Pending) -> Result<(), Ended> {
        let Ok(report) = v1::Report::decode(&*pending.report) else {
            lock(&self.spool).discard(pending.key);
            return Ok(());
        };
        let mut is_whole = true;
        for part in monitor_otlp::parts(&report) {
            is_whole &= self.sent(&part.body).await?;
        }
        let settled = if is_whole {
            self.progress.delivered.fetch_add(1, Ordering::Relaxed);
            Settled::Delivered
        } else {
            Settled::Rejected
        };
        // False where the report was dropped for want of room meanwhile.
        lock(&self.spool).acknowledge(pending.key, settled);
        Ok(())
    }

    /// Whether all of a request was taken; tries until it is or never will be.
    async fn sent(&mut self, body: &[u8]) -> Result<bool, Ended> {
        let mut failures = 0;
        loop {
            match self.send(body.to_vec()).await {
                Answer::Taken {
                    rejected_points: 0, ..
                } => {
                    self.progress.answered();
                    return Ok(true);
                }
                Answer::Taken {
                    rejected_points,
                    message,
                } => {
                    self.progress.answered();
                    if once_a_minute("refused points") {
                        tracing::warn!(rejected_points, message, "the receiver refused points");
                    }
                    return Ok(false);
                }
                Answer::Never { message } => {
                    self.progress.answered();
                    if once_a_minute("a refused report") {
                        tracing::warn!(message, "the receiver refused a report");
                    }
                    return Ok(false);
                }
                Answer::Later { message, after } => {
                    self.progress.failed(&DeliveryError::Otlp(message));
                    if *self.stop.borrow() {
                        return Err(Ended::Stopped);
                    }
                    failures += 1;
                    let pause = backoff::wait(failures, fastrand::f64());
                    self.pause(after.unwrap_or(pause).max(pause)).await;
                }
            }
        }
    }

    async fn send(&self, body: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        // Without the thread there is no answer either.
        self.requests.send((body, answer)).ok();
        answered.await.unwrap_or_else(|_| Answer::Later {
            message: "the thread that sends has ended".to_owned(),
            after: None,
        })
    }

    /// Told to stop, one more attempt is made at once.
    async fn pause(&mut self, pause: Duration) {
        timeout(pause, self.stop.wait_for(|stop| *stop)).await.ok();
    }

    /// False when told to stop.
    async fn wait_for_work(&mut self) -> bool {
        tokio::select! {
            () = self.wake.notified() => true,
            // The last report may have come with it.
            changed = self.stop.changed() => changed.is_ok(),
        }
    }
}
