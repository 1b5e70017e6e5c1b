//! One stream of reports and their answers: which report goes next, and what an answer
//! changes.
//!
//! Architecture invariant: no socket and no clock, so that a simulator drives the same
//! code as a connection does.

use std::collections::VecDeque;

use daemon::once_a_minute;
use monitor_proto::{ReportKey, v1};
use spool::{Pending, Settled, Spool, SpoolError};

use super::{DeliveryError, REPORTS_BYTES_MAX, REPORTS_MAX};

/// Reports that were sent and not answered yet, oldest first.
#[derive(Debug, Default)]
pub struct Session {
    reports: VecDeque<(ReportKey, usize)>,
    bytes: usize,
}

impl Session {
    /// A new stream begins with the oldest report that is not acknowledged.
    #[must_use]
    pub fn begin(spool: &mut Spool) -> Self {
        spool.rewind();
        Self::default()
    }

    /// Whether everything that was sent is answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.reports.is_empty()
    }

    /// The next report to be sent, where there is one and room for it.
    ///
    /// # Errors
    /// Where it cannot be read back.
    pub fn next(&self, spool: &mut Spool) -> Result<Option<Pending>, SpoolError> {
        if self.reports.len() < REPORTS_MAX && self.bytes < REPORTS_BYTES_MAX {
            spool.read_next()
        } else {
            Ok(None)
        }
    }

    /// This report was sent.
    pub fn sent(&mut self, pending: &Pending) {
        self.reports.push_back((pending.key, pending.report.len()));
        self.bytes += pending.report.len();
    }

    /// An answer came: the report that it is for is acknowledged.
    ///
    /// # Errors
    /// Where it is no answer for the oldest report under way, and where an epoch cannot
    /// be begun; nothing is acknowledged then.
    pub fn answered(
        &mut self,
        spool: &mut Spool,
        response: &v1::ExportResponse,
        now_unix_ms: u64,
    ) -> Result<Settled, DeliveryError> {
        let key = ReportKey {
            epoch: response.epoch,
            sequence: response.sequence,
        };
        let settled = match v1::ExportOutcome::try_from(response.outcome) {
            Ok(v1::ExportOutcome::Stored | v1::ExportOutcome::Duplicate) => Settled::Delivered,
            Ok(v1::ExportOutcome::Conflict) => Settled::Conflicting,
            Ok(v1::ExportOutcome::Rejected) => Settled::Rejected,
            Ok(v1::ExportOutcome::Unspecified) | Err(_) => return Err(DeliveryError::NoOutcome),
        };
        match self.reports.pop_front() {
            Some((oldest, bytes)) if oldest == key => self.bytes -= bytes,
            _ => return Err(DeliveryError::OutOfTurn),
        }
        match settled {
            Settled::Delivered => {}
            Settled::Conflicting => conflict(spool, key, &response.message, now_unix_ms)?,
            Settled::Rejected => {
                if once_a_minute("a report is rejected") {
                    let ReportKey { epoch, sequence } = key;
                    let why = printable(&response.message);
                    tracing::warn!(epoch, sequence, why, "the collector refused a report");
                }
            }
        }
        // False where the report was dropped for want of room meanwhile.
        spool.acknowledge(key, settled);
        Ok(settled)
    }
}

/// The collector has another report by this key, and keeps that one: what comes from
/// now on needs keys that nobody else has used.
fn conflict(
    spool: &mut Spool,
    key: ReportKey,
    message: &str,
    now_unix_ms: u64,
) -> Result<(), SpoolError> {
    if key.epoch == spool.next_key().epoch {
        spool.begin_epoch(now_unix_ms, key)?;
    }
    if once_a_minute("a report is in conflict") {
        let ReportKey { epoch, sequence } = key;
        let new_epoch = spool.next_key().epoch;
        let why = if message.is_empty() {
            "it has another report with this number".to_owned()
        } else {
            printable(message)
        };
        tracing::warn!(
            epoch,
            sequence,
            new_epoch,
            why,
            "the collector keeps an earlier report in place of this one: either the spool is an \
             older copy of itself, which a new epoch mends, or two agents report as one host: give \
             each host its own /etc/machine-id"
        );
    }
    Ok(())
}

/// What another program says, fit for a log line.
fn printable(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(200).collect()
}
