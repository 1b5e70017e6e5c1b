//! What is read by HTTP: JSON, live events, metrics and the page.
//!
//! Nothing here writes, so a browser that is tricked into a request changes
//! nothing; `guard` keeps other origins from reading.

mod concurrency_limit;
mod csv;
mod document;
mod guard;
mod health;
mod heatmap;
mod hold;
mod hosts;
mod live;
mod openapi;
mod page;
mod partial;
mod problem;
mod problems;
mod prometheus;
mod reports;
mod series;
mod server;
mod summary;
mod top;

use std::{io, path::PathBuf, sync::Arc};

use axum::{Router, middleware, routing::get};
use budget::Budget;
pub(crate) use guard::{Guard, Names};
use query::{Pool, QueryBackend};
use store::{Fleet, Live, Published};
use tokio::sync::mpsc;
use tower_http::compression::CompressionLayer;

use crate::{listen::Connection, problems::Judgement, self_stats::SelfStats, stop::Stopping};

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct State {
    fleet: Fleet,
    live: Live,
    stats: Arc<SelfStats>,
    budget: Budget,
    pool: Pool,
    query_backend: QueryBackend,
    judgement: Judgement,
    stopping: Stopping,
    store_path: Arc<PathBuf>,
    guard: Guard,
}

impl State {
    pub(crate) fn new(
        published: Published,
        stats: Arc<SelfStats>,
        pool: Pool,
        (query_backend, judgement): (QueryBackend, Judgement),
        stopping: Stopping,
        store_path: PathBuf,
        guard: Guard,
    ) -> Self {
        Self {
            fleet: published.fleet,
            live: published.live,
            stats,
            budget: published.budget,
            pool,
            query_backend,
            judgement,
            stopping,
            store_path: Arc::new(store_path),
            guard,
        }
    }
}

fn router(state: State) -> Router {
    Router::new()
        .route("/api/v1/reports", get(reports::list))
        .route("/api/v1/series", get(series::read))
        .route("/api/v1/heatmap", get(heatmap::read))
        .route("/api/v1/problems", get(problems::list))
        .route("/api/v1/summary", get(summary::read))
        .route("/api/v1/top", get(top::read))
        .route("/api/v1/hosts", get(hosts::list))
        .route("/api/v1/hosts/{id}/stats", get(hosts::stats))
        // Of the routes above alone.
        .route_layer(middleware::from_fn_with_state(
            concurrency_limit::places(),
            concurrency_limit::in_turn,
        ))
        .route("/api/v1/live", get(live::watch))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/metrics", get(prometheus::scrape))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(page::serve)
        .layer(middleware::from_fn_with_state(
            state.budget.clone(),
            hold::whole,
        ))
        // Events are sent as they come: the layer leaves them as they are.
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(
            state.guard.clone(),
            guard::check,
        ))
        .with_state(state)
}

/// Serves until there is no connection to come.
pub(crate) async fn serve(connections: mpsc::Receiver<Connection>, state: State) -> io::Result<()> {
    server::serve(connections, router(state)).await
}
