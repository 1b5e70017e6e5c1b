//! How durations spread over time: a histogram for each step.

use monitor_proto::{histogram, json, v1};
use rollup::{EndpointRoll, Rolling};
use serde::Serialize;

use super::{Plan, Samples, steps};

/// Rows of one answer: more than 1 µs to 1 h have at scale 3.  Where there would be
/// more they are made coarser, two of them one.
const BUCKETS_MAX: usize = 512;

/// Which of an endpoint's histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    Exchange,
    Connect,
}

impl Duration {
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "exchange_duration" => Some(Self::Exchange),
            "connect_duration" => Some(Self::Connect),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange_duration",
            Self::Connect => "connect_duration",
        }
    }

    fn of(self, roll: &EndpointRoll) -> &v1::Histogram {
        match self {
            Self::Exchange => &roll.exchange_duration,
            Self::Connect => &roll.connect_duration,
        }
    }
}

/// Durations by step and bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Heat {
    /// The buckets' boundaries in seconds: one more than there are buckets.
    bounds: Vec<f64>,
    /// One a step, gaps included.
    columns: Vec<Column>,
}

/// The durations of one step.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub(super) struct Column {
    /// The step's start, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    time: String,
    /// How many durations each bucket holds; `null` where nothing was measured.
    counts: Option<Vec<u64>>,
}

/// What a heat map takes at the most, with its text.
pub fn heat_bytes(plan: &Plan) -> u64 {
    /// A sum's bucket, a count, and its text where it is small.
    const CELL_BYTES: u64 = 24;
    plan.steps_count() * BUCKETS_MAX as u64 * CELL_BYTES
}

/// Sums the histograms of several endpoints up by step.
pub fn heat<'a>(
    plan: &Plan,
    duration: Duration,
    samples: impl Iterator<Item = &'a Samples>,
) -> Heat {
    let mut sums: Vec<EndpointRoll> = plan.steps().map(|_| EndpointRoll::default()).collect();
    for one in samples {
        if let Samples::Endpoint(one) = one {
            let rolls = steps(plan, one);
            for (sum, (_, roll)) in sums.iter_mut().zip(&rolls) {
                sum.add(roll);
            }
        }
    }
    let used = |roll: &&v1::Histogram| !roll.buckets.is_empty();
    let histograms = || sums.iter().map(|roll| duration.of(roll));
    // Another version's agent may have another scale; the coarsest fits all.
    let Some(scale) = histograms().filter(used).map(|h| h.scale).min() else {
        return Heat {
            bounds: Vec::new(),
            columns: columns(plan, &sums, |_| Vec::new()),
        };
    };
    let (scale, first, width) = rows(scale, || histograms().filter(used));
    let last = first + width as i64 - 1;
    let bound =
        |i: i64| histogram::upper_bound_seconds(scale, i32::try_from(i - 1).unwrap_or(i32::MAX));
    Heat {
        bounds: (first..=last + 1).map(bound).collect(),
        columns: columns(plan, &sums, |roll| {
            let h = duration.of(roll);
            let mut counts = vec![0u64; width];
            for (i, n) in h.buckets.iter().enumerate() {
                let to = usize::try_from(row(h, i, scale) - first).ok();
                if let Some(sum) = to.and_then(|to| counts.get_mut(to)) {
                    *sum = sum.saturating_add(*n);
                }
            }
            counts
        }),
    }
}

/// In which row of this scale a bucket is.
fn row(h: &v1::Histogram, i: usize, scale: i32) -> i64 {
    let index = i64::from(h.offset) + i as i64;
    index >> (h.scale - scale).clamp(0, 62)
}

/// The scale of the answer, its first row and how many there are: what reports say
/// decides about no more than `BUCKETS_MAX`.
fn rows<'a, H>(mut scale: i32, histograms: impl Fn() -> H) -> (i32, i64, usize)
where
    H: Iterator<Item = &'a v1::Histogram>,
{
    loop {
        let ends = histograms().map(|h| (row(h, 0, scale), row(h, h.buckets.len() - 1, scale)));
        let (first, last) = ends.fold((i64::MAX, i64::MIN), |(first, last), (low, high)| {
            (first.min(low), last.max(high))
        });
        let width = usize::try_from(last - first + 1).unwrap_or(0);
        if width <= BUCKETS_MAX {
            return (scale, first, width);
        }
        // Each round halves it.
        scale -= 1;
    }
}

fn columns(
    plan: &Plan,
    sums: &[EndpointRoll],
    counts: impl Fn(&EndpointRoll) -> Vec<u64>,
) -> Vec<Column> {
    let steps = plan.steps().zip(sums);
    let column = |(start_s, roll): (u64, &EndpointRoll)| Column {
        time: json::rfc3339(start_s.saturating_mul(1_000_000_000)),
        counts: (roll.covered_ns > 0).then(|| counts(roll)),
    };
    steps.map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::Metric, *};

    fn roll(scale: i32, offset: i32, buckets: &[u64]) -> EndpointRoll {
        EndpointRoll {
            covered_ns: 5_000_000_000,
            exchange_duration: v1::Histogram {
                count: buckets.iter().sum(),
                sum_ns: 0,
                scale,
                offset,
                buckets: buckets.to_vec(),
            },
            ..EndpointRoll::default()
        }
    }

    fn plan() -> Plan {
        let metric = Metric::find("exchange_duration_p99").unwrap();
        Plan::try_new(metric, 0, 30, Some(10)).unwrap()
    }

    fn counts(heat: &Heat) -> Vec<Option<Vec<u64>>> {
        heat.columns.iter().map(|c| c.counts.clone()).collect()
    }

    #[test]
    fn endpoints_and_windows_of_a_step_are_summed_and_a_gap_stays_one() {
        let one = Samples::Endpoint(vec![(1, roll(2, -8, &[1, 2])), (6, roll(2, -7, &[5]))]);
        let other = Samples::Endpoint(vec![(2, roll(2, -6, &[7])), (25, roll(2, -8, &[9]))]);
        let heat = heat(&plan(), Duration::Exchange, [&one, &other].into_iter());
        let expected = [Some(vec![1, 7, 7]), None, Some(vec![9, 0, 0])];
        assert_eq!(counts(&heat), expected);
        assert_eq!(heat.bounds.len(), 4);
        assert!((heat.bounds[0] - 0.25).abs() < 1e-12, "2^(-8/4) s");
        assert!((heat.bounds[3] - (-1.25f64).exp2()).abs() < 1e-12);
    }

    #[test]
    fn another_scale_is_made_coarser() {
        let fine = Samples::Endpoint(vec![(1, roll(2, -8, &[1, 1, 1, 1, 1]))]);
        let coarse = Samples::Endpoint(vec![(15, roll(0, -2, &[3, 4]))]);
        let heat = heat(&plan(), Duration::Exchange, [&fine, &coarse].into_iter());
        let expected = [Some(vec![4, 1]), Some(vec![3, 4]), None];
        assert_eq!(counts(&heat), expected);
    }

    #[test]
    fn far_apart_buckets_make_few_rows_and_lose_nothing() {
        // As they were kept before reports had to be within 1 µs to 1 h.
        let low = Samples::Endpoint(vec![(1, roll(2, -100_000, &[1, 1]))]);
        let high = Samples::Endpoint(vec![(15, roll(2, 100_000, &[3]))]);
        let heat = heat(&plan(), Duration::Exchange, [&low, &high].into_iter());
        assert!(
            heat.bounds.len() <= BUCKETS_MAX + 1,
            "{}",
            heat.bounds.len()
        );
        let counts = counts(&heat);
        let sums = counts.iter().flatten().map(|column| column.iter().sum());
        assert_eq!(sums.collect::<Vec<u64>>(), [2, 3]);
    }

    #[test]
    fn nothing_measured_has_columns_but_no_buckets() {
        let heat = heat(&plan(), Duration::Connect, [].into_iter());
        assert_eq!(heat.bounds, [0.0; 0]);
        assert_eq!(counts(&heat), [None, None, None]);
    }
}
