//! The signal to stop, as every task sees it.

use tokio::sync::watch;

/// Becomes true once.
pub(crate) type Stopping = watch::Receiver<bool>;

/// Returns when the collector stops.
pub(crate) async fn stopped(stopping: &mut Stopping) {
    // An error means that the sender is gone: that is the end as well.
    drop(stopping.wait_for(|stop| *stop).await);
}
