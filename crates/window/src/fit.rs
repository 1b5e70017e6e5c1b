//! Keeps a report within the size and the number of endpoints that a collector
//! takes.
//!
//! Endpoints that find no room keep what was reported of them last: what
//! happened to them since belongs to the next report that they are in.

use std::collections::{BTreeMap, HashMap};

use monitor_proto::{REPORT_BYTES_MAX, REPORT_ENDPOINTS_MAX, v1};
use prost::Message;

use super::{
    accept_queues::AcceptQueues,
    baseline::{Baseline, Totals},
    ledger::{Ledger, Row},
    round_trips::RoundTrips,
    wire,
};
use kernel_sample::EndpointId;

use crate::names::TargetNames;

/// What is kept free for the request's framing and for what is set later.
const RESERVE_BYTES: usize = 64 << 10;

/// A tag and a length of up to 4 MiB before every endpoint.
const FRAME_BYTES: usize = 8;

/// What became of the endpoints.
pub(super) struct Reported {
    totals: Vec<(EndpointId, Totals)>,
    left_out: Vec<EndpointId>,
    /// Whether something happened to an endpoint that was left out.
    pub(super) deferred: bool,
}

impl Reported {
    /// The totals as they were reported last, of this report or of one before.
    pub(super) fn totals(self, baseline: Option<&Baseline>) -> BTreeMap<EndpointId, Totals> {
        let mut totals: BTreeMap<_, _> = self.totals.into_iter().collect();
        for id in self.left_out {
            if let Some(before) = baseline.and_then(|b| b.endpoints.get(&id)) {
                totals.insert(id, before.clone());
            }
        }
        totals
    }
}

/// What is told of endpoints beside their counters.
pub(super) struct Describe<'a> {
    /// The round-trip times that were seen.
    pub(super) round_trips: HashMap<EndpointId, RoundTrips>,
    /// The accept queues of listeners.
    pub(super) accept_queues: AcceptQueues,
    /// What the backends are called.
    pub(super) names: &'a TargetNames,
    /// Whether what level http alone counts is there.
    pub(super) http: bool,
    /// How old the live part of the byte counts is.
    pub(super) live_bytes_age_ms: u64,
}

/// Adds as many endpoints to the report as there is room for.
pub(super) fn endpoints(
    report: &mut v1::Report,
    ledger: Ledger,
    describe: &Describe<'_>,
) -> Reported {
    let mut room = REPORT_BYTES_MAX - RESERVE_BYTES;
    room = room.saturating_sub(report.encoded_len());
    let mut reported = Reported {
        totals: ledger.unwatched,
        left_out: Vec::new(),
        deferred: false,
    };
    for row in in_turn(ledger.rows, report.sequence) {
        let endpoint = endpoint(&row, describe);
        let bytes = endpoint.encoded_len() + FRAME_BYTES;
        if bytes <= room && report.endpoints.len() < REPORT_ENDPOINTS_MAX {
            room -= bytes;
            report.endpoints.push(endpoint);
            reported.totals.push((row.id, row.totals));
        } else {
            reported.deferred |= row.changed();
            reported.left_out.push(row.id);
        }
    }
    report.endpoints.sort_by(|a, b| key(a).cmp(&key(b)));
    reported
}

fn key(endpoint: &v1::Endpoint) -> (&str, i32, &str) {
    (&endpoint.target, endpoint.role, &endpoint.address)
}

/// Those to which something happened first, beginning elsewhere in every
/// report: with too many for one report, all have their turn.
fn in_turn(mut rows: Vec<Row>, sequence: u64) -> Vec<Row> {
    if !rows.is_empty() {
        let turn = (sequence.wrapping_mul(611) % rows.len() as u64) as usize;
        rows.rotate_left(turn);
    }
    rows.sort_by_key(|row| !row.changed());
    rows
}

fn endpoint(row: &Row, describe: &Describe<'_>) -> v1::Endpoint {
    let http = describe.http;
    let name = describe.names.of(&row.id);
    v1::Endpoint {
        role: wire::role(row.id.role).into(),
        address: row.id.address.to_string(),
        name: name.name,
        upstream: name.upstream,
        backend: name.backend,
        target: row.id.target.to_string(),
        connections_active: row.totals.counters.connections_active(),
        window: Some(wire::counters(&row.delta, http)),
        totals: Some(wire::counters(&row.totals.counters, http)),
        totals_since_unix_ns: row.totals.since_unix_ns,
        live_bytes_age_ms: describe.live_bytes_age_ms,
        srtt: round_trip_time(row, describe.round_trips.get(&row.id)),
        accept_queue: describe.accept_queues.of(&row.id),
    }
}

/// The kernel sums round-trip times up, so the mean is exact.
fn round_trip_time(row: &Row, seen: Option<&RoundTrips>) -> Option<v1::RoundTripTime> {
    let (sockets, sum_us) = seen.map_or((0, 0), |s| (s.sockets, s.sockets_sum_us));
    let samples = row.delta.srtt_samples + sockets;
    let mean_us = (row.delta.srtt_sum_us + sum_us).checked_div(samples)?;
    let (min_us, max_us) = seen.map_or((mean_us, mean_us), |s| (s.min_us, s.max_us));
    Some(v1::RoundTripTime {
        samples,
        min_us: min_us.min(mean_us),
        mean_us,
        max_us: max_us.max(mean_us),
    })
}
