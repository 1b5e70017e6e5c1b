//! Reports as comma-separated values (RFC 4180), one line an endpoint.

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use monitor_proto::{
    figures,
    json::{Endpoint, Gauge, Report},
};

/// Whether the request asks for CSV.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|media| media.split(';').next().unwrap_or("").trim() == "text/csv")
}

pub(super) fn response(text: Body) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            "text/csv; charset=utf-8; header=present",
        )],
        text,
    )
        .into_response()
}

const REPORT: &str = "window_start,window_end,window_duration_s,host,host_id,epoch,sequence,complete,\
     cpu_usage,memory_usage,disk_usage,load_avg_1,network_in,network_out";
const ENDPOINT: &str = "role,endpoint,name,upstream,backend,target,connections_active";
const REST: &str = "connections_failed,requests,responses_1xx,responses_2xx,responses_3xx,responses_4xx,\
     responses_5xx,exchange_duration_p50_ms,exchange_duration_p90_ms,exchange_duration_p99_ms";

/// The first line: every counter of the shared table has its column.
pub(super) fn head() -> String {
    let counters = figures::COUNTERS.iter().map(|counter| counter.figure.name);
    let columns: Vec<_> = [REPORT, ENDPOINT]
        .into_iter()
        .chain(counters)
        .chain([REST])
        .collect();
    columns.join(",") + "\r\n"
}

/// A report, a line each endpoint; gauges are the window's mean.
pub(super) fn lines(report: &Report) -> String {
    let mut out = String::new();
    let of_report = report_cells(report);
    if report.endpoints.is_empty() {
        // A report without an endpoint has the columns of one empty.
        let columns = head().split(',').count();
        let none = vec![String::new(); columns - of_report.len()];
        line(&mut out, &of_report, &none);
    }
    for endpoint in &report.endpoints {
        line(&mut out, &of_report, &endpoint_cells(endpoint));
    }
    out
}

fn line(out: &mut String, report: &[String], endpoint: &[String]) {
    let cells: Vec<&str> = report.iter().chain(endpoint).map(String::as_str).collect();
    out.push_str(&cells.join(","));
    out.push_str("\r\n");
}

fn report_cells(r: &Report) -> Vec<String> {
    let m = &r.host_metrics;
    let mean = |gauge: Option<Gauge>| known(gauge.map(|gauge| gauge.mean));
    vec![
        r.window_start.clone(),
        r.window_end.clone(),
        (r.window_duration_ns as f64 / 1e9).to_string(),
        label(&r.host.name),
        label(&r.host.id),
        r.agent.epoch.to_string(),
        r.sequence.to_string(),
        r.complete.to_string(),
        mean(m.cpu_usage),
        mean(m.memory_usage),
        mean(m.disk_usage),
        mean(m.load_avg_1),
        mean(m.network_in),
        mean(m.network_out),
    ]
}

fn endpoint_cells(e: &Endpoint) -> Vec<String> {
    let w = &e.window;
    let durations = w.exchange_duration.as_ref();
    let mut cells = vec![
        label(&e.role),
        label(&e.address),
        label(&e.name),
        label(&e.upstream),
        label(&e.backend),
        label(&e.target),
    ];
    cells.push(e.connections_active.to_string());
    let counters = figures::COUNTERS.iter();
    cells.extend(counters.map(|counter| known((counter.json)(w))));
    cells.push(w.connections_failed.total().to_string());
    cells.push(known(w.requests));
    cells.extend([
        known(w.responses.map(|r| r.informational)),
        known(w.responses.map(|r| r.successful)),
        known(w.responses.map(|r| r.redirection)),
        known(w.responses.map(|r| r.client_error)),
        known(w.responses.map(|r| r.server_error)),
        known(durations.and_then(|d| d.p50_ms)),
        known(durations.and_then(|d| d.p90_ms)),
        known(durations.and_then(|d| d.p99_ms)),
    ]);
    cells
}

/// What was not measured is empty.
fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// What a spreadsheet takes for the beginning of a formula, where it begins a
/// cell, in the forms of full width as well.
const FORMULA: [char; 11] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// A text from another machine: quoted, and made a text also for a spreadsheet
/// that splits lines within quotes or leaves out spaces.
fn label(text: &str) -> String {
    let mut guarded = String::with_capacity(text.len());
    let mut at_start = true;
    for c in text.chars() {
        if at_start && FORMULA.contains(&c) {
            guarded.push('\'');
        }
        at_start = matches!(c, '\n' | '\r') || (at_start && c == ' ');
        guarded.push(c);
    }
    if guarded.len() > text.len() || text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_every_column() {
        let none = Report::default();
        let with = Report {
            endpoints: vec![Endpoint::from(&monitor_proto::v1::Endpoint::default())],
            ..Report::default()
        };
        let text = head() + &lines(&none) + &lines(&with);
        let columns: Vec<_> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [columns[0]; 3]);
    }

    #[test]
    fn every_counter_has_its_column_and_what_was_not_measured_none() {
        use monitor_proto::v1;
        let cell = |counters: v1::Counters, column: &str| {
            let endpoint = v1::Endpoint {
                window: Some(counters),
                ..v1::Endpoint::default()
            };
            let head = head();
            let place = head.trim_end().split(',').position(|name| name == column);
            let report = Report {
                endpoints: vec![Endpoint::from(&endpoint)],
                ..Report::default()
            };
            let line = lines(&report);
            let cells: Vec<_> = line.trim_end().split(',').collect();
            cells[place.unwrap()].to_owned()
        };
        for counter in figures::COUNTERS {
            let mut counters = v1::Counters::default();
            *(counter.place)(&mut counters) = 7;
            assert_eq!(cell(counters, counter.figure.name), "7");
            let measured = (counter.figure.read)(&v1::Counters::default()).is_some();
            let none = if measured { "0" } else { "" };
            assert_eq!(cell(v1::Counters::default(), counter.figure.name), none);
        }
    }

    #[test]
    fn a_label_is_neither_a_separator_nor_a_formula() {
        assert_eq!(label("web-1"), "web-1");
        assert_eq!(label("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(label("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(label("a\n=1"), "\"a\n'=1\"");
        assert_eq!(label("a\r\n @x"), "\"a\r'\n '@x\"");
        assert_eq!(label(" ＝1"), "\" '＝1\"");
        assert_eq!(label("a-b=c+d@e"), "a-b=c+d@e");
    }
}
