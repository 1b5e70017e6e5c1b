//! Every bit of every kept row, flipped: figures are the true ones, or are left out
//! and told.

use std::collections::HashSet;

use budget::{Budget, Use};
use rollup::TIERS_S;
use rusqlite::Connection;
use store::flips::{HOST, each_flip, filled};

use crate::{
    endpoint_filter::HostFilter,
    series::{Metric, Plan, Samples},
    stored_series,
};

/// The samples of a metric, and whether something was left out.
fn samples(connection: &Connection, name: &str, tier_s: u64) -> (Vec<String>, bool) {
    let metric = Metric::find(name).unwrap();
    let step_s = Some(tier_s.max(10));
    let plan = Plan::try_new(metric, 3_600, 10_800, step_s).unwrap();
    let room = Budget::new(1 << 30).open(Use::Answers, &"a test".into());
    let hosts = [(HOST, HostFilter::default())];
    let found = stored_series::read(connection, &hosts, &plan, room).unwrap();
    let told = !found.reading.partial().is_empty();
    let of_series = |samples: &Samples| match samples {
        Samples::Host(samples) if samples.is_empty() => None,
        samples => Some(format!("{samples:?}")),
    };
    let series = found.series.iter();
    let samples =
        series.filter_map(|one| Some(format!("{:?} {}", one.endpoint, of_series(&one.samples)?)));
    (samples.collect(), told)
}

#[test]
fn no_flipped_bit_gives_other_figures() {
    let whole = filled();
    let metrics = [
        "cpu_usage",
        "bytes_sent",
        "exchange_duration_p99",
        "connect_duration_p50",
    ];
    let tables = [
        "reports",
        "hosts",
        "endpoints",
        "endpoint_rolls",
        "host_rolls",
    ];
    // Of reports, of minutes, of hours.
    let tiers = [10, TIERS_S[0], TIERS_S[1]];
    for table in tables {
        let silent = std::cell::RefCell::new(HashSet::new());
        let flips = each_flip(table, |connection, place| {
            for metric in metrics {
                for tier_s in tiers {
                    let (truth, _) = samples(&whole, metric, tier_s);
                    let (read, told) = samples(connection, metric, tier_s);
                    assert!(!truth.is_empty());
                    assert!(
                        read.iter().all(|one| truth.contains(one)),
                        "{place}: {read:?}"
                    );
                    if read.len() < truth.len() && !told {
                        silent
                            .borrow_mut()
                            .insert(place.split(',').next().unwrap().to_owned());
                    }
                }
            }
        });
        assert!(flips > 250, "{table}: {flips}");
        // A row that is under another key is not found, as if it were not kept: a gap.
        for place in silent.into_inner() {
            let (_, column) = place.split_once('.').unwrap();
            let keys = [
                "tier_s",
                "endpoint",
                "host",
                "start_s",
                "key",
                "window_end_ns",
            ];
            assert!(keys.contains(&column), "{place}");
        }
    }
}
