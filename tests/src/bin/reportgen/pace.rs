//! Not faster than a collector takes reports of one host: it takes a burst and
//! then a rate, both above what agents ever send, and ends the stream of a host
//! that sends more.

use std::time::{Duration, Instant};

/// Three quarters of the collector's burst, and of its rate.
const BURST_BYTES: f64 = 48.0 * 1024.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 3.0 * 1024.0 * 1024.0;

/// What one host has sent.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    bytes: f64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            bytes: 0.0,
        }
    }

    /// How long to wait before so many bytes more are sent.
    pub(super) fn wait(&mut self, bytes: usize, now: Instant) -> Duration {
        self.bytes += bytes as f64;
        let due_s = (self.bytes - BURST_BYTES).max(0.0) / BYTES_PER_SECOND;
        Duration::from_secs_f64(due_s).saturating_sub(now - self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.wait(48 << 20, now), Duration::ZERO);
        assert_eq!(pace.wait(6 << 20, now), Duration::from_secs(2));
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.wait(3 << 20, later), Duration::ZERO);
    }
}
