//! How long is waited for a peer to take what is sent to it.
//!
//! What it takes earns it more time: who takes a byte now and then does not hold
//! an answer for ever, and who is slow gets all of it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// Who takes less runs out of it.
const BYTES_PER_SECOND_MIN: f64 = 8192.0;

#[derive(Debug)]
pub(crate) struct WriteTimeout {
    max: Duration,
    left: Duration,
    // While nothing is taken.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl WriteTimeout {
    /// At most so long at once.
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            max,
            left: max,
            waiting: None,
        }
    }

    /// So much was taken.
    pub(crate) fn earn(&mut self, bytes: usize) {
        if let Some(waiting) = self.waiting.take() {
            self.left = waiting.deadline().saturating_duration_since(Instant::now());
        }
        let earned = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND_MIN);
        self.left = (self.left + earned).min(self.max);
    }

    /// Nothing can be sent; ready once that was so for too long.
    pub(crate) fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(left)));
        waiting.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    /// Whether it ends before long, where so much is taken now and then.
    async fn ends(bytes: usize) -> bool {
        let max = Duration::from_secs(1);
        let mut write_timeout = WriteTimeout::new(max);
        let begun = Instant::now();
        while begun.elapsed() < 2 * max {
            let wait = poll_fn(|context| write_timeout.wait(context));
            if timeout(max / 50, wait).await.is_ok() {
                return true;
            }
            write_timeout.earn(bytes);
        }
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_buys_no_time_and_what_is_enough_does() {
        assert!(ends(1).await);
        assert!(!ends(1 << 20).await);
    }
}
