//! Reports as comma-separated values (RFC 4180), one line an endpoint.

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use monitor_proto::{
    figures,
    json::{
        Endpoint, Gauge, Report, Responses, Summary, SummaryFigures, SummaryKey, SummaryPart,
        SummaryRange,
    },
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
     responses_5xx,exchange_duration_p50_ms,exchange_duration_p90_ms,exchange_duration_p99_ms,\
     accept_queue_connections,accept_queue_connections_max,accept_queue_limit,accept_queue_drops";

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
    cells.extend(response_cells(w.responses));
    cells.extend([
        known(durations.and_then(|d| d.p50_ms)),
        known(durations.and_then(|d| d.p90_ms)),
        known(durations.and_then(|d| d.p99_ms)),
    ]);
    let queue = e.accept_queue.as_ref();
    cells.extend([
        known(queue.map(|q| q.connections)),
        known(queue.map(|q| q.connections_max)),
        known(queue.map(|q| q.limit)),
        known(queue.map(|q| q.drops)),
    ]);
    cells
}

fn response_cells(responses: Option<Responses>) -> [String; 5] {
    let classes = responses.map(|r| {
        [
            r.informational,
            r.successful,
            r.redirection,
            r.client_error,
            r.server_error,
        ]
    });
    std::array::from_fn(|i| known(classes.map(|classes| classes[i])))
}

const SUMMARY: &str = "row,since,until,host,host_id,upstream,backend,name,endpoint,complete";
const SUMMARY_REST: &str = "responses_1xx,responses_2xx,responses_3xx,responses_4xx,responses_5xx,5xx_ratio,\
     exchange_duration_p50_ms,exchange_duration_p90_ms,exchange_duration_p99_ms,\
     exchange_duration_p999_ms,connect_duration_p50_ms,connect_duration_p99_ms";

/// A summary: a line each row and range, then `~other` and `~total`.
pub(super) fn summary(summary: &Summary) -> String {
    let figures = summary.total.figures.as_ref();
    let figures = figures.or(summary.total.against.as_ref());
    let counters: Vec<&str> = figures
        .into_iter()
        .flat_map(|figures| figures.counters.keys().map(String::as_str))
        .collect();
    let head: Vec<_> = [SUMMARY]
        .into_iter()
        .chain(counters.iter().copied())
        .chain([SUMMARY_REST])
        .collect();
    let mut out = head.join(",") + "\r\n";
    let mut part = |row: &str, key: &SummaryKey, part: &SummaryPart| {
        let ranges = [
            (Some(&summary.range), part.figures.as_ref()),
            (summary.against.as_ref(), part.against.as_ref()),
        ];
        for (range, figures) in ranges {
            let (Some(range), Some(figures)) = (range, figures) else {
                continue;
            };
            let cells = summary_cells(row, range, key, figures, &counters);
            line(&mut out, &cells, &[]);
        }
    };
    for row in &summary.rows {
        part("row", &row.key, &row.part);
    }
    let none = SummaryKey::default();
    if let Some(other) = &summary.other {
        part("~other", &none, other);
    }
    part("~total", &none, &summary.total);
    out
}

fn summary_cells(
    row: &str,
    range: &SummaryRange,
    key: &SummaryKey,
    figures: &SummaryFigures,
    counters: &[&str],
) -> Vec<String> {
    let host = key.host.clone().unwrap_or_default();
    let mut cells = vec![row.to_owned(), range.since.clone(), range.until.clone()];
    let labels = [
        &host.name,
        &host.id,
        &key.upstream,
        &key.backend,
        &key.name,
        &key.endpoint,
    ];
    cells.extend(labels.map(|text| label(text)));
    cells.push(figures.complete.to_string());
    cells.extend(counters.iter().map(|name| known(figures.counter(name))));
    cells.extend(response_cells(figures.responses));
    cells.push(known(figures.server_error_ratio));
    let (exchange, connect) = (figures.exchange_duration, figures.connect_duration);
    cells.extend([
        known(exchange.map(|d| d.p50_ms)),
        known(exchange.map(|d| d.p90_ms)),
        known(exchange.map(|d| d.p99_ms)),
        known(exchange.map(|d| d.p999_ms)),
        known(connect.map(|d| d.p50_ms)),
        known(connect.map(|d| d.p99_ms)),
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
    let (mut at_start, mut is_guarded) = (true, false);
    for c in text.chars() {
        // The tables of a terminal are made of it as well: no control sequence.
        let c = match c {
            '\t' | '\n' | '\r' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        if at_start && FORMULA.contains(&c) {
            guarded.push('\'');
            is_guarded = true;
        }
        at_start = matches!(c, '\n' | '\r') || (at_start && c == ' ');
        guarded.push(c);
    }
    if is_guarded || text.contains(['"', ',', '\n', '\r']) {
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
    fn a_queue_has_its_columns_and_none_has_no_zero() {
        use monitor_proto::v1;
        let last_four = |queue| {
            let report = Report {
                endpoints: vec![Endpoint::from(&v1::Endpoint {
                    accept_queue: queue,
                    ..v1::Endpoint::default()
                })],
                ..Report::default()
            };
            let cells = |line: &str| -> Vec<String> {
                let cells: Vec<_> = line.trim_end().split(',').map(str::to_owned).collect();
                cells[cells.len() - 4..].to_vec()
            };
            (cells(&head()), cells(&lines(&report)))
        };
        let queue = v1::AcceptQueue {
            connections: 3,
            connections_max: 129,
            limit: 128,
            drops: 2,
            drops_total: 7,
            ..v1::AcceptQueue::default()
        };
        let columns = ["connections", "connections_max", "limit", "drops"];
        let (head, cells) = last_four(Some(queue));
        assert_eq!(head, columns.map(|name| format!("accept_queue_{name}")));
        assert_eq!(cells, ["3", "129", "128", "2"]);
        assert_eq!(last_four(None).1, [""; 4]);
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
        assert_eq!(
            label("\u{1b}[2J\u{7}\u{9b}x"),
            "\u{fffd}[2J\u{fffd}\u{fffd}x"
        );
        assert_eq!(label("a\tb"), "a\tb");
    }
}
