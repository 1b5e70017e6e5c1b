//! Reports as rows: one an endpoint.

use monitor_proto::json::{Endpoint, Report};

use crate::{
    output::{Cell, Table, Tone},
    text,
};

/// The table that rows of `rows` fit into, with or without their targets.
pub(super) fn table(targets: bool) -> Table {
    let left = ["TIME", "HOST"].map(Cell::text);
    let sequence = [Cell::figure("SEQ")];
    let target = targets.then(|| Cell::text("TARGET"));
    let endpoint = ["ROLE", "ENDPOINT"].map(Cell::text);
    let figures = [
        "ACTIVE", "OPENED", "REQ/S", "5XX", "IN/S", "OUT/S", "P50", "P99",
    ]
    .map(Cell::figure);
    let note = [Cell::text("NOTE")];
    let head = left
        .into_iter()
        .chain(sequence)
        .chain(target)
        .chain(endpoint)
        .chain(figures)
        .chain(note);
    Table::new(head.collect())
}

/// The rows of a report; one with dashes where it has no endpoint.
pub(super) fn rows(report: &Report, targets: bool) -> Vec<Vec<Cell>> {
    let seconds = report.window_duration_ns as f64 / 1e9;
    let figures: Vec<Vec<Cell>> = if report.endpoints.is_empty() {
        let dash = || Cell::known(None);
        let texts = (0..2 + usize::from(targets)).map(|_| Cell::text("-"));
        vec![texts.chain((0..8).map(|_| dash())).collect()]
    } else {
        report
            .endpoints
            .iter()
            .map(|e| {
                let target = targets.then(|| Cell::text(&e.target));
                target.into_iter().chain(endpoint(e, seconds)).collect()
            })
            .collect()
    };
    figures
        .into_iter()
        .map(|cells| {
            let mut row = vec![
                Cell::text(&time(&report.window_end)),
                Cell::text(name(report)),
                Cell::figure(report.sequence.to_string()),
            ];
            row.extend(cells);
            row.push(note(report));
            row
        })
        .collect()
}

fn endpoint(e: &Endpoint, seconds: f64) -> Vec<Cell> {
    let per_second = |n: u64| {
        if seconds > 0.0 {
            n as f64 / seconds
        } else {
            0.0
        }
    };
    let w = &e.window;
    let errors = w.responses.map(|r| r.server_error);
    let quantile = |ms: Option<f64>| Cell::known(ms.map(text::milliseconds));
    let durations = w.exchange_duration.as_ref();
    let tone = match errors {
        Some(n) if n > 0 => Tone::Bad,
        _ => Tone::Plain,
    };
    vec![
        Cell::text(&e.role),
        Cell::text(if e.name.is_empty() {
            &e.address
        } else {
            &e.name
        }),
        Cell::figure(e.connections_active.to_string()),
        Cell::figure(w.connections_opened.to_string()),
        Cell::known(w.requests.map(|n| text::count(per_second(n)))),
        Cell::known(errors.map(|n| n.to_string())).tone(tone),
        Cell::figure(text::bytes(per_second(w.bytes_received))),
        Cell::figure(text::bytes(per_second(w.bytes_sent))),
        quantile(durations.and_then(|d| d.p50_ms)),
        quantile(durations.and_then(|d| d.p99_ms)),
    ]
}

fn name(report: &Report) -> &str {
    if report.host.name.is_empty() {
        &report.host.id
    } else {
        &report.host.name
    }
}

fn note(report: &Report) -> Cell {
    if report.complete {
        return Cell::text("");
    }
    let why = report.incomplete_reasons.join(", ");
    let text = if why.is_empty() { "incomplete" } else { &why };
    Cell::text(text).tone(Tone::Warn)
}

/// Whole seconds: the day matters as much as the time, fractions do not.
fn time(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}
