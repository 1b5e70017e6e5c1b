//! From cumulative counters to one figure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a failed request counts for at least, in seconds: a backend that fails fast
/// must not look like a fast one.
pub const FAILURE_SECONDS: f64 = 1.0;

/// After so long without an exchange a backend's own time says little, and moves
/// towards that of the others.
pub const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The exchange time in seconds that is assumed where none is known of any backend.
pub const UNKNOWN_SECONDS: f64 = 0.01;

/// Times that differ from the others' by no more than this factor count as theirs: the
/// queues of equal backends differ by as much, and the requests in flight tell of those
/// at once, while a peak is remembered for as long as [`Settings::decay`].
const ALIKE_FACTOR: f64 = 2.0;

/// Shortest time that is told apart, in seconds.
const SECONDS_MIN: f64 = 10e-6;

/// What was counted of a backend since its counters began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// When the counters began, in nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// Requests and connections that ended in success or failure.
    pub attempts: u64,
    /// Of these: answered with 5xx, not answered, or not connected.
    pub failures: u64,
    /// Exchanges whose time was measured; absent where the programs do not look at
    /// exchanges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanges: Option<u64>,
    /// The sum of their times, first byte of the request to first byte of the
    /// response, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_ns: Option<u64>,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.wrapping_add(b)),
            (one, None) | (None, one) => one,
        };
        Self {
            since_unix_ns: self.since_unix_ns.max(other.since_unix_ns),
            attempts: self.attempts.wrapping_add(other.attempts),
            failures: self.failures.wrapping_add(other.failures),
            exchanges: sum(self.exchanges, other.exchanges),
            exchange_ns: sum(self.exchange_ns, other.exchange_ns),
        }
    }

    /// What came on top of an earlier reading; `None` where counting began anew.
    fn since(&self, earlier: &Self) -> Option<Self> {
        let less = |now: Option<u64>, before: Option<u64>| match (now, before) {
            (Some(now), Some(before)) => now.checked_sub(before).map(Some),
            _ => Some(None),
        };
        if self.since_unix_ns != earlier.since_unix_ns {
            return None;
        }
        Some(Self {
            since_unix_ns: self.since_unix_ns,
            attempts: self.attempts.checked_sub(earlier.attempts)?,
            failures: self.failures.checked_sub(earlier.failures)?,
            exchanges: less(self.exchanges, earlier.exchanges)?,
            exchange_ns: less(self.exchange_ns, earlier.exchange_ns)?,
        })
    }
}

/// How estimates follow what is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The time constant with which past measurements lose their weight.
    pub decay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // As Finagle and linkerd have it.
            decay: Duration::from_secs(10),
        }
    }
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Peak EWMA of the exchange time in seconds; `None` before the first exchange.
    pub exchange_seconds: Option<f64>,
    /// The share of attempts that failed, from 0 to 1; `None` before the first one.
    pub failure_share: Option<f64>,
}

/// Follows one backend's counters.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    earlier: Option<Totals>,
    exchange_seconds: Option<f64>,
    /// The mean of the sample before, where that was slower than all is taken for.
    slower: Option<f64>,
    attempts: f64,
    failures: f64,
    idle: Duration,
}

impl Estimator {
    /// Takes the counters as they are now, `elapsed` after those before.
    pub fn update(&mut self, totals: &Totals, elapsed: Duration, settings: &Settings) {
        let delta = self
            .earlier
            .replace(*totals)
            .and_then(|earlier| totals.since(&earlier));
        let kept = decay(elapsed, settings.decay);
        self.attempts *= kept;
        self.failures *= kept;
        let Some(delta) = delta else {
            return;
        };
        self.attempts += delta.attempts as f64;
        self.failures += delta.failures.min(delta.attempts) as f64;
        match delta.exchanges.zip(delta.exchange_ns) {
            Some((exchanges @ 1.., ns)) => {
                let mean = ns as f64 / 1e9 / exchanges as f64;
                self.idle = Duration::ZERO;
                let slower_before = self.slower.take();
                self.exchange_seconds = Some(match self.exchange_seconds {
                    // What becomes slower is believed as soon as two samples in a row
                    // say so: one alone may be a stall of this host, and would be
                    // remembered for long.
                    Some(before) if before < mean => {
                        self.slower = Some(mean);
                        slower_before.map_or(before, |one| one.min(mean).max(before))
                    }
                    // What becomes faster, by and by.
                    Some(before) => before * kept + mean * (1.0 - kept),
                    None => mean,
                });
            }
            _ => self.idle = self.idle.saturating_add(elapsed),
        }
    }

    /// Moves the time of a backend that has no exchanges towards `others`, so that
    /// one that was slow once is tried again, as one of them.
    pub fn settle(&mut self, others: Option<f64>, elapsed: Duration, settings: &Settings) {
        let Some((own, others)) = self.exchange_seconds.zip(others) else {
            return;
        };
        if self.idle >= IDLE_AFTER {
            let kept = decay(elapsed, settings.decay);
            self.exchange_seconds = Some(own * kept + others * (1.0 - kept));
        }
    }

    /// The next counters are no continuation of those before: the backend was not in
    /// a sample.
    pub fn interrupt(&mut self) {
        self.earlier = None;
    }

    /// What is known now.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        // What is less than a hundredth of an attempt was long ago.
        let failure_share = (self.attempts >= 0.01).then(|| self.failures / self.attempts);
        Estimate {
            exchange_seconds: self.exchange_seconds,
            failure_share: failure_share.map(|share| share.clamp(0.0, 1.0)),
        }
    }
}

fn decay(elapsed: Duration, constant: Duration) -> f64 {
    (-elapsed.as_secs_f64() / constant.as_secs_f64().max(1e-3)).exp()
}

/// What a request to a backend takes, in seconds: its exchange time, that of the
/// `others` where its own is unknown or within a factor of two of theirs, or
/// [`UNKNOWN_SECONDS`]; each failure counts as [`FAILURE_SECONDS`] at least.
#[must_use]
pub fn seconds(estimate: &Estimate, others: Option<f64>) -> f64 {
    let time = match (estimate.exchange_seconds, others) {
        (Some(own), Some(others)) if is_alike(own, others) => Some(others),
        (own, others) => own.or(others),
    };
    let time = time.unwrap_or(UNKNOWN_SECONDS).max(SECONDS_MIN);
    let failed = estimate.failure_share.unwrap_or(0.0);
    (1.0 - failed) * time + failed * time.max(FAILURE_SECONDS)
}

fn is_alike(own: f64, others: f64) -> bool {
    own <= others * ALIKE_FACTOR && others <= own * ALIKE_FACTOR
}

/// What the load of a host, from 0 to 1, multiplies the cost with: nothing up to
/// 0.8, twice at 1.
#[must_use]
pub fn pressure(utilisation: Option<f64>) -> f64 {
    const FREE: f64 = 0.8;
    let above = utilisation.unwrap_or(0.0).clamp(FREE, 1.0) - FREE;
    1.0 + above / (1.0 - FREE)
}

/// The share of its weight that a backend has so long after it came back: a tenth at
/// first, all at the end.
#[must_use]
pub fn slow_start_share(usable_for: Duration, slow_start: Duration) -> f64 {
    if usable_for >= slow_start {
        return 1.0;
    }
    (usable_for.as_secs_f64() / slow_start.as_secs_f64()).max(0.1)
}

/// The middle of what is known; of an even number the lower one of the two.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|one| one.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
        .len()
        .checked_sub(1)
        .and_then(|last| values.get(last / 2))
        .copied()
}

/// A weight in percent for balancers that take one: 100 for the cheapest, less in
/// proportion to the cost, 1 at least.
#[must_use]
pub fn weight_percent(cost: f64, cheapest: f64) -> u8 {
    let percent = (100.0 * cheapest / cost).round();
    if percent.is_finite() {
        percent.clamp(1.0, 100.0) as u8
    } else {
        100
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);
    const SETTINGS: Settings = Settings {
        decay: Duration::from_secs(10),
    };

    fn totals(exchanges: u64, ms: u64, failures: u64) -> Totals {
        Totals {
            since_unix_ns: 1,
            attempts: exchanges,
            failures,
            exchanges: Some(exchanges),
            exchange_ns: Some(ms * 1_000_000),
        }
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn slower_counts_when_it_is_confirmed_and_faster_by_and_by() {
        let mut backend = Estimator::default();
        backend.update(&totals(1_000, 5_000, 0), TICK, &SETTINGS);
        assert_eq!(backend.estimate().exchange_seconds, None, "a beginning");
        backend.update(&totals(1_010, 5_050, 0), TICK, &SETTINGS);
        assert!(close(backend.estimate().exchange_seconds, 0.005));
        backend.update(&totals(1_020, 6_050, 0), TICK, &SETTINGS);
        assert!(close(backend.estimate().exchange_seconds, 0.005), "a stall");
        backend.update(&totals(1_030, 7_250, 0), TICK, &SETTINGS);
        assert!(close(backend.estimate().exchange_seconds, 0.1));
        backend.update(&totals(1_040, 7_300, 0), Duration::from_secs(10), &SETTINGS);
        let e = (-1.0_f64).exp();
        assert!(close(
            backend.estimate().exchange_seconds,
            0.1 * e + 0.005 * (1.0 - e)
        ));
    }

    #[test]
    fn counters_that_begin_anew_are_no_measurement() {
        let mut backend = Estimator::default();
        backend.update(&totals(10, 50, 0), TICK, &SETTINGS);
        backend.update(&totals(20, 100, 0), TICK, &SETTINGS);
        let before = backend.estimate();
        backend.update(&totals(3, 9_000, 3), TICK, &SETTINGS);
        assert_eq!(backend.estimate().exchange_seconds, before.exchange_seconds);
        let restarted = Totals {
            since_unix_ns: 2,
            ..totals(30, 90_000, 30)
        };
        backend.update(&restarted, TICK, &SETTINGS);
        assert_eq!(backend.estimate().exchange_seconds, before.exchange_seconds);
        assert_eq!(backend.estimate().failure_share, Some(0.0));
    }

    #[test]
    fn without_exchanges_only_failures_are_known() {
        let tcp = |attempts, failures| Totals {
            since_unix_ns: 1,
            attempts,
            failures,
            exchanges: None,
            exchange_ns: None,
        };
        let mut backend = Estimator::default();
        backend.update(&tcp(0, 0), TICK, &SETTINGS);
        backend.update(&tcp(4, 1), TICK, &SETTINGS);
        let estimate = backend.estimate();
        assert_eq!(
            (estimate.exchange_seconds, estimate.failure_share),
            (None, Some(0.25))
        );
        assert!(close(
            Some(seconds(&estimate, Some(0.1))),
            0.75 * 0.1 + 0.25
        ));
    }

    #[test]
    fn an_idle_backend_becomes_one_of_the_others() {
        let mut backend = Estimator::default();
        backend.update(&totals(0, 0, 0), TICK, &SETTINGS);
        backend.update(&totals(10, 10_000, 0), TICK, &SETTINGS);
        for _ in 0..9 {
            backend.update(&totals(10, 10_000, 0), TICK, &SETTINGS);
            backend.settle(Some(0.01), TICK, &SETTINGS);
        }
        assert!(close(backend.estimate().exchange_seconds, 1.0));
        for _ in 0..1_000 {
            backend.update(&totals(10, 10_000, 0), TICK, &SETTINGS);
            backend.settle(Some(0.01), TICK, &SETTINGS);
        }
        let settled = backend.estimate().exchange_seconds.unwrap();
        assert!((0.01..0.011).contains(&settled), "{settled}");
    }

    #[test]
    fn a_backend_that_fails_fast_costs_more_than_a_slow_one() {
        let cost = |exchange_seconds, failed| {
            let estimate = Estimate {
                exchange_seconds: Some(exchange_seconds),
                failure_share: Some(failed),
            };
            seconds(&estimate, None)
        };
        assert!(cost(0.001, 0.5) > cost(0.3, 0.0));
        assert!(cost(0.001, 0.01) > cost(0.005, 0.0));
        assert!(
            (cost(2.0, 0.5) - 2.0).abs() < 1e-9,
            "it is slower than that"
        );
        let unknown = |others| Some(seconds(&Estimate::default(), others));
        assert!(close(unknown(None), UNKNOWN_SECONDS));
        assert!(close(unknown(Some(0.2)), 0.2));
    }

    #[test]
    fn what_queues_make_of_equal_backends_is_no_difference() {
        let cost = |ms: f64| {
            let estimate = Estimate {
                exchange_seconds: Some(ms / 1e3),
                failure_share: Some(0.0),
            };
            (seconds(&estimate, Some(0.02)) * 1e6).round() as u64
        };
        let costs = [1.0, 10.0, 15.0, 20.0, 40.0, 41.0, 400.0].map(cost);
        assert_eq!(
            costs,
            [1_000, 20_000, 20_000, 20_000, 20_000, 41_000, 400_000]
        );
    }

    #[test]
    fn hosts_press_from_four_fifths_on() {
        let of = |u| (pressure(u) * 1_000.0).round() as u32;
        assert_eq!(
            [None, Some(0.5), Some(0.8), Some(0.9), Some(1.0), Some(7.0)].map(of),
            [1_000, 1_000, 1_000, 1_500, 2_000, 2_000]
        );
    }

    #[test]
    fn a_weight_is_the_inverse_of_the_cost() {
        let of = |cost| weight_percent(cost, 0.01);
        assert_eq!([0.01, 0.02, 0.1, 100.0].map(of), [100, 50, 10, 1]);
        assert_eq!(weight_percent(0.0, 0.0), 100);
    }

    #[test]
    fn a_weight_comes_back_slowly() {
        let share = |ms| slow_start_share(Duration::from_millis(ms), Duration::from_secs(10));
        assert!(
            [0, 500, 5_000, 10_000, 20_000]
                .map(share)
                .iter()
                .zip([0.1, 0.1, 0.5, 1.0, 1.0])
                .all(|(a, b)| (a - b).abs() < 1e-9)
        );
        assert!((slow_start_share(Duration::ZERO, Duration::ZERO) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_is_of_what_is_known() {
        assert_eq!(median([]), None);
        assert_eq!(median([f64::NAN, 3.0]), Some(3.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.0));
    }

    proptest! {
        #[test]
        fn whatever_is_counted_costs_are_finite_and_positive(
            readings in prop::collection::vec(
                (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), 0u64..3, any::<u32>()), 1..20,
            ),
            others in prop::option::of(0.0f64..1e6),
        ) {
            let mut backend = Estimator::default();
            for (attempts, failures, exchanges, ns, since, ms) in readings {
                let totals = Totals {
                    since_unix_ns: since,
                    attempts,
                    failures,
                    exchanges: Some(exchanges),
                    exchange_ns: Some(ns),
                };
                let elapsed = Duration::from_millis(u64::from(ms));
                backend.update(&totals, elapsed, &SETTINGS);
                backend.settle(others, elapsed, &SETTINGS);
                let estimate = backend.estimate();
                prop_assert!(estimate.failure_share.is_none_or(|f| (0.0..=1.0).contains(&f)));
                let cost = seconds(&estimate, others);
                prop_assert!(cost.is_finite() && cost > 0.0);
            }
        }
    }
}
