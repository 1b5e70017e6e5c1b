//! Which range is summed up, and from what.

use std::time::Duration;

use monitor_proto::json::{self, SummaryRange};

use crate::series::{BadPlan, RAW_REPORTS_MAX, Tier, WINDOW_S};

/// Values of a sparkline.
const STEPS_MAX: u64 = 60;
/// Up to here a range is made of minutes, beyond it of hours.
const MINUTES_RANGE_MAX_S: u64 = 2 * 86_400;
/// Minutes of all hosts: what a range of more of them reads would take too long.
const MINUTES_MAX: u64 = 100_000;

/// A range that begins and ends on the tier's boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryPlan {
    pub tier: Tier,
    /// The length of a sparkline's step.
    pub step_s: u64,
    pub start_s: u64,
    pub end_s: u64,
}

impl SummaryPlan {
    /// Of so many hosts: reports where these are few enough, else roll-ups.
    pub fn of_hosts(hosts: u64, since_s: u64, until_s: u64) -> Result<Self, BadPlan> {
        let range_s = until_s.checked_sub(since_s).filter(|range| *range > 0);
        let range_s = range_s.ok_or(BadPlan::Reversed)?;
        let of_all = |each_s: u64| (range_s / each_s).saturating_mul(hosts);
        let tier = if of_all(WINDOW_S) <= RAW_REPORTS_MAX {
            Tier::Raw
        } else if range_s <= MINUTES_RANGE_MAX_S && of_all(60) <= MINUTES_MAX {
            Tier::Rolled(60)
        } else {
            Tier::Rolled(3600)
        };
        Ok(Self::of_tier(tier, since_s, until_s))
    }

    fn of_tier(tier: Tier, since_s: u64, until_s: u64) -> Self {
        let (bucket_s, step_min_s) = match tier {
            Tier::Raw => (1, WINDOW_S),
            Tier::Rolled(tier_s) => (tier_s, tier_s),
        };
        let start_s = since_s - since_s % bucket_s;
        let end_s = until_s.div_ceil(bucket_s).saturating_mul(bucket_s);
        let step_s = (end_s - start_s)
            .div_ceil(STEPS_MAX)
            .next_multiple_of(step_min_s);
        Self {
            tier,
            step_s,
            start_s,
            end_s,
        }
    }

    /// The same range of what is coarser and kept for longer: minutes, then hours.
    pub fn coarser(self) -> Option<Self> {
        let tier_s = self.tier.coarser().next()?;
        let tier = Tier::Rolled(tier_s);
        Some(Self::of_tier(tier, self.start_s, self.end_s))
    }

    /// The same range without a bucket that is not over yet, as that is less than the
    /// whole one that it would be compared with; where there is another one.
    pub fn finished(self, now_s: u64) -> Self {
        let Tier::Rolled(tier_s) = self.tier else {
            return self;
        };
        let over_s = now_s - now_s % tier_s;
        if over_s <= self.start_s || over_s >= self.end_s {
            return self;
        }
        Self::of_tier(self.tier, self.start_s, over_s)
    }

    /// A range of the same length and tier so long before; `None` where that is before
    /// 1970, or no time at all.
    pub fn before(self, age: Duration) -> Option<Self> {
        let age_s = Some(age.as_secs()).filter(|age_s| *age_s > 0)?;
        let bucket_s = match self.tier {
            Tier::Raw => 1,
            Tier::Rolled(tier_s) => tier_s,
        };
        let start_s = self.start_s.checked_sub(age_s)?;
        let start_s = start_s - start_s % bucket_s;
        Some(Self {
            start_s,
            end_s: start_s + (self.end_s - self.start_s),
            ..self
        })
    }

    /// How many values a sparkline has.
    pub fn steps_count(self) -> usize {
        let steps = (self.end_s - self.start_s).div_ceil(self.step_s);
        usize::try_from(steps.min(STEPS_MAX)).unwrap_or(0)
    }

    /// In which step a second lies.
    pub(super) fn step_of(self, at_s: u64) -> Option<usize> {
        let after = at_s.checked_sub(self.start_s)?;
        usize::try_from(after / self.step_s).ok()
    }

    /// As answers tell it.
    pub fn range(self) -> SummaryRange {
        let time = |s: u64| json::rfc3339(s.saturating_mul(1_000_000_000));
        SummaryRange {
            since: time(self.start_s),
            until: time(self.end_s),
            tier: self.tier.name().to_owned(),
        }
    }
}
