//! Reports as rows: one an endpoint.

use monitor_proto::{
    display::{self, UNKNOWN},
    json::{AcceptQueue, Endpoint, Report},
};

use crate::output::{Cell, Table, Tone};

const FIGURES: [&str; 13] = [
    "ACTIVE", "OPENED", "REQ/S", "EXCH/S", "5XX", "RESET", "NOANS", "TLSFAIL", "QUEUE", "IN/S",
    "OUT/S", "P50", "P99",
];

/// The table that rows of `rows` fit into, with or without their targets.
pub(super) fn table(targets: bool) -> Table {
    let left = ["TIME", "HOST"].map(Cell::text);
    let sequence = [Cell::figure("SEQ")];
    let target = targets.then(|| Cell::text("TARGET"));
    let endpoint = ["ROLE", "ENDPOINT"].map(Cell::text);
    let figures = FIGURES.map(Cell::figure);
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

/// The rows of a report; one with dashes where it has no endpoint.  `silence`
/// says that its host no longer reports.
pub(super) fn rows(report: &Report, targets: bool, silence: Option<&str>) -> Vec<Vec<Cell>> {
    let seconds = report.window_duration_ns as f64 / 1e9;
    let row = |endpoint: Option<&Endpoint>| {
        let mut row = vec![
            Cell::text(&time(&report.window_end)),
            Cell::text(name(report)),
            Cell::figure(report.sequence.to_string()),
        ];
        if let Some(e) = endpoint {
            row.extend(targets.then(|| Cell::text(&e.target)));
            row.extend(self::endpoint(e, seconds));
        } else {
            let texts = 2 + usize::from(targets);
            row.extend((0..texts).map(|_| Cell::text(UNKNOWN)));
            row.extend(FIGURES.map(|_| Cell::known(None)));
        }
        row.push(note(report, endpoint, silence));
        row
    };
    if report.endpoints.is_empty() {
        vec![row(None)]
    } else {
        report.endpoints.iter().map(Some).map(row).collect()
    }
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
    let quantile = |ms| Cell::figure(display::exchange_duration(ms, e.protocol));
    let durations = w.exchange_duration.as_ref();
    let fault = |n: Option<u64>| {
        let tone = match n {
            Some(1..) => Tone::Bad,
            Some(0) | None => Tone::Plain,
        };
        Cell::known(n.map(|n| n.to_string())).tone(tone)
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
        Cell::known(w.requests.map(|n| display::count(per_second(n)))),
        Cell::known(w.exchanges.map(|n| display::count(per_second(n)))),
        fault(w.responses.map(|r| r.server_error)),
        fault(w.closed_reset_received),
        fault(w.requests_without_response),
        fault(w.tls_failed()),
        queue(e),
        Cell::figure(display::bytes(per_second(w.bytes_received))),
        Cell::figure(display::bytes(per_second(w.bytes_sent))),
        quantile(durations.and_then(|d| d.p50_ms)),
        quantile(durations.and_then(|d| d.p99_ms)),
    ]
}

/// Now, at the most and limit; of backends and of what cannot be looked at there is none.
fn queue(e: &Endpoint) -> Cell {
    let queue = e.accept_queue.as_ref();
    let is_full = queue.is_some_and(|q| q.connections_max > q.limit);
    let shown = |q: &AcceptQueue| display::accept_queue(q.connections, q.connections_max, q.limit);
    Cell::known(queue.map(shown)).tone(if is_full { Tone::Bad } else { Tone::Plain })
}

fn name(report: &Report) -> &str {
    if report.host.name.is_empty() {
        &report.host.id
    } else {
        &report.host.name
    }
}

fn note(report: &Report, endpoint: Option<&Endpoint>, silence: Option<&str>) -> Cell {
    let not_http = endpoint.and_then(|e| display::note(e.protocol, e.spoken()));
    if let Some(silence) = silence {
        return Cell::text(silence).tone(Tone::Bad);
    }
    let mut notes: Vec<&str> = not_http.as_deref().into_iter().collect();
    let why = report.incomplete_reasons.join(", ");
    if !report.complete {
        notes.push(if why.is_empty() { "incomplete" } else { &why });
    }
    notes.extend(report.notes.iter().map(String::as_str));
    let plain = report.complete && report.notes.is_empty();
    Cell::text(&notes.join("; ")).tone(if plain { Tone::Plain } else { Tone::Warn })
}

/// Whole seconds: the day matters as much as the time, fractions do not.
fn time(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use monitor_proto::v1;

    use super::*;

    #[test]
    fn a_full_queue_stands_out_and_none_is_a_dash() {
        let shown = |queue: Option<(u64, u64)>| {
            self::queue(&Endpoint::from(&v1::Endpoint {
                accept_queue: queue.map(|(connections, connections_max)| v1::AcceptQueue {
                    connections,
                    connections_max,
                    limit: 128,
                    ..Default::default()
                }),
                ..Default::default()
            }))
        };
        assert_eq!(shown(None), Cell::figure("–"));
        assert_eq!(shown(Some((3, 128))), Cell::figure("3/128/128"));
        let full = Cell::figure("3/129/128").tone(Tone::Bad);
        assert_eq!(shown(Some((3, 129))), full);
    }

    #[test]
    fn what_the_agent_notes_is_shown_beside_what_is_incomplete() {
        let shown = |complete, notes: &[&str]| {
            let report = Report::from(&v1::Report {
                complete,
                notes: notes.iter().map(|&note| note.to_owned()).collect(),
                ..Default::default()
            });
            note(&report, None, None)
        };
        let why = "names: cannot read /etc/nginx/nginx.conf";
        assert_eq!(shown(true, &[]), Cell::text(""));
        assert_eq!(shown(true, &[why]), Cell::text(why).tone(Tone::Warn));
        let both = format!("incomplete; {why}");
        assert_eq!(shown(false, &[why]), Cell::text(&both).tone(Tone::Warn));
    }
}
