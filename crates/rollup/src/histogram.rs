//! Adding histograms up.

use monitor_proto::v1::Histogram;

/// More buckets than any histogram within 1 µs to 1 h has, at any usual scale.
const BUCKETS_MAX: usize = 4096;

/// Adds `other` to `sum`.  Where their scales differ, the finer one is made
/// coarser, which moves no value across a boundary; so are both where they lie so
/// far apart that the sum would have too many buckets.
pub(super) fn merge(sum: &mut Histogram, other: &Histogram) {
    if other.buckets.is_empty() {
        return;
    }
    if sum.buckets.is_empty() {
        *sum = other.clone();
        return;
    }
    if sum.scale == other.scale && length(sum, other) <= BUCKETS_MAX {
        add(sum, other);
        return;
    }
    let mut other = other.clone();
    let scale = sum.scale.min(other.scale);
    coarsen(sum, scale);
    coarsen(&mut other, scale);
    // Each round halves it.
    while length(sum, &other) > BUCKETS_MAX {
        let scale = sum.scale - 1;
        coarsen(sum, scale);
        coarsen(&mut other, scale);
    }
    add(sum, &other);
}

/// The buckets of a sum of two histograms of the same scale.
fn length(a: &Histogram, b: &Histogram) -> usize {
    let first = i64::from(a.offset.min(b.offset));
    let end = |h: &Histogram| i64::from(h.offset) + h.buckets.len() as i64;
    usize::try_from(end(a).max(end(b)) - first).unwrap_or(usize::MAX)
}

/// Adds a histogram of the same scale.  An answer adds tens of thousands, most
/// of them within the buckets that are there already.
fn add(sum: &mut Histogram, other: &Histogram) {
    let length = length(sum, other);
    let first = sum.offset.min(other.offset);
    let below_first = |h: &Histogram| usize::try_from(i64::from(h.offset) - i64::from(first));
    let (before, from) = (
        below_first(sum).unwrap_or(0),
        below_first(other).unwrap_or(0),
    );
    sum.buckets.splice(..0, std::iter::repeat_n(0, before));
    sum.buckets.resize(length, 0);
    for (to, n) in sum.buckets[from..].iter_mut().zip(&other.buckets) {
        *to = to.saturating_add(*n);
    }
    sum.offset = first;
    sum.count = sum.count.saturating_add(other.count);
    sum.sum_ns = sum.sum_ns.saturating_add(other.sum_ns);
}

/// Each step joins the buckets 2i and 2i + 1.
fn coarsen(h: &mut Histogram, scale: i32) {
    while h.scale > scale {
        let offset = h.offset.div_euclid(2);
        let mut buckets: Vec<u64> = Vec::with_capacity(h.buckets.len() / 2 + 1);
        for (index, &n) in (h.offset..).zip(&h.buckets) {
            let to = usize::try_from(index.div_euclid(2) - offset).unwrap_or(0);
            if to >= buckets.len() {
                buckets.push(0);
            }
            buckets[to] = buckets[to].saturating_add(n);
        }
        h.offset = offset;
        h.buckets = buckets;
        h.scale -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(scale: i32, offset: i32, buckets: &[u64]) -> Histogram {
        Histogram {
            count: buckets.iter().sum(),
            sum_ns: 10,
            scale,
            offset,
            buckets: buckets.to_vec(),
        }
    }

    #[test]
    fn buckets_are_added_where_they_are() {
        let mut sum = histogram(2, -40, &[1, 2]);
        merge(&mut sum, &histogram(2, -42, &[5, 0, 7]));
        assert_eq!((sum.offset, sum.buckets), (-42, vec![5, 0, 8, 2]));
        assert_eq!((sum.count, sum.sum_ns), (15, 20));
    }

    #[test]
    fn a_finer_histogram_is_made_coarser() {
        let mut sum = histogram(1, -20, &[1]);
        merge(&mut sum, &histogram(2, -41, &[1, 2, 4]));
        // At scale 1 the indices -41, -40, -39 are -21, -20, -20.
        assert_eq!((sum.scale, sum.offset, sum.buckets), (1, -21, vec![1, 7]));
    }

    #[test]
    fn far_apart_ranges_cost_little_memory_and_no_value() {
        let mut sum = histogram(2, -100_000, &[1]);
        merge(&mut sum, &histogram(2, 100_000, &[1]));
        assert!(sum.buckets.len() <= BUCKETS_MAX, "{}", sum.buckets.len());
        assert_eq!((sum.count, sum.buckets.iter().sum::<u64>()), (2, 2));
        assert_eq!(sum.scale, -4);
    }
}
