//! Medians and quartiles: a shared machine has outliers, and means follow them.

/// The middle half of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quartiles {
    pub(super) q1: f64,
    pub(super) median: f64,
    pub(super) q3: f64,
}

impl Quartiles {
    /// Of at least one figure, interpolated linearly.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            q1: quantile(&figures, 0.25)?,
            median: quantile(&figures, 0.5)?,
            q3: quantile(&figures, 0.75)?,
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
