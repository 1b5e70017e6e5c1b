//! Requests that wait while every backend of their upstream is at its `max_conn`,
//! of all workers together, first come, first served.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::task::Poll;

use tokio::sync::Notify;

use super::client::Conn;
use super::exchange::Exchange;
use super::pool::Lease;
use super::timers::ticks;
use http1::reject::Reject;

/// The queue of one upstream; kept over reloads.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: AtomicU32,
    freed: Notify,
}

impl Queue {
    /// Whether any request waits.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes the first request in the queue.
    pub fn wake_first(&self) {
        if self.is_occupied() {
            self.freed.notify_one();
        }
    }

    /// Wakes all requests in the queue: a reload may have freed several slots.
    pub fn wake_all(&self) {
        self.freed.notify_waiters();
    }

    /// Enters the queue, and says whether it was empty; `None` where `limit` wait
    /// already.
    fn enter(self: &Arc<Self>, limit: u32) -> Option<(Waiting, bool)> {
        let entered = self
            .waiting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
                (waiting < limit).then(|| waiting + 1)
            });
        let before = entered.ok()?;
        Some((Waiting(Arc::clone(self)), before == 0))
    }
}

/// A position in a queue, given up when dropped.
struct Waiting(Arc<Queue>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why a request leaves the queue without a slot.
pub(super) enum QueueError {
    /// The client gets this error.
    Refused(Reject),
    /// The client is gone.
    Abandoned,
}

impl Conn {
    /// Waits for a slot at a backend.
    pub(super) async fn wait_in_queue(
        &mut self,
        exchange: &mut Exchange,
    ) -> Result<Lease, QueueError> {
        let worker = Rc::clone(&self.worker);
        let (upstream, algorithm, client) = exchange.route;
        let local = worker.table();
        let (Some(queue), Some(configured)) = (
            local.table.queues.get(upstream).map(Arc::clone),
            local.table.config.upstreams.get(upstream),
        ) else {
            return Err(QueueError::Refused(Reject::NoBackend));
        };
        let Some((waiting, mut look)) = queue.enter(configured.queue) else {
            return Err(QueueError::Refused(Reject::BackendsFull));
        };
        self.timer.arm(ticks(configured.queue_timeout));
        drop(local);
        loop {
            let mut freed = std::pin::pin!(queue.freed.notified());
            freed.as_mut().enable();
            // Who finds others waiting does not overtake them.
            if std::mem::replace(&mut look, true) {
                // After it has entered: what changes from now on wakes it.
                fence(Ordering::SeqCst);
                // A reload may have changed the backends, and where they stand.
                let local = worker.table();
                let at = local
                    .table
                    .queues
                    .iter()
                    .position(|one| Arc::ptr_eq(one, &queue));
                let upstream = at.unwrap_or(usize::MAX);
                match worker.choose(&local, upstream, algorithm, client, None) {
                    Ok(lease) => {
                        drop(waiting);
                        // One was woken, but more may have become free. In vain it
                        // would lose its turn.
                        if local.has_capacity(upstream) {
                            queue.wake_first();
                        }
                        return Ok(lease);
                    }
                    Err(Reject::BackendsFull) => {}
                    Err(reject) => {
                        queue.wake_first();
                        return Err(QueueError::Refused(reject));
                    }
                }
            }
            let woken = poll_fn(|cx| {
                if self.timer.fired() {
                    return Poll::Ready(Err(QueueError::Refused(Reject::QueueTimeout)));
                }
                if self.watch_client(exchange, cx).is_ready() {
                    return Poll::Ready(Err(QueueError::Abandoned));
                }
                freed.as_mut().poll(cx).map(Ok)
            });
            woken.await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::{Duration, Instant};

    use crate::backend::Backend;
    use crate::config::Config;
    use crate::table::Table;

    fn table(limit: u32, earlier: Option<&Table>) -> Table {
        let text =
            format!("backends: {{u: [{{id: a, host: 127.0.0.1, port: 1, max_conn: {limit}}}]}}");
        Table::build(Config::parse(&text).unwrap(), earlier).unwrap()
    }

    /// Whether a request that waits in the queue of `table` is woken by `change`.
    fn wakes(table: &Table, change: impl FnOnce(&Backend), of: &Backend) -> bool {
        let queue = &table.queues[0];
        let _waiting = queue.enter(1).unwrap();
        let mut freed = std::pin::pin!(queue.freed.notified());
        freed.as_mut().enable();
        change(of);
        freed
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_place_taken_before_there_was_a_limit_is_given_to_who_waits_since() {
        let unlimited = table(0, None);
        let earlier = &unlimited.upstreams[0][0];
        assert!(earlier.try_acquire());
        let limited = table(1, Some(&unlimited));
        assert!(!limited.upstreams[0][0].try_acquire());
        assert!(wakes(&limited, Backend::release, earlier));
        assert!(limited.upstreams[0][0].try_acquire());
    }

    #[test]
    fn a_backend_that_may_be_used_again_is_looked_for_by_who_waits() {
        let table = table(1, None);
        let backend = &table.upstreams[0][0];
        backend.set_disconnected(true);
        assert!(wakes(&table, |one| one.set_disconnected(false), backend));
        assert!(backend.note_check(false, 1));
        assert!(wakes(
            &table,
            |one| assert!(one.note_check(true, 1)),
            backend
        ));
        let now = Instant::now();
        let lasts = backend.eject(now, Duration::from_secs(1));
        let readmit = |one: &Backend| assert!(one.readmit(now + lasts, Duration::from_secs(1)));
        assert!(wakes(&table, readmit, backend));
    }
}
