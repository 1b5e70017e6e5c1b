//! Which steps are answered, and from what.

use rollup::{Rolling, TIERS_S};

use super::Metric;

/// Steps of one answer.
const STEPS_MAX: u64 = 2000;
/// Steps that are chosen where none is given.
const STEPS_WANTED: u64 = 240;
/// Two of the usual windows.
const STEP_MIN_S: u64 = 10;
/// Points of all series of one answer, where the step is chosen here.
const POINTS_WANTED: u64 = 20_000;
/// The usual window.
pub(crate) const WINDOW_S: u64 = 5;
/// Six hours of one host, or an hour of six: from more reports an answer would
/// take too long.
pub(crate) const RAW_REPORTS_MAX: u64 = 6 * 3600 / WINDOW_S;

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The reports themselves.
    Raw,
    /// Roll-ups of so many seconds.
    Rolled(u64),
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Rolled(60) => "1m",
            Self::Rolled(_) => "1h",
        }
    }

    /// The seconds of the roll-ups that are coarser.
    pub(crate) fn coarser(self) -> impl Iterator<Item = u64> {
        let own_s = match self {
            Self::Raw => 0,
            Self::Rolled(tier_s) => tier_s,
        };
        TIERS_S.into_iter().filter(move |tier_s| *tier_s > own_s)
    }
}

/// A range cut into steps, aligned so that equal steps of two answers meet.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub metric: Metric,
    pub tier: Tier,
    pub step_s: u64,
    /// The first step's start.
    pub start_s: u64,
    /// The last step's end.
    pub end_s: u64,
}

/// The range or the step cannot be answered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    #[error("until is not after since")]
    Reversed,
    #[error("a step of {0} s is too small: the minimum is {STEP_MIN_S} s")]
    StepTooSmall(u64),
    #[error("{0} steps exceed the maximum of {STEPS_MAX}: use a larger step")]
    TooManySteps(u64),
}

impl Plan {
    /// Cuts a range of one host; `step_s` is rounded up to what the tier can
    /// give.
    #[cfg(test)]
    pub fn try_new(
        metric: Metric,
        since_s: u64,
        until_s: u64,
        step_s: Option<u64>,
    ) -> Result<Self, BadPlan> {
        Self::of_hosts(1, metric, since_s, until_s, step_s)
    }

    /// The same of so many hosts: the more there are, the coarser it gets.
    pub fn of_hosts(
        hosts: u64,
        metric: Metric,
        since_s: u64,
        until_s: u64,
        step_s: Option<u64>,
    ) -> Result<Self, BadPlan> {
        let range_s = until_s.checked_sub(since_s).filter(|range| *range > 0);
        let range_s = range_s.ok_or(BadPlan::Reversed)?;
        let step_s = match step_s {
            Some(step_s) if step_s < STEP_MIN_S => return Err(BadPlan::StepTooSmall(step_s)),
            Some(step_s) => step_s,
            None => {
                let steps = (POINTS_WANTED / hosts.max(1)).clamp(1, STEPS_WANTED);
                nice((range_s / steps).max(STEP_MIN_S))
            }
        };
        let reports = (range_s / WINDOW_S).saturating_mul(hosts);
        let (tier, step_s) = match step_s {
            ..60 if reports <= RAW_REPORTS_MAX => (Tier::Raw, step_s),
            ..3600 => (Tier::Rolled(60), step_s.next_multiple_of(60)),
            _ => (Tier::Rolled(3600), step_s.next_multiple_of(3600)),
        };
        let start_s = since_s - since_s % step_s;
        let end_s = until_s.div_ceil(step_s).saturating_mul(step_s);
        let steps = (end_s - start_s) / step_s;
        if steps > STEPS_MAX {
            return Err(BadPlan::TooManySteps(steps));
        }
        Ok(Self {
            metric,
            tier,
            step_s,
            start_s,
            end_s,
        })
    }

    /// How many steps there are.
    pub fn steps_count(&self) -> u64 {
        (self.end_s - self.start_s) / self.step_s
    }

    /// The start of every step.
    pub(super) fn steps(&self) -> impl Iterator<Item = u64> {
        (0..self.steps_count()).map(|i| self.start_s + i * self.step_s)
    }

    /// In which step a second lies.
    pub(super) fn step_of(&self, at_s: u64) -> Option<usize> {
        let after = at_s.checked_sub(self.start_s)?;
        usize::try_from(after / self.step_s).ok()
    }

    /// Adds a sample behind the others.  Samples of one step that come one
    /// after another are summed at once: an answer takes the memory of its
    /// steps, however many rows they are made of.  How much more it takes now.
    pub fn gather<R: Rolling>(&self, samples: &mut Vec<(u64, R)>, at_s: u64, roll: R) -> u64 {
        match samples.last_mut() {
            Some((last_s, sum)) if self.step_of(*last_s) == self.step_of(at_s) => {
                let before = sum.heap_bytes();
                sum.add(&roll);
                sum.heap_bytes().saturating_sub(before) as u64
            }
            _ => {
                // A list that grows has up to twice the room that it needs.
                let bytes = 2 * size_of::<(u64, R)>() + roll.heap_bytes();
                samples.push((at_s, roll));
                bytes as u64
            }
        }
    }
}

/// The next length that people count in.
fn nice(step_s: u64) -> u64 {
    const NICE_S: [u64; 12] = [
        10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400,
    ];
    NICE_S
        .into_iter()
        .find(|nice| *nice >= step_s)
        .unwrap_or_else(|| step_s.next_multiple_of(86_400))
}
