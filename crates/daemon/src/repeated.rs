//! What goes on failing is told once in a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What goes on failing is told this often.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// How many causes are told apart.
const CAUSES_MAX: usize = 256;

/// Whether a line about this cause may be written now: at most one a minute.
#[must_use]
pub fn once_a_minute(cause: &str) -> bool {
    static TOLD: Mutex<Option<HashMap<String, Instant>>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    allows(told.get_or_insert_default(), cause, Instant::now())
}

fn allows(told: &mut HashMap<String, Instant>, cause: &str, now: Instant) -> bool {
    let recent = |at: &Instant| now.saturating_duration_since(*at) < TOLD_AFTER;
    if told.get(cause).is_some_and(recent) {
        return false;
    }
    if told.len() >= CAUSES_MAX {
        told.retain(|_, at| recent(at));
        if told.len() >= CAUSES_MAX {
            return false;
        }
    }
    told.insert(cause.to_owned(), now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_and_beside_others() {
        let (mut told, start) = (HashMap::new(), Instant::now());
        let mut at = |cause: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            allows(&mut told, cause, now)
        };
        let asked = [("a", 0), ("a", 59), ("b", 59), ("a", 60), ("a", 61)];
        let answers = asked.map(|(cause, seconds)| at(cause, seconds));
        assert_eq!(answers, [true, false, true, true, false]);
        for n in 0..CAUSES_MAX * 2 {
            at(&n.to_string(), 100);
        }
        assert!(!at("one too many", 101));
        assert!(at("room again", 161));
        assert!(told.len() <= CAUSES_MAX);
    }
}
