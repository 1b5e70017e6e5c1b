//! Passive health checks (outlier detection): which backends are ejected for a
//! while, by the outcomes of their requests.
//!
//! The request path only counts; a task decides a few times a second. What a
//! client can bring about by what it asks for must not take a backend away
//! from all others: answers count by their share, where there are enough of
//! them and the other backends do better, and never more than a share of the
//! upstream is left out. The rules are those of Envoy's outlier detection
//! (consecutive gateway failures, success rate, `max_ejection_percent`, and an
//! ejection time that grows with each ejection).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An ejection is never longer than this, unless one is configured to be.
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// After so many ejection times without one, the next ejection is a first one.
const EJECTIONS_RESET_AFTER: u32 = 10;

/// Outcomes of a backend's requests.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Failed connections in a row.
    failures: AtomicU32,
    /// Answers in this window.
    answers: AtomicU32,
    /// Of them, those that say that the backend failed.
    errors: AtomicU32,
}

impl Outcomes {
    /// Counts a connection that could not be made, or was lost before the answer.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer; it ends a row of failed connections.
    pub fn answered(&self, status: u16) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if is_error(status) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a request whose answer did not come in time or made no sense.
    pub fn unanswered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted; where the window has ended it begins anew.
    pub fn read(&self, window_ended: bool) -> Counted {
        let mut counted = Counted {
            failures: self.failures.load(Ordering::Relaxed),
            ..Counted::default()
        };
        if window_ended {
            counted.answers = self.answers.swap(0, Ordering::Relaxed);
            counted.errors = self.errors.swap(0, Ordering::Relaxed);
        }
        counted
    }

    /// Resets all, so that a backend is judged anew after its ejection.
    pub fn reset(&self) {
        for one in [&self.failures, &self.answers, &self.errors] {
            one.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether a status says that the backend failed. 501 and 505 speak of what the
/// client asked for, however often it does.
fn is_error(status: u16) -> bool {
    status >= 500 && !matches!(status, 501 | 505)
}

/// What was counted of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Failed connections in a row.
    pub failures: u32,
    /// Answers in the window that has just ended, else 0.
    pub answers: u32,
    /// Of them, errors.
    pub errors: u32,
}

/// When a backend is ejected.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Failed connections in a row; 0: never.
    pub failures: u32,
    /// Percent of answers that are errors; 0: never.
    pub error_percent: u32,
    /// Fewer answers in a window say nothing.
    pub answers_min: u32,
    /// Most percent of an upstream's backends; one of several always may be.
    pub ejected_percent_max: u32,
}

/// Why a backend is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// So many connections failed in a row.
    Connections(u32),
    /// So many of so many answers were errors.
    Errors(u32, u32),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connections(failures) => write!(f, "{failures} connections in a row failed"),
            Self::Errors(errors, answers) => write!(f, "{errors} of {answers} answers were errors"),
        }
    }
}

/// The backends of one upstream that are to be left out now, by index.
/// `ejected` tells which are already.
#[must_use]
pub fn outliers(counted: &[Counted], ejected: &[bool], rules: &Rules) -> Vec<(usize, Cause)> {
    let is_ejected = |at: usize| ejected.get(at).copied().unwrap_or_default();
    let mut found: Vec<(usize, Cause)> = counted
        .iter()
        .enumerate()
        .filter(|(at, _)| !is_ejected(*at))
        .filter_map(|(at, one)| Some((at, cause(one, &others(counted, at), rules)?)))
        .collect();
    // What cannot be connected to comes first, then the most errors.
    found.sort_by_key(|(at, cause)| match cause {
        Cause::Connections(_) => (0, 0, *at),
        Cause::Errors(errors, _) => (1, u32::MAX - errors, *at),
    });
    let out = ejected.iter().filter(|ejected| **ejected).count();
    found.truncate(most(counted.len(), rules.ejected_percent_max).saturating_sub(out));
    found
}

/// How many of an upstream's backends may be left out.
fn most(backends: usize, percent: u32) -> usize {
    let share = backends * percent.min(100) as usize / 100;
    share.max(usize::from(backends > 1 && percent > 0))
}

fn others(counted: &[Counted], at: usize) -> Counted {
    let others = counted.iter().enumerate().filter(|(i, _)| *i != at);
    others.fold(Counted::default(), |sum, (_, one)| Counted {
        failures: 0,
        answers: sum.answers.saturating_add(one.answers),
        errors: sum.errors.saturating_add(one.errors),
    })
}

fn cause(one: &Counted, others: &Counted, rules: &Rules) -> Option<Cause> {
    if rules.failures > 0 && one.failures >= rules.failures {
        return Some(Cause::Connections(one.failures));
    }
    let [errors, answers] = [one.errors, one.answers].map(u64::from);
    let enough = rules.error_percent > 0 && answers >= u64::from(rules.answers_min.max(1));
    let over = errors * 100 >= answers * u64::from(rules.error_percent);
    // Where the others do half as badly, it is the requests that are bad.
    let [others_errors, others_answers] = [others.errors, others.answers].map(u64::from);
    let stands_out = others_errors * 2 * answers < errors * others_answers.max(1);
    (enough && over && errors > 0 && stands_out).then_some(Cause::Errors(one.errors, one.answers))
}

/// How often and since when a backend is left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    times: u32,
    since: Option<Instant>,
    ended: Option<Instant>,
}

impl Ejection {
    /// Begins one more; gives how long it lasts. Each in a row is longer.
    pub fn begin(&mut self, now: Instant, base: Duration) -> Duration {
        let is_calm = self.ended.is_some_and(|ended| {
            now.saturating_duration_since(ended) >= base.saturating_mul(EJECTIONS_RESET_AFTER)
        });
        self.times = if is_calm {
            1
        } else {
            self.times.saturating_add(1)
        };
        (self.since, self.ended) = (Some(now), None);
        self.lasts(base)
    }

    /// Ends it where its time has come; gives whether it did.
    pub fn end(&mut self, now: Instant, base: Duration) -> bool {
        let over = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) >= self.lasts(base));
        if over {
            (self.since, self.ended) = (None, Some(now));
        }
        over
    }

    fn lasts(&self, base: Duration) -> Duration {
        base.saturating_mul(self.times.clamp(1, 1000))
            .min(EJECTION_MAX.max(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        failures: 5,
        error_percent: 50,
        answers_min: 100,
        ejected_percent_max: 50,
    };

    fn answers(errors: u32, answers: u32) -> Counted {
        Counted {
            failures: 0,
            answers,
            errors,
        }
    }

    fn failing(failures: u32) -> Counted {
        Counted {
            failures,
            ..Counted::default()
        }
    }

    fn ejected(counted: &[Counted]) -> Vec<usize> {
        let none = vec![false; counted.len()];
        let found = outliers(counted, &none, &RULES);
        found.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn a_few_errors_are_no_outlier() {
        assert_eq!(ejected(&[answers(5, 5), answers(0, 0)]), [0; 0]);
        assert_eq!(ejected(&[answers(99, 99), answers(0, 500)]), [0; 0]);
        assert_eq!(ejected(&[answers(49, 100), answers(0, 100)]), [0; 0]);
        assert_eq!(ejected(&[answers(50, 100), answers(0, 100)]), [0]);
    }

    #[test]
    fn requests_that_fail_everywhere_eject_nobody() {
        assert_eq!(ejected(&[answers(100, 100), answers(90, 100)]), [0; 0]);
        assert_eq!(ejected(&[answers(100, 100), answers(60, 100)]), [0; 0]);
        assert_eq!(ejected(&[answers(100, 100), answers(10, 100)]), [0]);
    }

    #[test]
    fn failed_connections_in_a_row_eject() {
        assert_eq!(ejected(&[failing(4), failing(0)]), [0; 0]);
        assert_eq!(ejected(&[failing(5), failing(0)]), [0]);
    }

    #[test]
    fn no_more_than_a_share_of_the_upstream_is_left_out() {
        assert_eq!(ejected(&[failing(9); 1]), [0; 0], "there is no other");
        assert_eq!(ejected(&[failing(9); 2]), [0]);
        assert_eq!(ejected(&[failing(9); 3]), [0]);
        assert_eq!(ejected(&[failing(9); 8]), [0, 1, 2, 3]);
        let already = [true, false, false, false];
        let found = outliers(&[failing(9); 4], &already, &RULES);
        assert_eq!(found, [(1, Cause::Connections(9))]);
        let never = Rules {
            ejected_percent_max: 0,
            ..RULES
        };
        assert_eq!(outliers(&[failing(9); 4], &[false; 4], &never), []);
    }

    #[test]
    fn what_the_client_asked_for_is_no_error() {
        let outcomes = Outcomes::default();
        for status in [200, 404, 500, 501, 502, 503, 504, 505] {
            outcomes.answered(status);
        }
        outcomes.unanswered();
        assert_eq!(outcomes.read(false), Counted::default());
        assert_eq!(outcomes.read(true), answers(5, 9));
        assert_eq!(outcomes.read(true), Counted::default(), "a new window");
    }

    #[test]
    fn an_answer_ends_a_row_of_failures() {
        let outcomes = Outcomes::default();
        outcomes.failed();
        outcomes.failed();
        assert_eq!(outcomes.read(false).failures, 2);
        outcomes.answered(503);
        assert_eq!(outcomes.read(false).failures, 0);
    }

    #[test]
    fn ejections_in_a_row_grow_longer() {
        let base = Duration::from_secs(10);
        let start = Instant::now();
        let mut ejection = Ejection::default();
        assert_eq!(ejection.begin(start, base), base);
        assert!(!ejection.end(start + Duration::from_secs(9), base));
        assert!(ejection.end(start + base, base));
        assert!(!ejection.end(start + base, base), "it ends once");
        assert_eq!(ejection.begin(start + 2 * base, base), 2 * base);
        assert!(ejection.end(start + 4 * base, base));
        let calm = start + 4 * base + EJECTIONS_RESET_AFTER * base;
        assert_eq!(ejection.begin(calm, base), base, "after a calm time");
        for _ in 0..100 {
            ejection.begin(calm, base);
        }
        assert_eq!(ejection.begin(calm, base), EJECTION_MAX);
        let long = Duration::from_secs(3600);
        assert_eq!(ejection.begin(calm, long), long);
        assert_eq!(ejection.begin(calm, Duration::MAX), Duration::MAX);
        assert!(!ejection.end(calm + long, Duration::MAX));
    }
}
