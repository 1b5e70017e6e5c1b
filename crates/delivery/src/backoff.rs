//! How long to wait before the collector is tried again.

use std::time::Duration;

/// The wait after the first failure.
pub const FIRST: Duration = Duration::from_millis(250);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(10);

/// The wait after so many failures in a row: doubled each time, and somewhere in
/// the upper half of that, so that a fleet does not come back in step.
/// `random` is between 0 and 1.
#[must_use]
pub fn wait(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = (FIRST * 2u32.pow(doublings)).min(LONGEST);
    whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = (1..=8).map(|n| wait(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(wait(3, 0.0).as_millis(), 500);
    }

    proptest! {
        #[test]
        fn every_wait_is_bounded(failures: u32, random: f64) {
            let wait = wait(failures, if random.is_nan() { 0.0 } else { random });
            prop_assert!(wait >= FIRST / 2 && wait <= LONGEST);
        }
    }
}
