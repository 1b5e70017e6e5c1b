//! Answers that may be large are built a few at a time.
//!
//! Each may take a hundred megabytes while it is made of what was read; the
//! text that is sent at last is a part of that.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::sync::Semaphore;

/// The store has three threads that read.
const ANSWERS_MAX: usize = 4;

pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ANSWERS_MAX))
}

/// Builds the answer once there is a place; who goes away meanwhile gives up
/// theirs.
pub(super) async fn in_turn(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    // It is never closed.
    let _place = places.acquire().await;
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use axum::{Router, body::Body, middleware, routing::get};
    use tokio::task::{JoinSet, yield_now};
    use tonic::codegen::Service as _;

    use super::*;

    #[tokio::test]
    async fn no_more_than_a_few_are_built_at_once_and_all_in_the_end() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let slow = async || {
            MOST.fetch_max(NOW.fetch_add(1, SeqCst) + 1, SeqCst);
            for _ in 0..100 {
                yield_now().await;
            }
            NOW.fetch_sub(1, SeqCst);
        };
        let router = Router::new()
            .route("/", get(slow))
            .route_layer(middleware::from_fn_with_state(places(), in_turn));
        let mut answers = JoinSet::new();
        for _ in 0..5 * ANSWERS_MAX {
            let mut router = router.clone();
            answers.spawn(async move { router.call(Request::new(Body::empty())).await });
        }
        for answer in answers.join_all().await {
            assert_eq!(answer.unwrap().status(), 200);
        }
        assert_eq!(MOST.load(SeqCst), ANSWERS_MAX);
    }
}
