//! Endpoints of different targets may have one name or address; where a report
//! has several targets, each endpoint is shown with its own.

use monitor_proto::json::Report;

/// Whether a report is of more than one target.
pub(crate) fn several(report: &Report) -> bool {
    let mut targets = report.endpoints.iter().map(|e| &e.target);
    let first = targets.next();
    report.targets.len() > 1 || targets.any(|target| Some(target) != first)
}
