//! Statistics: measured by the monitoring system, never counted here.

use serde_json::json;

use super::message::{Reply, Request};
use crate::collector::{self, CollectorError};
use crate::control::Control;
use crate::table::Table;

/// The values of the host that the proxy runs on.
pub(super) async fn server(control: &Control) -> Result<Reply, Reply> {
    let table = control.table();
    let host_id = &table.config.raw.collector.host_id;
    if host_id.is_empty() {
        return Err(unconfigured(
            "collector.host_id (this host, as the collector names it)",
        ));
    }
    ask(&table, host_id).await
}

/// The values of the host that a backend runs on.
pub(super) async fn backend(control: &Control, request: &Request) -> Result<Reply, Reply> {
    let (upstream, id) = (
        request.required("upstream")?,
        request.required("backend_id")?,
    );
    let backend = control
        .find(upstream, id)
        .ok_or_else(|| Reply::error(404, format!("unknown backend {id} in upstream {upstream}")))?;
    let Some(host_id) = &backend.config.host_id else {
        return Err(unconfigured(
            "host_id of the backend (its host, as the collector names it)",
        ));
    };
    ask(&control.table(), host_id).await
}

fn unconfigured(key: &str) -> Reply {
    Reply::error(
        503,
        format!(
            "no measured values: configure {key} and collector.url, and run speedmimi-agent on that host"
        ),
    )
}

async fn ask(table: &Table, host_id: &str) -> Result<Reply, Reply> {
    let Some(collector) = &table.collector else {
        return Err(unconfigured("the host's id"));
    };
    let stats = collector.stats(host_id).await.map_err(|error| {
        let unknown = matches!(error, CollectorError::UnknownHost(_));
        Reply::error(if unknown { 404 } else { 502 }, error.to_string())
    })?;
    let age_seconds = collector::age_seconds(&stats);
    Ok(Reply::ok(
        json!({"stats": stats, "age_seconds": age_seconds, "host_id": host_id}),
    ))
}
