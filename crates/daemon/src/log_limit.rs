//! Lines that a peer can cause as often as it likes: one a minute for each cause
//! and peer, with how many were left out since the last one.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_secs(60);
/// How long a peer that is silent has a line of its own for what is still to be told.
const KEPT: Duration = INTERVAL.saturating_mul(10);
/// Causes and peers that are told apart; those beyond it share a line a cause.
const KEYS_MAX: usize = 1024;
/// Of a peer's name, which may be its own choice.
const PEER_BYTES_MAX: usize = 256;

/// Stands for the peers beyond the bound.
const OTHERS: &str = "others";

type Key = (&'static str, String);

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Lines(HashMap<Key, Said>);

impl Lines {
    fn take(&mut self, now: Instant, cause: &'static str, peer: &str) -> Option<u64> {
        let key = self.key(now, cause, peer);
        let Some(said) = self.0.get_mut(&key) else {
            let said = Said {
                at: now,
                left_out: 0,
            };
            self.0.insert(key, said);
            return Some(0);
        };
        if now.saturating_duration_since(said.at) < INTERVAL {
            said.left_out += 1;
            return None;
        }
        said.at = now;
        Some(std::mem::take(&mut said.left_out))
    }

    fn key(&mut self, now: Instant, cause: &'static str, peer: &str) -> Key {
        let end = peer.floor_char_boundary(PEER_BYTES_MAX);
        let key = (cause, peer[..end].to_owned());
        if self.0.len() < KEYS_MAX || self.0.contains_key(&key) {
            return key;
        }
        self.forget(now);
        if self.0.len() < KEYS_MAX {
            key
        } else {
            (cause, OTHERS.to_owned())
        }
    }

    /// Makes room.  What is still to be told of a peer is kept for a while, and then
    /// told with the others.
    fn forget(&mut self, now: Instant) {
        let mut untold: HashMap<&'static str, Said> = HashMap::new();
        self.0.retain(|(cause, peer), said| {
            let age = now.saturating_duration_since(said.at);
            if age < INTERVAL || (said.left_out > 0 && (age < KEPT || peer == OTHERS)) {
                return true;
            }
            if said.left_out > 0 {
                let (at, left_out) = (said.at, 0);
                let others = untold.entry(cause).or_insert(Said { at, left_out });
                others.left_out += said.left_out;
            }
            false
        });
        for (cause, said) in untold {
            let key = (cause, OTHERS.to_owned());
            match self.0.get_mut(&key) {
                Some(others) => others.left_out += said.left_out,
                None => drop(self.0.insert(key, said)),
            }
        }
    }
}

/// Whether the line may be written: how many like it were left out since the
/// last one.
pub fn line(cause: &'static str, peer: &str) -> Option<u64> {
    static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(Mutex::default);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.take(Instant::now(), cause, peer)
}

/// Whether a line about this cause may be written, where none says how many were left
/// out.
#[must_use]
pub fn once_a_minute(cause: &str) -> bool {
    line("", cause).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_and_peer_have_one_line_a_minute_that_counts_those_left_out() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(lines.take(at(0), "a", "p"), Some(0));
        assert_eq!(lines.take(at(1), "a", "p"), None);
        assert_eq!(lines.take(at(59), "a", "p"), None);
        assert_eq!(lines.take(at(59), "a", "q"), Some(0));
        assert_eq!(lines.take(at(59), "b", "p"), Some(0));
        assert_eq!(lines.take(at(60), "a", "p"), Some(2));
        assert_eq!(lines.take(at(120), "a", "p"), Some(0));
    }

    #[test]
    fn ever_new_peers_take_no_more_than_the_bound_and_share_a_line() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let peers = |lines: &mut Lines, at: Instant, from: usize| -> usize {
            let names = (from..from + 3 * KEYS_MAX).map(|n| format!("{n}{}", "ü".repeat(500)));
            names
                .filter(|name| lines.take(at, "a", name).is_some())
                .count()
        };
        assert_eq!(peers(&mut lines, start, 0), KEYS_MAX + 1);
        assert_eq!(lines.0.len(), KEYS_MAX + 1);
        assert!(lines.0.keys().all(|(_, peer)| peer.len() <= PEER_BYTES_MAX));
        // A minute later the others' line says how many it stands for.
        let later = start + INTERVAL;
        assert_eq!(
            lines.take(later, "a", OTHERS),
            Some(2 * KEYS_MAX as u64 - 1)
        );
        assert_eq!(peers(&mut lines, later, 10 * KEYS_MAX), KEYS_MAX - 1);
    }

    #[test]
    fn peers_that_are_gone_make_room_and_what_was_left_out_is_told_with_the_others() {
        let mut lines = Lines::default();
        let start = Instant::now();
        for n in 0..KEYS_MAX {
            let peer = n.to_string();
            assert_eq!(lines.take(start, "a", &peer), Some(0));
            assert_eq!(lines.take(start, "a", &peer), None);
        }
        let before = start + KEPT - Duration::from_secs(1);
        assert_eq!(lines.take(before, "b", "new"), Some(0));
        assert_eq!(lines.0.len(), KEYS_MAX + 1, "shared: none is forgotten");
        assert_eq!(lines.take(start + KEPT, "a", "new"), Some(0));
        assert_eq!(
            lines.0.len(),
            3,
            "the new one, and the others of both causes"
        );
        let untold = lines.take(start + KEPT, "a", OTHERS);
        assert_eq!(untold, Some(KEYS_MAX as u64));
    }
}
