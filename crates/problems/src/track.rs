//! When something is a problem, and when it is none any more.

use std::collections::{HashMap, hash_map::Entry};

use monitor_proto::json::rfc3339;

use crate::{Evidence, Kind, Problem, Severity, Subject, Thresholds};

/// After so many windows in a row that show none, a problem is over.
pub const CLOSE_AFTER: u8 = 3;
/// After so many windows in a row without traffic nobody can tell: it is left out.
pub const FORGET_AFTER: u8 = 60;
/// Beyond it a host's problems are not told one by one.
const TRACKS_MAX: usize = 1024;

/// How much there was to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Nothing: neither good nor bad.
    Nothing,
    /// Too little to begin with, enough to go on.
    Little,
    Enough,
}

impl Extent {
    pub(crate) fn of(n: u32, minimum: u32) -> Self {
        match n {
            0 => Self::Nothing,
            n if n < minimum => Self::Little,
            _ => Self::Enough,
        }
    }
}

/// What is measured of one subject in one window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) kind: Kind,
    /// What tells the subject from the host's others.
    pub(crate) key: [&'a str; 3],
    pub(crate) value: f64,
    pub(crate) extent: Extent,
    /// The beginning of the first window that was looked at.
    pub(crate) start_ns: u64,
}

/// What is said of a problem; made only where there is one.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) subject: Subject,
    pub(crate) summary: String,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) details: Vec<String>,
}

#[derive(Debug, Default)]
struct Track {
    /// Windows in a row.
    bad: u8,
    good: u8,
    unknown: u8,
    is_measured: bool,
    is_open: bool,
    since_ns: u64,
    problem: Option<Problem>,
}

/// Everything of one host that is or may become a problem.
#[derive(Debug, Default)]
pub(crate) struct Tracks(HashMap<(Kind, String), Track>);

impl Tracks {
    pub(crate) fn measure(
        &mut self,
        thresholds: &Thresholds,
        measured: Measured<'_>,
        tell: impl FnOnce() -> Told,
    ) {
        let Measured { kind, value, .. } = measured;
        let threshold = thresholds.of(kind);
        let begins = value >= threshold && measured.extent == Extent::Enough;
        if self.0.is_empty() && !begins {
            return;
        }
        let has_room = self.0.len() < TRACKS_MAX;
        let track = match self.0.entry((kind, measured.key.join("\0"))) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if begins && has_room => entry.insert(Track::default()),
            Entry::Vacant(_) => return,
        };
        track.is_measured = true;
        let level = if track.is_open {
            threshold * kind.definition().stays_at
        } else {
            threshold
        };
        match measured.extent {
            Extent::Nothing => track.unknown(),
            Extent::Little if !track.is_open => track.unknown(),
            _ if value >= level => {
                if track.bad == 0 && !track.is_open {
                    track.since_ns = measured.start_ns;
                }
                track.bad = track.bad.saturating_add(1);
                (track.good, track.unknown) = (0, 0);
                track.is_open |= track.bad >= kind.definition().open_after;
                track.problem = Some(problem(kind, threshold, value, track.since_ns, tell()));
            }
            _ => {
                track.good = track.good.saturating_add(1);
                (track.bad, track.unknown) = (0, 0);
            }
        }
    }

    pub(crate) fn is_open(&self, kind: Kind, key: [&str; 3]) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let track = self.0.get(&(kind, key.join("\0")));
        track.is_some_and(|track| track.is_open)
    }

    /// What these kinds are told of is not there any more, where `is_gone` says so of
    /// its key.
    pub(crate) fn gone(&mut self, kinds: &[Kind], is_gone: impl Fn(&str) -> bool) {
        for ((kind, key), track) in &mut self.0 {
            if kinds.contains(kind) && !track.is_measured && is_gone(key) {
                track.is_measured = true;
                track.good = track.good.saturating_add(1);
                (track.bad, track.unknown) = (0, 0);
            }
        }
    }

    /// What was not measured in this window is unknown; what is over goes.
    pub(crate) fn end_window(&mut self) {
        self.0.retain(|_, track| {
            if !std::mem::take(&mut track.is_measured) {
                track.unknown();
            }
            if track.is_open {
                track.good < CLOSE_AFTER && track.unknown < FORGET_AFTER
            } else {
                track.good == 0 && track.unknown == 0
            }
        });
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &Problem> {
        let open = self.0.values().filter(|track| track.is_open);
        open.filter_map(|track| track.problem.as_ref())
    }

    /// What it takes in memory, about: a problem's texts are short.
    pub(crate) fn bytes(&self) -> usize {
        const TEXTS: usize = 1024;
        self.0.capacity() * size_of::<((Kind, String), Track)>() + self.0.len() * TEXTS
    }
}

impl Track {
    fn unknown(&mut self) {
        self.unknown = self.unknown.saturating_add(1);
    }
}

pub(crate) fn problem(
    kind: Kind,
    threshold: f64,
    value: f64,
    since_ns: u64,
    told: Told,
) -> Problem {
    let definition = kind.definition();
    let severity = if value >= definition.critical_from.max(threshold) {
        Severity::Critical
    } else {
        definition.severity
    };
    Problem {
        kind: definition.name.to_owned(),
        severity,
        subject: told.subject,
        since: rfc3339(since_ns),
        since_unix_ns: since_ns,
        summary: told.summary,
        evidence: told.evidence,
        details: told.details,
        next: definition.next.to_owned(),
    }
}
