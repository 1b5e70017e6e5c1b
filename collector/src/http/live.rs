//! `/api/v1/live`: reports as server-sent events.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use axum::{
    Extension,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use budget::{Held, Use};
use monitor_proto::{json, v1};
use query::{Engine, QueryBackend};
use serde::Deserialize;
use store::LiveReport;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::MissedTickBehavior,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{State, problem::Problem};
use crate::{
    auth::Peer,
    self_stats::{Place, take_place},
    stop::{Stopping, stopped},
};

/// Watchers at once; each costs a task and a few events.
const WATCHERS_MAX: u64 = 256;
/// Events that wait for a watcher's connection; then the lag is counted.
const EVENTS_MAX: usize = 4;
/// How often an engine is asked for a watcher.
const ENGINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often an idle connection is written to, so that its end is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LiveQuery {
    host: String,
}

/// Event `report`: a report, as `/api/v1/reports` gives it.  Event `skipped`:
/// how many were left out because the reader was too slow.
pub(super) async fn watch(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<LiveQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let place =
        take_place(&state.stats, |s| &s.watchers_active, WATCHERS_MAX).ok_or_else(|| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{WATCHERS_MAX} watchers are already connected: try again later"),
            )
        })?;
    let (events, queue) = mpsc::channel(EVENTS_MAX);
    match state.query_backend.clone() {
        QueryBackend::Store(..) => {
            let room = state.budget.open(Use::Watchers, &peer.name());
            tokio::spawn(forward(state, query.host, room, events, place))
        }
        QueryBackend::Engine(engine) => {
            tokio::spawn(follow(state.stopping, engine, query.host, events, place))
        }
    };
    // What is taken is written at once.
    let taken = ReceiverStream::new(queue).map(|(event, _held)| Ok::<_, Infallible>(event));
    Ok(Sse::new(taken).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// An event of a watcher, and its room until it is taken.
type QueuedEvent = (Event, Option<Held>);

async fn forward(
    mut state: State,
    host: String,
    room: Held,
    events: mpsc::Sender<QueuedEvent>,
    _place: Place,
) {
    let mut reports = state.live.watch();
    // Tells the watcher that it misses nothing from here on.
    if events
        .send((Event::default().comment("watching"), None))
        .await
        .is_err()
    {
        return;
    }
    loop {
        let next = tokio::select! {
            next = reports.recv() => next,
            () = events.closed() => return,
            () = stopped(&mut state.stopping) => return,
        };
        let event = match next {
            Ok(report) if report.is_of(&host) => {
                let room = room.another(0).ok();
                let made = state.pool.run(move || event(&report, room?)).await;
                made.ok().flatten().or_else(|| Some(skipped(1)))
            }
            Ok(_) => None,
            Err(RecvError::Lagged(n)) => Some(skipped(n)),
            Err(RecvError::Closed) => return,
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// Asks the engine again and again, and tells what is new; event `partial`
/// tells why something may be missing.
async fn follow(
    mut stopping: Stopping,
    engine: Engine,
    host: String,
    events: mpsc::Sender<QueuedEvent>,
    _place: Place,
) {
    let mut ticks = tokio::time::interval(ENGINE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent: HashMap<String, u64> = HashMap::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = events.closed() => return,
            () = stopped(&mut stopping) => return,
        }
        let (reports, partial) = match engine.newest(&host).await {
            Ok(newest) => (newest.value, newest.partial),
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        let mut new = Vec::new();
        if !partial.is_empty() {
            let data = serde_json::json!({ "partial": partial });
            new.push(Event::default().event("partial").data(data.to_string()));
        }
        for report in &reports {
            let id = report.host.as_ref().map_or("", |host| host.id.as_str());
            let end = report.window_end_unix_ns;
            if sent.insert(id.to_owned(), end) != Some(end) {
                new.extend(event_of(report));
            }
        }
        for event in new {
            if events.send((event, None)).await.is_err() {
                return;
            }
        }
    }
}

fn skipped(n: u64) -> QueuedEvent {
    let data = serde_json::json!({ "skipped": n });
    let event = Event::default().event("skipped").data(data.to_string());
    (event, None)
}

/// `None` where there is no room for it, or it is unreadable.
fn event(live: &LiveReport, room: Held) -> Option<QueuedEvent> {
    let (report, held) = live.decoded(room)?;
    Some((event_of(&report)?, Some(held)))
}

fn event_of(report: &v1::Report) -> Option<Event> {
    let data = serde_json::to_string(&json::Report::from(report)).ok()?;
    let epoch = report.agent.as_ref().map_or(0, |agent| agent.epoch);
    let id = format!("{epoch}-{}", report.sequence);
    Some(Event::default().event("report").id(id).data(data))
}
