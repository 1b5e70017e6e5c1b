//! Connections on which nothing goes on.
//!
//! A peer that answers pings lives, but one that asks for nothing, or takes
//! nothing of what it asked for, would keep its place for ever.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// The streams of one connection that wait for the collector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Streams {
    pub(crate) fn begin(&self) -> Waiting {
        self.0.begun.fetch_add(1, Relaxed);
        Waiting(self.clone())
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Streams);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Relaxed);
    }
}

/// How long there was none.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) streams: Streams,
    max: Duration,
    // How many had begun when it was looked at last.
    begun: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            streams: Streams::default(),
            max,
            begun: 0,
            sleep: None,
        }
    }

    /// Ready once there was none for too long.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let count = &self.streams.0;
        // In this order, so that no more seem to have ended than to have begun.
        let ended = count.ended.load(Relaxed);
        let begun = count.begun.load(Relaxed);
        // One may have begun and ended since.
        if begun != self.begun || begun != ended {
            self.begun = begun;
            self.sleep = None;
        }
        if begun != ended {
            return Poll::Pending;
        }
        let max = self.max;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(max)));
        sleep.as_mut().poll(context)
    }
}
