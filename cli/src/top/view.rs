//! The screen.

use std::time::Instant;

use monitor_proto::json::{Endpoint, Gauge, Report};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Row, Sparkline, Table, TableState},
};

use super::model::{Health, Host, Model, per_second, request_rate};
use crate::{targets, text};

const DIM: Style = Style::new().fg(Color::DarkGray);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let hosts = u16::try_from(model.hosts.len()).unwrap_or(u16::MAX);
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Max(hosts.saturating_add(3)),
        Constraint::Min(5),
        Constraint::Length(5),
        Constraint::Length(1),
    ]);
    let [title, hosts, endpoints, spark, keys] = rows.areas(frame.area());
    frame.render_widget(title_line(model), title);
    draw_hosts(frame, hosts, model, now);
    if let Some(host) = model.hosts.values().nth(model.chosen()) {
        draw_endpoints(frame, endpoints, host);
        draw_spark(frame, spark, host);
    }
    frame.render_widget(Line::styled(" ↑↓ choose a host   q end", DIM), keys);
}

fn title_line(model: &Model) -> Line<'_> {
    let (word, color) = if model.connected {
        ("live", Color::Green)
    } else {
        ("reconnecting", Color::Yellow)
    };
    Line::from(vec![
        Span::styled(" SpeedMimi ", HEAD),
        Span::styled(text::printable(&model.url).into_owned(), DIM),
        Span::raw("  "),
        Span::styled(word, Style::new().fg(color)),
    ])
}

fn draw_hosts(frame: &mut Frame<'_>, area: Rect, model: &Model, now: Instant) {
    let rows = model.hosts.values().map(|host| host_row(host, now));
    let widths = [
        Constraint::Min(12),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(9),
    ];
    let head = ["HOST", "HEALTH", "SEEN", "CPU", "MEMORY", "LOAD", "REQ/S"];
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(HEAD))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered().border_style(DIM).title("Hosts"));
    let mut state = TableState::new().with_selected(model.chosen());
    frame.render_stateful_widget(table, area, &mut state);
}

fn host_row(host: &Host, now: Instant) -> Row<'static> {
    let (word, color) = match host.health(now) {
        Health::Good => ("healthy", Color::Green),
        Health::Incomplete => ("incomplete", Color::Yellow),
        Health::Late => ("late", Color::Red),
    };
    let m = &host.report.host_metrics;
    let percent = |gauge: Option<Gauge>| known(gauge.map(|g| format!("{:.1} %", g.last)));
    Row::new([
        Cell::from(name(&host.report)),
        Cell::from(word).style(Style::new().fg(color)),
        Cell::from(text::age(now.saturating_duration_since(host.seen))),
        Cell::from(percent(m.cpu_usage)),
        Cell::from(percent(m.memory_usage)),
        Cell::from(known(m.load_avg_1.map(|g| format!("{:.2}", g.last)))),
        Cell::from(known(request_rate(&host.report).map(text::count))),
    ])
}

fn draw_endpoints(frame: &mut Frame<'_>, area: Rect, host: &Host) {
    let report = &host.report;
    let several = targets::several(report);
    let target = |e: &Endpoint| Cell::from(targets::shortened(&text::printable(&e.target)));
    let rows = report.endpoints.iter().map(|e| {
        let target = several.then(|| target(e));
        Row::new(target.into_iter().chain(endpoint_cells(e, report)))
    });
    let width = Constraint::Min(targets::width(report));
    let widths = [
        Constraint::Length(10),
        Constraint::Min(16),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let head = [
        "ROLE", "ENDPOINT", "ACTIVE", "REQ/S", "5XX", "IN/S", "OUT/S", "P50", "P99",
    ];
    let title = format!("{} report {}", name(report), report.sequence);
    let widths = several.then_some(width).into_iter().chain(widths);
    let head = several.then_some("TARGET").into_iter().chain(head);
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(HEAD))
        .block(Block::bordered().border_style(DIM).title(title));
    frame.render_widget(table, area);
}

fn endpoint_cells(e: &Endpoint, report: &Report) -> [Cell<'static>; 9] {
    let w = &e.window;
    let rate = |n| per_second(n, report);
    let label = if e.name.is_empty() {
        &e.address
    } else {
        &e.name
    };
    let errors = w.responses.map(|r| r.server_error);
    let error_style = match errors {
        Some(1..) => Style::new().fg(Color::Red),
        Some(0) | None => Style::new(),
    };
    let durations = w.exchange_duration.as_ref();
    let quantile = |ms: Option<f64>| known(ms.map(text::milliseconds));
    [
        Cell::from(text::printable(&e.role).into_owned()),
        Cell::from(text::printable(label).into_owned()),
        Cell::from(e.connections_active.to_string()),
        Cell::from(known(w.requests.map(|n| text::count(rate(n))))),
        Cell::from(known(errors.map(|n| n.to_string()))).style(error_style),
        Cell::from(text::bytes(rate(w.bytes_received))),
        Cell::from(text::bytes(rate(w.bytes_sent))),
        Cell::from(quantile(durations.and_then(|d| d.p50_ms))),
        Cell::from(quantile(durations.and_then(|d| d.p99_ms))),
    ]
}

fn draw_spark(frame: &mut Frame<'_>, area: Rect, host: &Host) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = host.history.len().saturating_sub(width);
    let data: Vec<u64> = host.history.iter().skip(skipped).copied().collect();
    let spark = Sparkline::default()
        .data(data)
        .style(Style::new().fg(Color::Cyan))
        .block(
            Block::bordered()
                .border_style(DIM)
                .title("Requests per second"),
        );
    frame.render_widget(spark, area);
}

fn name(report: &Report) -> String {
    let name = if report.host.name.is_empty() {
        &report.host.id
    } else {
        &report.host.name
    };
    text::printable(name).into_owned()
}

/// A dash stands for what was not measured.
fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use monitor_proto::v1;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn screen(model: &Model, now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 24)).unwrap();
        terminal.draw(|frame| draw(frame, model, now)).unwrap();
        terminal.backend().to_string()
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
        let text = screen(&model, now);
        for shown in ["TARGET", "/a ", "…a-long-name.service "] {
            assert!(text.contains(shown), "{shown}:\n{text}");
        }
    }
}
