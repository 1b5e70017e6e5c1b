//! How long to wait until the next sample.
//!
//! Short while there is traffic, longer while there is none, back at once when
//! it returns; and longer whatever the traffic while sampling takes more than
//! its share of the machine.
//!
//! Architecture invariant: a pure function of what it is told; no clock here.

use std::time::Duration;

/// What sampling may take, as a share of one core.
pub const CPU_BUDGET: f64 = 0.01;

/// The longest time between two samples.
pub const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How much time must pass between two judgements of the budget: CPU time is
/// too coarse and too bursty to be judged sample by sample.
pub const JUDGED_OVER: Duration = Duration::from_secs(2);

/// The pace of sampling.
#[derive(Clone, Debug)]
pub struct Pace {
    base: Duration,
    current: Duration,
    // The base is multiplied by 2 to this power while over the budget.
    stretch: u32,
}

impl Pace {
    /// A pace whose shortest interval is `base`.
    #[must_use]
    pub fn new(base: Duration) -> Self {
        Self {
            base,
            current: base,
            stretch: 0,
        }
    }

    /// The time until the next sample, given whether the last one saw traffic.
    pub fn next(&mut self, traffic: bool) -> Duration {
        self.current = if traffic {
            self.floor()
        } else {
            (self.current * 2).clamp(self.floor(), self.longest())
        };
        self.current
    }

    /// Tells what the agent took of the CPU in the time since the last telling,
    /// which should be [`JUDGED_OVER`] or more.
    pub fn consumed(&mut self, cpu: Duration, elapsed: Duration) {
        let share = cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        if share > CPU_BUDGET && self.floor() < self.longest() {
            self.stretch += 1;
        } else if share < CPU_BUDGET / 2.0 {
            // At half the interval twice the share is used: still within.
            self.stretch = self.stretch.saturating_sub(1);
        }
    }

    fn floor(&self) -> Duration {
        (self.base * 2u32.saturating_pow(self.stretch)).min(self.longest())
    }

    fn longest(&self) -> Duration {
        INTERVAL_MAX.max(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);

    #[test]
    fn idle_slows_down_to_a_second_and_traffic_brings_it_back_at_once() {
        let mut pace = Pace::new(BASE);
        let waits: Vec<_> = (0..6).map(|_| pace.next(false).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(pace.next(true), BASE);
    }

    #[test]
    fn over_the_budget_even_traffic_is_sampled_less_often() {
        let mut pace = Pace::new(BASE);
        let (cpu, elapsed) = (Duration::from_millis(30), Duration::from_secs(1));
        pace.consumed(cpu, elapsed);
        assert_eq!(pace.next(true), BASE * 2);
        (0..50).for_each(|_| pace.consumed(cpu, elapsed));
        assert_eq!(pace.next(true), INTERVAL_MAX);
        (0..50).for_each(|_| pace.consumed(Duration::from_millis(1), elapsed));
        assert_eq!(pace.next(true), BASE);
    }

    #[test]
    fn a_base_above_a_second_is_kept() {
        let base = Duration::from_secs(3);
        let mut pace = Pace::new(base);
        assert_eq!((pace.next(false), pace.next(true)), (base, base));
    }
}
