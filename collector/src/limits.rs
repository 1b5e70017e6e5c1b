//! How much one host may send.
//!
//! A bucket a host: it may send a spool's worth at once and a steady rate
//! after, so that one host cannot take the writer from the others.  Nor can it
//! take their streams: what is bound to a host has a few.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// A hundred large reports are 20 MB: a spool is replayed without a pause.
const BURST_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
/// A report of a thousand endpoints every 5 s is a tenth of it.
const BYTES_PER_SECOND: f64 = 4.0 * 1024.0 * 1024.0;
/// Beyond this, buckets that are full again are forgotten.
const BUCKETS_MAX: usize = 20_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refilled(self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + seconds * BYTES_PER_SECOND).min(BURST_BYTES)
    }
}

/// The buckets of all hosts.
#[derive(Debug, Default)]
pub(crate) struct HostRates {
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl HostRates {
    /// Whether the host may send so many bytes now.
    pub(crate) fn take(&self, host: &str, bytes: usize, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.refilled(now) < BURST_BYTES);
        }
        let left = buckets
            .get(host)
            .map_or(BURST_BYTES, |bucket| bucket.refilled(now));
        let allowed = left >= bytes as f64;
        let left = if allowed { left - bytes as f64 } else { left };
        buckets.insert(host.to_owned(), Bucket { left, at: now });
        allowed
    }
}

/// Streams by what they were opened with.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<String, u64>>,
}

impl Streams {
    /// Takes one of `max` places of this holder; `None` where all are taken.
    pub(crate) fn take(self: &Arc<Self>, holder: &str, max: u64) -> Option<StreamPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(holder.to_owned()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(StreamPlace {
            streams: Arc::clone(self),
            holder: holder.to_owned(),
        })
    }
}

/// A place that is given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    streams: Arc<Streams>,
    holder: String,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let streams = &self.streams.open;
        let mut open = streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_a_rate_and_each_host_for_itself() {
        let rates = HostRates::default();
        let now = Instant::now();
        let mib = 1 << 20;
        for _ in 0..16 {
            assert!(rates.take("a", 4 * mib, now));
        }
        assert!(!rates.take("a", 4 * mib, now));
        assert!(rates.take("b", 4 * mib, now), "others are not affected");
        let later = now + Duration::from_secs(1);
        assert!(rates.take("a", 4 * mib, later));
        assert!(!rates.take("a", mib, later));
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..16 {
            assert!(rates.take("a", 4 * mib, much_later));
        }
        assert!(
            !rates.take("a", 1, much_later),
            "no more than a burst is saved up"
        );
    }

    #[test]
    fn names_that_come_and_go_cost_bounded_memory() {
        let rates = HostRates::default();
        let now = Instant::now();
        for n in 0..u32::try_from(2 * BUCKETS_MAX).unwrap() {
            let at = now + Duration::from_millis(n.into());
            assert!(rates.take(&n.to_string(), 1, at));
        }
        assert!(rates.buckets.lock().unwrap().len() <= BUCKETS_MAX + 1);
    }

    #[test]
    fn each_holder_has_its_places_and_gives_them_back() {
        let streams = Arc::new(Streams::default());
        let first = streams.take("a", 2).unwrap();
        let second = streams.take("a", 2).unwrap();
        assert!(streams.take("a", 2).is_none());
        assert!(streams.take("b", 2).is_some());
        drop(first);
        assert!(streams.take("a", 2).is_some());
        drop(second);
        assert!(streams.open.lock().unwrap().is_empty(), "none is kept");
    }
}
