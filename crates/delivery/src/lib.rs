//! Brings the spool's reports to the collector.
//!
//! One stream; every report is answered in order.  Whatever the collector does
//! (refuse, stall, close, answer nonsense), the reports stay in the spool, the
//! stream is made anew after a while, and everything unanswered is sent again:
//! to the collector that is a duplicate.

mod advice;
pub mod backoff;
pub mod otlp;
pub mod session;
mod stream;
mod tls;
pub mod token;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use daemon::once_a_minute;
use spool::{Spool, SpoolError};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tonic::transport::Uri;

use crate::token::Token;

pub use tls::{Tls, TlsError};

/// The longest that a connection, or the next acknowledgement, may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How many reports may be under way at once.
pub const REPORTS_MAX: usize = 100;

/// How many bytes of reports may be under way at once.
pub const REPORTS_BYTES_MAX: usize = 8 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No connection.
    #[error(
        "the collector cannot be reached{}",
        advice::advice(.0).map(|advice| format!("; {advice}")).unwrap_or_default()
    )]
    Connect(#[source] tonic::transport::Error),
    /// What listens there did not answer as gRPC does.
    #[error(
        "what listens there does not speak gRPC, or ended the connection: --collector wants the \
         collector's gRPC port (7600 by default, not its HTTP port), and https:// where \
         it takes TLS"
    )]
    NoGrpc(#[source] Box<tonic::Status>),
    /// No connection, or no acknowledgement, in time.
    #[error("the collector did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The collector answered with a status.
    #[error("the collector answered {:?}: {}", .0.code(), .0.message())]
    Status(#[source] Box<tonic::Status>),
    /// The collector closed the stream.
    #[error("the collector closed the stream")]
    Closed,
    /// The collector acknowledged something else than the oldest report.
    #[error("the collector answered for a report that was not its turn")]
    OutOfTurn,
    /// The collector acknowledged a report without saying what became of it.
    #[error("the collector did not say what became of a report")]
    NoOutcome,
    /// The agent was told to connect anew.
    #[error("the agent connects anew")]
    Reloaded,
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A receiver of OTLP took nothing.
    #[error("the OTLP receiver did not take a report: {0}")]
    Otlp(String),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What became of the reports, for `status`; what was lost of them the spool counts.
#[derive(Debug, Default)]
pub struct Progress {
    /// Stored by the collector, or found there.
    pub delivered: AtomicU64,
    /// Whether the last attempt was answered.
    pub connected: AtomicBool,
    last_error: Mutex<Option<String>>,
    report_error: Mutex<Option<String>>,
}

impl Progress {
    /// Why reports are not made, or not delivered; `None` where both are.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let errors = [&self.report_error, &self.last_error].map(|error| lock(error).clone());
        errors
            .into_iter()
            .flatten()
            .reduce(|a, b| format!("{a}; {b}"))
    }

    /// A report was made, or was not.
    pub fn reported(&self, error: Option<&(dyn std::error::Error + 'static)>) {
        *lock(&self.report_error) = error.map(daemon::error_chain);
    }

    pub(crate) fn answered(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) {
            tracing::info!("the collector is accepting reports");
            *lock(&self.last_error) = None;
        }
    }

    /// Tells a failure.
    pub(crate) fn failed(&self, error: &DeliveryError) {
        let text = daemon::error_chain(error);
        self.connected.store(false, Ordering::Relaxed);
        if once_a_minute(&text) {
            tracing::warn!(error = text, "reports wait in the spool");
        } else {
            tracing::debug!(error = text, "reports still wait in the spool");
        }
        *lock(&self.last_error) = Some(text);
    }
}

/// The spool, as the reporter and the delivery share it.  The lock is never
/// held while anyone waits for the network.
pub type SharedSpool = Arc<Mutex<Spool>>;

/// Locks something whose statements cannot be interrupted half-way by a panic.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where reports go, and by what right.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where to.
    pub collector: Uri,
    /// How, where the collector takes only TLS.
    pub tls: Option<Tls>,
    /// What the collector asks for.
    pub token: Token,
}

/// The delivery's ends.
#[derive(Debug)]
pub struct Delivery {
    /// Where to; another one, or the same again, ends the stream for a new one.
    pub destination: watch::Receiver<Destination>,
    /// Where reports are.
    pub spool: SharedSpool,
    /// Told whenever there is a new one.
    pub wake: Arc<Notify>,
    /// What became of them.
    pub progress: Arc<Progress>,
    /// True when what is there should be brought away and nothing else.
    pub stop: watch::Receiver<bool>,
}

impl Delivery {
    /// Delivers until told to stop, and then until nothing waits any more or
    /// the collector cannot be had.
    pub async fn run(mut self) {
        self.introduce().await;
        let mut failures = 0;
        loop {
            if !self.wait_for_work().await {
                return;
            }
            let delivered = self.progress.delivered.load(Ordering::Relaxed);
            let Err(error) = self.stream().await else {
                return;
            };
            if matches!(error, DeliveryError::Reloaded) {
                continue;
            }
            self.progress.failed(&error);
            let discarded = self.discard_unreadable(&error);
            if *self.stop.borrow() {
                return;
            }
            let went_well =
                discarded || self.progress.delivered.load(Ordering::Relaxed) > delivered;
            failures = if went_well { 1 } else { failures + 1 };
            let pause = backoff::wait(failures, fastrand::f64());
            // Told to stop, or where to, one more attempt is made at once.
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
                Ok(()) = self.destination.changed() => failures = 0,
            }
        }
    }

    /// Tries the collector before there is a report, so that a wrong address or token
    /// is told at the start.
    async fn introduce(&mut self) {
        if self.pending() > 0 {
            return;
        }
        let (mut stop, wake) = (self.stop.clone(), Arc::clone(&self.wake));
        tokio::select! {
            answered = self.greet() => match answered {
                Ok(()) => self.progress.answered(),
                Err(error) => self.progress.failed(&error),
            },
            // What waits now is tried itself.
            () = wake.notified() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Whether there is something to deliver; false when told to stop without.
    async fn wait_for_work(&mut self) -> bool {
        loop {
            if self.pending() > 0 {
                return true;
            }
            if *self.stop.borrow() {
                return false;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                // The sender is gone when the agent ends.
                changed = self.stop.changed() => if changed.is_err() { return false },
            }
        }
    }

    fn pending(&self) -> u64 {
        lock(&self.spool).pending()
    }
}

#[cfg(test)]
mod tests;
