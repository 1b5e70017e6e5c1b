//! The screen.

use std::time::Instant;

use monitor_proto::{
    display::{self, Column, UNKNOWN, known},
    json::{AcceptQueue, Endpoint, Gauge, Report},
    protocol::Protocol,
};
use problems::{Severity, headlines};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Sparkline},
};

use super::{
    model::{Focus, Health, Host, Model, per_second, request_rate},
    order::{self, SortBy},
    table::{self, Cell},
};
use crate::targets;

const DIM: Style = Style::new().fg(Color::DarkGray);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// The columns of hosts, the dispensable ones with a rank.
const HOSTS: [Column; 7] = [
    Column::name("HOST", 0, 12),
    Column::name("HEALTH", 0, 10),
    Column::figure("SEEN", 2),
    Column::figure("CPU", 1),
    Column::figure("MEMORY", 3),
    Column::figure("LOAD", 4),
    Column::figure("REQ/S", 0),
];

/// The columns of endpoints, in the same way.
const ENDPOINTS: [Column; 16] = [
    Column::name("TARGET", 7, 10),
    Column::name("ROLE", 5, "downstream".len()),
    Column::name("ENDPOINT", 0, 16),
    Column::figure("ACTIVE", 3),
    Column::figure("REQ/S", 0),
    Column::figure("EXCH/S", 1),
    Column::figure("5XX", 0),
    Column::figure("RESET", 2),
    Column::figure("NOANS", 2),
    Column::figure("TLSFAIL", 2),
    Column::figure("QUEUE", 2),
    Column::figure("IN/S", 4),
    Column::figure("OUT/S", 4),
    Column::figure("P50", 6),
    Column::figure("P99", 0),
    Column::name("NOTE", 8, 38),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let hosts = u16::try_from(model.hosts.len()).unwrap_or(u16::MAX);
    // However many hosts there are, endpoints have half of what is left.
    let problems = problem_lines(model);
    let wrong = u16::try_from(problems.len()).unwrap_or(0);
    let half = frame.area().height.saturating_sub(7 + wrong) / 2;
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(wrong),
        Constraint::Length(hosts.saturating_add(3).min(half.max(4))),
        Constraint::Min(5),
        Constraint::Length(5),
        Constraint::Length(1),
    ]);
    let [title, wrong, hosts, endpoints, spark, keys] = rows.areas(frame.area());
    frame.render_widget(title_line(model), title);
    frame.render_widget(Text::from(problems), wrong);
    draw_hosts(frame, hosts, model, now);
    if let Some(host) = model.hosts.values().nth(model.chosen()) {
        draw_endpoints(frame, endpoints, model, host);
        draw_spark(frame, spark, host);
    }
    frame.render_widget(key_line(model), keys);
}

/// Problems that are shown; the others are counted.
const PROBLEMS_SHOWN: usize = 5;

/// What is wrong now, the worst first; nothing where nobody has said it.
fn problem_lines(model: &Model) -> Vec<Line<'static>> {
    let Some(now) = &model.problems else {
        return Vec::new();
    };
    headlines(now, PROBLEMS_SHOWN)
        .into_iter()
        .map(|(severity, line)| {
            let color = match severity {
                Some(Severity::Critical) => Color::Red,
                Some(Severity::Warning) => Color::Yellow,
                Some(Severity::Info) => Color::Blue,
                None => Color::Green,
            };
            Line::styled(format!(" {line}"), Style::new().fg(color))
        })
        .collect()
}

fn title_line(model: &Model) -> Line<'_> {
    let (word, color) = if model.connected {
        ("live", Color::Green)
    } else {
        ("reconnecting", Color::Yellow)
    };
    Line::from(vec![
        Span::styled(" SpeedMimi ", HEAD),
        Span::styled(display::printable(&model.url).into_owned(), DIM),
        Span::raw("  "),
        Span::styled(word, Style::new().fg(color)),
    ])
}

/// The keys, with the one that sorts now in bold.
fn key_line(model: &Model) -> Line<'static> {
    let mut spans = vec![Span::styled(" sort:", DIM)];
    for (letter, name, by) in SortBy::ALL {
        let style = if by == model.sort_by { HEAD } else { DIM };
        spans.push(Span::styled(format!(" {letter} {name}"), style));
    }
    let other = match model.focus() {
        Focus::Hosts => "endpoints",
        Focus::Endpoints => "hosts",
    };
    let rest = format!(" i invert Tab {other} q end");
    spans.push(Span::styled(rest, DIM));
    Line::from(spans)
}

fn block(title: String, focused: bool) -> Block<'static> {
    let border = if focused { Style::new() } else { DIM };
    Block::bordered().border_style(border).title(title)
}

fn draw_hosts(frame: &mut Frame<'_>, area: Rect, model: &Model, now: Instant) {
    let rows: Vec<_> = model.hosts.values().map(|h| host_row(h, now)).collect();
    let title = format!("Hosts {}", place(model.chosen(), rows.len()));
    let block = block(title, model.focus() == Focus::Hosts);
    table::draw(frame, area, block, &HOSTS, &rows, model.chosen());
}

/// Which of how many is chosen.
fn place(chosen: usize, all: usize) -> String {
    format!("{}/{all}", (chosen + 1).min(all))
}

fn host_row(host: &Host, now: Instant) -> Vec<Cell> {
    let (word, color) = match host.health(now) {
        Health::Good => ("healthy", Color::Green),
        Health::Incomplete => ("incomplete", Color::Yellow),
        Health::Late => ("late", Color::Yellow),
        Health::Silent => ("silent", Color::Red),
    };
    let m = &host.report.host_metrics;
    let percent = |gauge: Option<Gauge>| known(gauge.map(|g| format!("{:.1} %", g.last)));
    let plain = |text| (text, Style::new());
    vec![
        plain(name(&host.report)),
        (word.to_owned(), Style::new().fg(color)),
        plain(display::age(now.saturating_duration_since(host.seen))),
        plain(percent(m.cpu_usage)),
        plain(percent(m.memory_usage)),
        plain(known(m.load_avg_1.map(|g| format!("{:.2}", g.last)))),
        plain(known(request_rate(&host.report).map(display::count))),
    ]
}

fn draw_endpoints(frame: &mut Frame<'_>, area: Rect, model: &Model, host: &Host) {
    let report = &host.report;
    let endpoints = model.endpoints();
    // Columns that would say nothing are not there.
    let several = targets::several(report);
    let exchanges = endpoints.iter().any(|e| has_exchanges(e));
    let any = |fault: fn(&Endpoint) -> Option<u64>| endpoints.iter().any(|e| fault(e) > Some(0));
    let is_there = |column: &Column| match column.head {
        "TARGET" => several,
        "EXCH/S" | "NOTE" => exchanges,
        "RESET" => any(|e| e.window.closed_reset_received),
        "NOANS" => any(|e| e.window.requests_without_response),
        "TLSFAIL" => any(|e| e.window.tls_failed()),
        "QUEUE" => endpoints.iter().any(|e| e.accept_queue.is_some()),
        _ => true,
    };
    let kept: Vec<usize> = (0..ENDPOINTS.len())
        .filter(|i| is_there(&ENDPOINTS[*i]))
        .collect();
    let columns: Vec<Column> = kept.iter().map(|i| ENDPOINTS[*i]).collect();
    let row = |e: &&Endpoint| -> Vec<Cell> {
        let mut cells: Vec<_> = endpoint_cells(e, report).map(Some).into();
        kept.iter().filter_map(|i| cells[*i].take()).collect()
    };
    let rows: Vec<Vec<Cell>> = endpoints.iter().map(row).collect();
    let chosen = model.endpoint.min(rows.len().saturating_sub(1));
    let title = format!(
        "{} report {}, endpoints {}",
        name(report),
        report.sequence,
        place(chosen, rows.len())
    );
    let block = block(title, model.focus() == Focus::Endpoints);
    table::draw(frame, area, block, &columns, &rows, chosen);
}

fn has_exchanges(e: &Endpoint) -> bool {
    matches!(e.protocol, Some(Protocol::Other | Protocol::Mixed))
}

fn endpoint_cells(e: &Endpoint, report: &Report) -> [Cell; ENDPOINTS.len()] {
    let w = &e.window;
    let rate = |n| per_second(n, report);
    let fault = |n: Option<u64>| {
        let style = match n {
            Some(1..) => Style::new().fg(Color::Red),
            Some(0) | None => Style::new(),
        };
        (known(n.map(|n| n.to_string())), style)
    };
    let durations = w.exchange_duration.as_ref();
    let duration = |ms| display::exchange_duration(ms, e.protocol);
    let plain = |text| (text, Style::new());
    [
        plain(display::printable(&e.target).into_owned()),
        plain(display::printable(&e.role).into_owned()),
        plain(display::printable(&order::label(e)).into_owned()),
        plain(e.connections_active.to_string()),
        plain(known(w.requests.map(|n| display::count(rate(n))))),
        plain(known(w.exchanges.map(|n| display::count(rate(n))))),
        fault(w.responses.map(|r| r.server_error)),
        fault(w.closed_reset_received),
        fault(w.requests_without_response),
        fault(w.tls_failed()),
        queue(e),
        plain(display::bytes(rate(w.bytes_received))),
        plain(display::bytes(rate(w.bytes_sent))),
        plain(duration(durations.and_then(|d| d.p50_ms))),
        plain(duration(durations.and_then(|d| d.p99_ms))),
        (
            display::note(e.protocol, e.spoken()).unwrap_or_default(),
            DIM,
        ),
    ]
}

fn queue(e: &Endpoint) -> Cell {
    let queue = e.accept_queue.as_ref();
    let is_full = queue.is_some_and(|q| q.connections_max > q.limit);
    let style = if is_full {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    let shown = |q: &AcceptQueue| display::accept_queue(q.connections, q.connections_max, q.limit);
    (known(queue.map(shown)), style)
}

fn draw_spark(frame: &mut Frame<'_>, area: Rect, host: &Host) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = host.history.len().saturating_sub(width);
    let data: Vec<Option<u64>> = host.history.iter().skip(skipped).copied().collect();
    let title = if data.iter().any(Option::is_some) {
        "Requests per second"
    } else {
        "Requests per second: none can be seen"
    };
    let spark = Sparkline::default()
        .data(data)
        .absent_value_symbol(UNKNOWN)
        .style(Style::new().fg(Color::Cyan))
        .block(block(title.to_owned(), false));
    frame.render_widget(spark, area);
}

fn name(report: &Report) -> String {
    let name = if report.host.name.is_empty() {
        &report.host.id
    } else {
        &report.host.name
    };
    display::printable(name).into_owned()
}

#[cfg(test)]
mod tests {
    use monitor_proto::v1;
    use problems::Problems;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::model::Key;

    fn screen_of(model: &Model, now: Instant, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 24)).unwrap();
        terminal.draw(|frame| draw(frame, model, now)).unwrap();
        terminal.backend().to_string()
    }

    fn screen(model: &Model, now: Instant) -> String {
        screen_of(model, now, 110)
    }

    #[test]
    fn the_figures_of_the_chosen_host_are_on_the_screen() {
        let now = Instant::now();
        let mut model = Model::new("http://127.0.0.1:7601".into());
        assert!(screen(&model, now).contains("live"), "also without a host");
        let report = v1::Report {
            host: Some(v1::Host {
                name: "web\u{1b}[2J".into(),
                ..Default::default()
            }),
            complete: true,
            window_duration_ns: 5_000_000_000,
            endpoints: vec![v1::Endpoint {
                role: v1::Role::Downstream.into(),
                address: "10.0.0.1:80".into(),
                connections_active: 42,
                window: Some(v1::Counters {
                    bytes_sent: 5 * 2048,
                    http: Some(v1::HttpCounters {
                        requests: 1000,
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        model.add(Report::from(&report), now);
        let text = screen(&model, now);
        for figure in [
            "healthy",
            "10.0.0.1:80",
            "42",
            "200",
            "2.0 KiB",
            "downstream",
        ] {
            assert!(text.contains(figure), "{figure}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(!text.contains("TARGET"), "there is one");
    }

    #[test]
    fn endpoints_of_two_targets_are_told_apart() {
        let now = Instant::now();
        let endpoint = |target: &str| v1::Endpoint {
            address: "10.0.0.1:80".into(),
            target: target.into(),
            ..Default::default()
        };
        let report = v1::Report {
            endpoints: ["/a", "/system.slice/a-long-name.service"]
                .map(endpoint)
                .into(),
            ..Default::default()
        };
        let mut model = Model::new(String::new());
        model.add(Report::from(&report), now);
        let text = screen_of(&model, now, 80);
        for shown in ["TARGET", "/a ", "…long-name.service "] {
            assert!(text.contains(shown), "{shown}:\n{text}");
        }
    }

    #[test]
    fn what_is_wrong_stands_above_everything() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        model.problems = Some(Problems {
            hosts: 3,
            ..Problems::default()
        });
        let text = screen_of(&model, now, 80);
        assert!(text.contains("nothing is wrong on 3 hosts"), "{text}");
        let problem = |n| {
            serde_json::from_value(serde_json::json!({
                "kind": "x", "severity": "critical", "since": "", "evidence": [], "next": "",
                "subject": {"type": "host", "host": "a", "host_id": "b"},
                "summary": format!("backend {n} \u{1b}refuses connections"),
            }))
        };
        model.problems = Some(Problems {
            problems: (0..7).map(|n| problem(n).expect("a problem")).collect(),
            total: 7,
            hosts: 3,
        });
        let text = screen_of(&model, now, 80);
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines[1..6].iter().enumerate() {
            let words = format!("critical backend {n} \u{fffd}refuses");
            assert!(line.contains(&words), "{text}");
        }
        assert!(lines[6].contains("2 more: see `problems`"), "{text}");
        assert!(lines[7].contains("Hosts"), "{text}");
    }

    /// 60 backends and a TLS listener.
    fn wide() -> Report {
        let endpoint = |role: v1::Role, address: String, requests, exchanges| v1::Endpoint {
            role: role.into(),
            address,
            connections_active: 1234,
            window: Some(v1::Counters {
                bytes_received: 5 * 12_600,
                bytes_sent: 5 * 1_260_000,
                http: Some(v1::HttpCounters {
                    requests,
                    exchanges,
                    exchange_duration: Some(v1::Histogram {
                        count: 5,
                        scale: 2,
                        offset: -47,
                        buckets: vec![5],
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let backend = |n| endpoint(v1::Role::Upstream, format!("10.0.0.{n}:8080"), 6170, 0);
        let tls = endpoint(v1::Role::Downstream, "10.0.0.1:443".into(), 0, 1195);
        Report::from(&v1::Report {
            complete: true,
            window_duration_ns: 5_000_000_000,
            endpoints: (100..160).map(backend).chain([tls]).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn a_narrow_screen_has_fewer_columns_and_whole_figures() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        model.add(wide(), now);
        for (width, shown, left_out) in [
            (
                80,
                &["REQ/S", "EXCH/S", "5XX", "P99"][..],
                &["P50", "NOTE"][..],
            ),
            (200, &["REQ/S", "P50", "P99", "NOTE", "12.3 KiB"], &[]),
        ] {
            let text = screen_of(&model, now, width);
            for head in shown {
                assert!(text.contains(head), "{head} at {width}:\n{text}");
            }
            for head in left_out {
                assert!(!text.contains(head), "{head} at {width}:\n{text}");
            }
            let row = text.lines().find(|line| line.contains("10.0.0.101:8080"));
            let row = row.unwrap();
            for figure in ["1.2k", "0.34 ms"] {
                assert!(row.contains(figure), "{figure} at {width}: {row}");
            }
            assert!(text.contains("q end"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_no_zero_and_turns_are_marked() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        model.add(wide(), now);
        let text = screen_of(&model, now, 200);
        let row = text
            .lines()
            .find(|line| line.contains("10.0.0.1:443"))
            .unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let at = cells.iter().position(|cell| *cell == "1234").unwrap();
        assert_eq!(cells[at + 1..at + 4], ["–", "239", "–"], "{row}");
        assert!(
            row.contains("0.34 ms*") && row.contains("not HTTP/1"),
            "{row}"
        );
    }

    #[test]
    fn what_goes_wrong_with_connections_has_columns_where_it_does() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        let mut report = wide();
        model.add(report.clone(), now);
        let text = screen_of(&model, now, 80);
        let heads = ["RESET", "NOANS", "TLSFAIL"];
        assert!(!heads.iter().any(|head| text.contains(head)), "{text}");
        report.sequence += 1;
        let window = &mut report.endpoints[0].window;
        window.closed_reset_received = Some(17);
        window.requests_without_response = Some(5);
        window.tls_handshakes_failed_alert = Some(3);
        window.tls_handshakes_failed_end = Some(1);
        model.add(report, now);
        let text = screen_of(&model, now, 200);
        let head = text.lines().find(|line| line.contains("RESET")).unwrap();
        assert!(head.contains("5XX RESET NOANS TLSFAIL"), "{head}");
        let row = text.lines().find(|line| line.contains("10.0.0.100:8080"));
        let row = row.unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let at = cells.iter().position(|cell| *cell == "1234").unwrap();
        assert_eq!(
            cells[at + 1..at + 7],
            ["1.2k", "0", "0", "17", "5", "4"],
            "{row}"
        );
    }

    #[test]
    fn a_listeners_queue_has_a_column_where_it_is_known() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        let mut report = wide();
        model.add(report.clone(), now);
        assert!(!screen_of(&model, now, 200).contains("QUEUE"));
        report.sequence += 1;
        let listener = report.endpoints.last_mut().unwrap();
        listener.accept_queue = Some(AcceptQueue {
            connections: 3,
            connections_max: 129,
            limit: 128,
            ..AcceptQueue::default()
        });
        model.add(report, now);
        for width in [100, 200] {
            let text = screen_of(&model, now, width);
            let head = text.lines().find(|line| line.contains("5XX")).unwrap();
            assert!(head.contains(" QUEUE"), "{head}");
            let listener = text.lines().find(|line| line.contains("10.0.0.1:443"));
            assert!(listener.unwrap().contains(" 3/129/128 "), "{text}");
            let backend = text.lines().find(|line| line.contains("10.0.0.100:8080"));
            assert!(backend.unwrap().contains(" – "), "{text}");
        }
    }

    #[test]
    fn the_last_of_many_backends_is_reached() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        model.add(wide(), now);
        assert!(!screen(&model, now).contains("10.0.0.159:8080"));
        model.press(Key::Move(isize::MAX));
        let text = screen(&model, now);
        assert!(
            text.contains("10.0.0.159:8080") && text.contains("61/61"),
            "{text}"
        );
    }
}
