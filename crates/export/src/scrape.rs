//! What `/metrics` says of a host, made once for each report.

use std::sync::{Arc, PoisonError};

use budget::{Exhausted, Held};
use store::HostState;

use crate::metrics::{HostSample, ReportSeries};

#[derive(Debug)]
struct Cached {
    up: bool,
    last_seen_ns: u64,
    series: Arc<ReportSeries>,
}

/// A host's last report came at another time only if the clock was set by more: read
/// one after the other, two clocks are never quite as far apart as before.
const SAME_NS: u64 = 1_000_000_000;

/// The series of a host now: its newest report is decoded once for them.  `None`, said
/// in the log, where it is unreadable.
pub fn report_series(
    host: &HostState,
    (now_ns, steady_ns): (u64, u64),
    mut room: Held,
) -> Result<Option<Arc<ReportSeries>>, Exhausted> {
    let up = !host.row.silent(steady_ns);
    let last_seen_ns = host.row.last_seen_ns(now_ns, steady_ns);
    let same = |last: &&Cached| last.up == up && last.last_seen_ns.abs_diff(last_seen_ns) < SAME_NS;
    let mut derived = host.derived.lock().unwrap_or_else(PoisonError::into_inner);
    let last = derived.as_ref().and_then(|last| last.downcast_ref());
    if let Some(last) = last.filter(same) {
        return Ok(Some(Arc::clone(&last.series)));
    }
    let Some(report) = host.report(&mut room)? else {
        return Ok(None);
    };
    let summary = host.summary_at(now_ns, steady_ns);
    let series = ReportSeries::of(&HostSample::new(report, summary, up));
    room.resize(series.bytes())?;
    let series = Arc::new(series.in_room(room));
    *derived = Some(Box::new(Cached {
        up,
        last_seen_ns,
        series: Arc::clone(&series),
    }));
    Ok(Some(series))
}

#[cfg(test)]
mod tests {
    use budget::{Budget, Use};
    use monitor_proto::v1;
    use store::{Facts, Fleet, HostRow, Newest, codec};

    use super::*;

    #[test]
    fn figures_are_made_anew_where_the_clock_was_set_and_only_there() {
        let fleet = Fleet::default();
        let newest = Newest {
            host: v1::Host::default(),
            agent: v1::Agent::default(),
            window_end_ns: 0,
            body: codec::encode(&v1::Report::default()).unwrap().into(),
            facts: Facts::default(),
        };
        fleet.publish(HostRow::of_test(1, "id-1"), Some(newest));
        let state = fleet.all().remove(0);
        let budget = Budget::new(64 << 20);
        let at = |clocks| {
            let room = budget.open(Use::Scrapes, &"".into());
            report_series(&state, clocks, room).unwrap().unwrap()
        };
        const S: u64 = 1_000_000_000;
        let first = at((5 * S, 5 * S));
        assert!(Arc::ptr_eq(&first, &at((6 * S, 6 * S))));
        let set = at((3600 * S, 7 * S));
        assert!(!Arc::ptr_eq(&first, &set));
        assert!(Arc::ptr_eq(&set, &at((3601 * S + 9, 8 * S))));
        let back = at((9 * S, 9 * S));
        assert!(!Arc::ptr_eq(&set, &back));
    }
}
