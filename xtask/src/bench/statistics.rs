//! Medians, quartiles and the interval of a median: a shared machine has
//! outliers, and means follow them.

/// The middle half of some figures, and how surely their median is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quartiles {
    pub(super) q1: f64,
    pub(super) median: f64,
    pub(super) q3: f64,
    /// Between these lies the true median in 95 of 100 cases; `None` of fewer
    /// than six figures, as even their extremes are not that sure.
    pub(super) interval: Option<(f64, f64)>,
}

impl Quartiles {
    /// Of at least one figure, interpolated linearly.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            q1: quantile(&figures, 0.25)?,
            median: quantile(&figures, 0.5)?,
            q3: quantile(&figures, 0.75)?,
            interval: interval(&figures),
        })
    }
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = sorted.len().checked_sub(1)? as f64 * share;
    // Between 0 and the last index.
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    let weight = position - position.floor();
    Some(sorted[below] * (1.0 - weight) + sorted[above] * weight)
}

/// The narrowest pair of figures, as far from either end, that holds the true
/// median with at least 95 %.
///
/// Every figure falls below the true median with a chance of one half, whatever
/// the distribution, so how many do is binomial.
fn interval(sorted: &[f64]) -> Option<(f64, f64)> {
    let n = sorted.len();
    // The chance that at most `skipped` figures are below, from none upwards.
    let mut chance = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut at_most = chance;
    let mut skipped = None;
    for below in 0..n / 2 {
        if at_most > 0.025 {
            break;
        }
        skipped = Some(below);
        chance *= (n - below) as f64 / (below + 1) as f64;
        at_most += chance;
    }
    let skipped = skipped?;
    Some((sorted[skipped], sorted[n - 1 - skipped]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(n: u32) -> Vec<f64> {
        (1..=n).map(f64::from).collect()
    }

    #[test]
    fn quartiles_are_interpolated_and_order_does_not_matter() {
        let quartiles = Quartiles::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert!((quartiles.q1 - 1.75).abs() < 1e-12);
        assert!((quartiles.median - 2.5).abs() < 1e-12);
        assert!((quartiles.q3 - 3.25).abs() < 1e-12);
    }

    #[test]
    fn of_nothing_there_are_none() {
        assert_eq!(Quartiles::of(Vec::new()), None);
    }

    /// The ranks that statistical tables give for the sign test at 95 %.
    #[test]
    fn intervals_are_those_of_the_tables() {
        assert_eq!(interval(&up_to(5)), None);
        assert_eq!(interval(&up_to(6)), Some((1.0, 6.0)));
        assert_eq!(interval(&up_to(10)), Some((2.0, 9.0)));
        assert_eq!(interval(&up_to(24)), Some((7.0, 18.0)));
        assert_eq!(interval(&up_to(100)), Some((40.0, 61.0)));
    }
}
