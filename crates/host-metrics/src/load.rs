//! `/proc/loadavg`.

/// The load averages over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Over one minute.
    pub avg_1: f64,
    /// Over five.
    pub avg_5: f64,
    /// Over fifteen.
    pub avg_15: f64,
}

/// Reads the three averages.
#[must_use]
pub fn parse(text: &str) -> Option<Load> {
    let mut fields = text.split_ascii_whitespace().map(finite);
    Some(Load {
        avg_1: fields.next()??,
        avg_5: fields.next()??,
        avg_15: fields.next()??,
    })
}

/// A number that JSON can hold: `nan` and `inf` are none.
pub(super) fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_averages_are_read() {
        let load = parse("0.71 0.43 0.22 1/87 10679\n").unwrap();
        assert_eq!((load.avg_1, load.avg_5, load.avg_15), (0.71, 0.43, 0.22));
        assert_eq!(parse("0.71 nan 0.22"), None);
    }

    proptest! {
        #[test]
        fn hostile_text_gives_finite_numbers_or_none(text in "[-0-9.einfa ]{0,40}") {
            if let Some(load) = parse(&text) {
                prop_assert!(load.avg_1.is_finite() && load.avg_15.is_finite());
            }
        }
    }
}
