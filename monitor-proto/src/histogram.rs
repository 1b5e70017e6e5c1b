//! The arithmetic of base-2 exponential histograms.
//!
//! Boundaries and their upper-inclusive rule are those of the OpenTelemetry
//! data model ("Exponential Histogram") and of Prometheus' native histograms:
//! bucket `i` holds the values above `base^i` and not above `base^(i+1)`
//! seconds, with `base = 2^(2^-scale)`.

use crate::v1::Histogram;

/// The upper boundary of the bucket with this absolute index, in seconds.
#[must_use]
pub fn upper_bound_seconds(scale: i32, index: i32) -> f64 {
    ((f64::from(index) + 1.0) * (-f64::from(scale)).exp2()).exp2()
}

/// The value in seconds below which the share `q` (0 to 1) of the values lies;
/// `None` where there is no value.
///
/// Within a bucket the values are taken as spread evenly on the logarithmic
/// scale, as Prometheus' `histogram_quantile` does for native histograms, so
/// the result is off by at most the bucket's width (19 % at scale 2).
#[must_use]
pub fn quantile_seconds(histogram: &Histogram, q: f64) -> Option<f64> {
    let in_buckets = histogram
        .buckets
        .iter()
        .fold(0u64, |sum, &n| sum.saturating_add(n));
    if in_buckets == 0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * in_buckets as f64;
    let mut below = 0u64;
    let mut found = None;
    for (i, &n) in (0i32..).zip(&histogram.buckets) {
        if n == 0 {
            continue;
        }
        let fraction = ((rank - below as f64) / n as f64).clamp(0.0, 1.0);
        let exponent = f64::from(histogram.offset.saturating_add(i)) + fraction;
        found = Some((exponent * (-f64::from(histogram.scale)).exp2()).exp2());
        below = below.saturating_add(n);
        if below as f64 >= rank {
            break;
        }
    }
    found
}

/// Leaves out empty buckets at both ends, moving `offset` along.
pub fn trim(histogram: &mut Histogram) {
    while histogram.buckets.last() == Some(&0) {
        histogram.buckets.pop();
    }
    let leading = histogram.buckets.iter().take_while(|&&n| n == 0).count();
    histogram.buckets.drain(..leading);
    histogram.offset = if histogram.buckets.is_empty() {
        0
    } else {
        histogram
            .offset
            .saturating_add(i32::try_from(leading).unwrap_or(i32::MAX))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(offset: i32, buckets: &[u64]) -> Histogram {
        Histogram {
            count: buckets.iter().fold(0, |sum, &n| sum.saturating_add(n)),
            sum_ns: 0,
            scale: 2,
            offset,
            buckets: buckets.to_vec(),
        }
    }

    #[test]
    fn boundaries_are_the_fourth_roots_of_two() {
        assert!((upper_bound_seconds(2, -1) - 1.0).abs() < f64::EPSILON);
        assert!((upper_bound_seconds(2, 3) - 2.0).abs() < f64::EPSILON);
        assert!((upper_bound_seconds(2, -5) - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let h = histogram(-40, &[90, 9, 1]);
        let p50 = quantile_seconds(&h, 0.5).unwrap();
        assert!(p50 > upper_bound_seconds(2, -41) && p50 <= upper_bound_seconds(2, -40));
        let p99 = quantile_seconds(&h, 0.99).unwrap();
        assert!(p99 > upper_bound_seconds(2, -40) && p99 <= upper_bound_seconds(2, -39));
        assert_eq!(quantile_seconds(&h, 1.0), Some(upper_bound_seconds(2, -38)));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(quantile_seconds(&histogram(0, &[]), 0.5), None);
    }

    #[test]
    fn hostile_counts_and_offsets_are_taken() {
        let h = histogram(i32::MAX, &[u64::MAX, u64::MAX]);
        assert!(quantile_seconds(&h, 0.99).is_some());
        assert!(upper_bound_seconds(2, i32::MAX).is_infinite());
    }

    #[test]
    fn trimming_keeps_every_bucket_where_it_is() {
        let mut h = histogram(-80, &[0, 0, 3, 0, 4, 0]);
        trim(&mut h);
        assert_eq!(
            (h.offset, h.buckets.as_slice()),
            (-78, [3, 0, 4].as_slice())
        );
        let mut empty = histogram(-80, &[0, 0]);
        trim(&mut empty);
        assert_eq!((empty.offset, empty.buckets.len()), (0, 0));
    }
}
