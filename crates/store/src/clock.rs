//! The time by which what is kept gets old.
//!
//! A clock that jumps ahead makes everything too old at once, and one that is set
//! back and right again what came meanwhile; what was deleted does not come back.
//! So a jump counts only once it has held for a while; until then time goes on as
//! it did before.  Pure: the caller reads the clocks.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use daemon::clock::{steady_ns, unix_ns};

/// The name under which the time is kept, as a progress.
pub(super) const NAME: &str = "clock";
/// How often it is kept.
pub(super) const KEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What a clock is set by now and then without being wrong.
pub(super) const JUMP_NS: u64 = 600_000_000_000;
/// How long a jump must hold.
const HELD_NS: u64 = 3_600_000_000_000;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Now {
    wall_ns: u64,
    steady_ns: u64,
}

impl Now {
    fn read() -> Self {
        Self {
            wall_ns: unix_ns(),
            steady_ns: steady_ns(),
        }
    }
}

#[derive(Debug)]
struct Trusted {
    at: Now,
    jump: Option<Jump>,
}

/// One jump of the clock.
#[derive(Clone, Copy, Debug)]
struct Jump {
    /// By the steady clock.
    since_ns: u64,
    /// How far ahead it is.
    ahead_ns: i64,
}

/// What became of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    AsBefore,
    /// It is ahead by so much since now, or behind.
    Jumped(i64),
    /// It has held.
    Held,
}

impl Trusted {
    /// The time that counts now.
    fn judge(&mut self, now: Now) -> (u64, Judged) {
        let passed_ns = now.steady_ns.saturating_sub(self.at.steady_ns);
        let expected_ns = self.at.wall_ns.saturating_add(passed_ns);
        let ahead_ns = now.wall_ns.cast_signed() - expected_ns.cast_signed();
        if ahead_ns.unsigned_abs() <= JUMP_NS {
            self.at = now;
            self.jump = None;
            return (now.wall_ns, Judged::AsBefore);
        }
        // What jumps again has not held: each jump has its own hour.
        let same = |jump: &Jump| jump.ahead_ns.abs_diff(ahead_ns) <= JUMP_NS;
        let Some(jump) = self.jump.filter(same) else {
            self.jump = Some(Jump {
                since_ns: now.steady_ns,
                ahead_ns,
            });
            return (expected_ns, Judged::Jumped(ahead_ns));
        };
        if now.steady_ns.saturating_sub(jump.since_ns) < HELD_NS {
            return (expected_ns, Judged::AsBefore);
        }
        self.at = now;
        self.jump = None;
        (now.wall_ns, Judged::Held)
    }
}

/// The clock of one store.
#[derive(Debug)]
pub(super) struct Clock(Mutex<Trusted>);

impl Clock {
    /// Goes on from the time that was kept: a start is as good a time for a wrong
    /// clock as any.  `accept` takes the clock as it is.
    pub(super) fn new(kept_ns: Option<u64>, accept: bool) -> Self {
        let mut at = Now::read();
        if let Some(kept_ns) = kept_ns.filter(|_| !accept) {
            at.wall_ns = at.wall_ns.min(kept_ns);
        }
        Self(Mutex::new(Trusted { at, jump: None }))
    }

    /// The clock is right as it is.
    pub(super) fn accept(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Trusted {
            at: Now::read(),
            jump: None,
        };
    }

    /// Now.
    pub(super) fn now_ns(&self) -> u64 {
        let now = Now::read();
        let mut trusted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (time_ns, judged) = trusted.judge(now);
        match judged {
            Judged::AsBefore => {}
            Judged::Jumped(ahead_ns) => tracing::warn!(
                ahead_s = ahead_ns / 1_000_000_000,
                "the system clock differs from the newest report, or has jumped: deletion by age \
                 does not follow it until it has been stable for an hour; if it is correct, \
                 restart or reload with --accept-clock"
            ),
            Judged::Held => {
                tracing::info!("the clock has been stable for an hour: deletion by age follows it");
            }
        }
        time_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const DAY_S: u64 = 86_400;
    const START_S: u64 = 20_000 * DAY_S;

    /// A clock that was right at second 0.
    fn trusted() -> Trusted {
        Trusted {
            at: at(0, 0),
            jump: None,
        }
    }

    /// So many seconds after the start, with a clock that is off by so many.
    fn at(s: u64, off_s: u64) -> Now {
        Now {
            wall_ns: (START_S + s + off_s) * S,
            steady_ns: (7 + s) * S,
        }
    }

    fn judged(trusted: &mut Trusted, now: Now) -> (u64, Judged) {
        let (time_ns, judged) = trusted.judge(now);
        (time_ns / S - START_S, judged)
    }

    #[test]
    fn a_jump_of_forty_days_for_a_minute_ages_nothing() {
        let mut trusted = trusted();
        let off_s = 40 * DAY_S;
        assert_eq!(judged(&mut trusted, at(5, 0)), (5, Judged::AsBefore));
        assert_eq!(
            judged(&mut trusted, at(10, off_s)),
            (10, Judged::Jumped((off_s * S).cast_signed()))
        );
        assert_eq!(judged(&mut trusted, at(60, off_s)), (60, Judged::AsBefore));
        assert_eq!(judged(&mut trusted, at(70, 0)), (70, Judged::AsBefore));
        // The next one is told again, and has its own hour.
        let second = judged(&mut trusted, at(3_650, off_s));
        assert_eq!(second, (3_650, Judged::Jumped((off_s * S).cast_signed())));
        assert_eq!(judged(&mut trusted, at(3_700, off_s)).0, 3_700);
    }

    #[test]
    fn a_jump_that_has_held_for_an_hour_counts() {
        let mut trusted = trusted();
        let off_s = 40 * DAY_S;
        judged(&mut trusted, at(10, off_s));
        assert_eq!(judged(&mut trusted, at(3_609, off_s)).0, 3_609);
        let held = judged(&mut trusted, at(3_610, off_s));
        assert_eq!(held, (3_610 + off_s, Judged::Held));
        let next = judged(&mut trusted, at(3_615, off_s));
        assert_eq!(next, (3_615 + off_s, Judged::AsBefore));
    }

    #[test]
    fn a_second_jump_within_the_hour_of_the_first_has_its_own_hour() {
        const MINUTE_S: u64 = 60;
        let mut trusted = trusted();
        let (first_s, second_s) = (15 * MINUTE_S, 40 * DAY_S);
        judged(&mut trusted, at(0, first_s));
        let second = judged(&mut trusted, at(59 * MINUTE_S, second_s));
        assert_eq!(
            second,
            (59 * MINUTE_S, Judged::Jumped((second_s * S).cast_signed()))
        );
        for minute in [60, 61, 118] {
            let s = minute * MINUTE_S;
            assert_eq!(judged(&mut trusted, at(s, second_s)), (s, Judged::AsBefore));
        }
        let s = 119 * MINUTE_S;
        let held = judged(&mut trusted, at(s, second_s));
        assert_eq!(held, (s + second_s, Judged::Held));
    }

    #[test]
    fn a_clock_that_is_set_back_far_counts_after_an_hour() {
        let mut trusted = trusted();
        let back = |s: u64| Now {
            wall_ns: (START_S + s - 40 * DAY_S) * S,
            steady_ns: (7 + s) * S,
        };
        let days_40 = (40 * DAY_S * S).cast_signed();
        let first = judged(&mut trusted, back(10));
        assert_eq!(first, (10, Judged::Jumped(-days_40)));
        assert_eq!(judged(&mut trusted, back(3_609)), (3_609, Judged::AsBefore));
        let (time_ns, held) = trusted.judge(back(3_610));
        assert_eq!((time_ns, held), (back(3_610).wall_ns, Judged::Held));
    }

    #[test]
    fn a_clock_that_is_set_back_or_corrected_a_little_counts_at_once() {
        let mut trusted = trusted();
        assert_eq!(judged(&mut trusted, at(5, 599)), (604, Judged::AsBefore));
        assert_eq!(judged(&mut trusted, at(10, 0)), (10, Judged::AsBefore));
    }
}
