//! The newest reports of many hosts, written one after another.
//!
//! The page asks for all of them when it opens: as one text, or decoded at
//! once, a fleet's would be the largest thing in memory.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use monitor_proto::json;

use crate::fleet::HostState;

/// What is sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A `json::Reports` of these hosts.
pub(super) fn stream(hosts: Vec<Arc<HostState>>) -> Response {
    let reports = hosts.into_iter().filter_map(|host| {
        let report = json::Report::from(&host.report()?);
        serde_json::to_string(&report)
            .inspect_err(|error| tracing::error!(%error, "a newest report is no JSON"))
            .ok()
    });
    let chunks = chunks(reports).map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(tokio_stream::iter(chunks)),
    )
        .into_response()
}

fn chunks(mut reports: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut before = r#"{"reports":["#;
    let mut ended = false;
    std::iter::from_fn(move || {
        let mut out = String::new();
        while !ended && out.len() < CHUNK_BYTES {
            if let Some(report) = reports.next() {
                out.push_str(before);
                out.push_str(&report);
                before = ",";
            } else {
                // Nothing was written before the first report.
                out.push_str(if before == "," { "" } else { before });
                out.push_str(r#"],"next_cursor":null}"#);
                ended = true;
            }
        }
        (!out.is_empty()).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_are_one_document() {
        for n in [0, 1, 2, 5000] {
            let reports = (0..n).map(|i| serde_json::to_string(&format!("report {i}")).unwrap());
            let chunks: Vec<String> = chunks(reports).collect();
            assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 100));
            let read: serde_json::Value = serde_json::from_str(&chunks.concat()).unwrap();
            assert_eq!(read["reports"].as_array().unwrap().len(), n);
            assert!(read["next_cursor"].is_null());
        }
    }
}
