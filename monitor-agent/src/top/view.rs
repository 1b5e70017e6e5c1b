//! The screen.

use monitor_proto::v1;
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Row as Cells, Table, TableState},
};

use super::model::{Model, More, Page, Row, SortBy};
use crate::view::{has_several_targets, printable};

const DIM: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The widest column of targets.
const TARGET_MAX: usize = 20;

const ENDPOINTS: [(&str, Constraint); 11] = [
    ("ROLE", Constraint::Length(10)),
    ("ENDPOINT", Constraint::Min(21)),
    ("ACTIVE", Constraint::Length(7)),
    ("OPENED/s", Constraint::Length(9)),
    ("REQ/s", Constraint::Length(9)),
    ("IN/s", Constraint::Length(9)),
    ("OUT/s", Constraint::Length(9)),
    ("RTT ms", Constraint::Length(8)),
    ("RETR", Constraint::Length(6)),
    ("P99 ms", Constraint::Length(9)),
    ("COUNTED", Constraint::Length(8)),
];

const SOCKETS: [(&str, Constraint); 10] = [
    ("ROLE", Constraint::Length(10)),
    ("LOCAL AND REMOTE", Constraint::Min(43)),
    ("STATE", Constraint::Length(11)),
    ("BYTES", Constraint::Length(9)),
    ("IN/s", Constraint::Length(9)),
    ("OUT/s", Constraint::Length(9)),
    ("RTT ms", Constraint::Length(8)),
    ("RETR", Constraint::Length(6)),
    ("REQ", Constraint::Length(7)),
    ("AGE", Constraint::Length(8)),
];

/// Draws everything, in whatever room there is.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [title, rows, keys] = areas.areas(frame.area());
    frame.render_widget(title_line(model), title);
    let columns: &[_] = match model.page {
        Page::Endpoints => &ENDPOINTS,
        Page::Sockets => &SOCKETS,
    };
    let several = has_several_targets(&model.report);
    let target = several.then(|| ("TARGET", Constraint::Min(target_width(model.rows()))));
    let columns = || target.iter().chain(columns);
    let head = columns().map(|(name, _)| *name);
    let widths = columns().map(|(_, width)| *width);
    let row = |row: &Row| {
        let target = several.then(|| shortened(&row.target));
        Cells::new(target.into_iter().chain(cells(row)))
    };
    let table = Table::new(model.rows().iter().map(row), widths)
        .header(Cells::new(head).style(BOLD))
        .row_highlight_style(CHOSEN);
    let chosen = (!model.rows().is_empty()).then_some(model.selected);
    let mut state = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table, rows, &mut state);
    frame.render_widget(key_line(model), keys);
}

fn title_line(model: &Model) -> Line<'static> {
    let metrics = model.report.host_metrics.clone().unwrap_or_default();
    let gauge = |name: &str, gauge: Option<v1::Gauge>, unit: &str| {
        let value = gauge.map_or("-".to_owned(), |g| format!("{:.1}{unit}", g.last));
        format!("  {name} {value}")
    };
    let page = match model.page {
        Page::Endpoints => "endpoints",
        Page::Sockets => "sockets",
    };
    let mut spans = vec![
        Span::styled("SpeedMimi", BOLD),
        Span::raw(format!("  {} {page}", model.rows().len())),
        Span::styled(gauge("cpu", metrics.cpu_usage, " %"), DIM),
        Span::styled(gauge("memory", metrics.memory_usage, " %"), DIM),
        Span::styled(gauge("load", metrics.load_avg_1, ""), DIM),
    ];
    let lost: u64 = model.report.losses_totals.values().sum();
    if lost > 0 {
        let red = Style::new().fg(Color::Red);
        spans.push(Span::styled(format!("  {lost} lost: see doctor"), red));
    }
    if model.paused {
        spans.push(Span::styled("  paused", Style::new().fg(Color::Yellow)));
    }
    Line::from(spans)
}

/// The keys, with the one that sorts now in bold.
fn key_line(model: &Model) -> Line<'static> {
    let mut spans = vec![Span::styled("sort: ", DIM)];
    for (letter, name, by) in SortBy::ALL {
        let style = if by == model.sort_by { BOLD } else { DIM };
        let arrow = match (by == model.sort_by, model.ascending) {
            (true, true) => "↑",
            (true, false) => "↓",
            (false, _) => "",
        };
        spans.push(Span::styled(format!("{letter} {name}{arrow}  "), style));
    }
    let rest = "i invert  Tab endpoints/sockets  ↑↓ PgUp PgDn  Space pause  q end";
    spans.push(Span::styled(rest, DIM));
    Line::from(spans)
}

fn target_width(rows: &[Row]) -> u16 {
    let widest = rows.iter().map(|row| row.target.chars().count()).max();
    widest.unwrap_or(0).clamp("TARGET".len(), TARGET_MAX) as u16
}

/// The end of a long target, where cgroups differ.
fn shortened(target: &str) -> String {
    let target = printable(target);
    let length = target.chars().count();
    if length <= TARGET_MAX {
        return target;
    }
    let end = target.chars().skip(length + 1 - TARGET_MAX);
    std::iter::once('…').chain(end).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let rtt = row.srtt_us.filter(|us| *us > 0);
    let rtt = known(rtt.map(|us| us as f64 / 1e3));
    let (ins, outs) = (bytes(row.in_per_s), bytes(row.out_per_s));
    let (retransmits, age) = (
        row.retransmits.to_string(),
        row.age_ms.map_or("-".to_owned(), age),
    );
    let (role, label) = (row.role.to_owned(), printable(&row.label));
    match &row.more {
        More::Endpoint {
            active,
            opened_per_s,
            requests_per_s,
            p99_ms,
        } => vec![
            role,
            label,
            active.to_string(),
            format!("{opened_per_s:.1}"),
            requests_per_s.map_or("-".to_owned(), |r| format!("{r:.1}")),
            ins,
            outs,
            rtt,
            retransmits,
            known(*p99_ms),
            age,
        ],
        More::Socket {
            state,
            bytes: carried,
            requests,
        } => vec![
            role,
            label,
            state.clone(),
            bytes(*carried as f64),
            ins,
            outs,
            rtt,
            retransmits,
            requests.to_string(),
            age,
        ],
    }
}

fn known(ms: Option<f64>) -> String {
    ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"))
}

fn bytes(n: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut n = n;
    let mut unit = 0;
    while n >= 1_024.0 && unit + 1 < UNITS.len() {
        n /= 1_024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n:.0} B")
    } else {
        format!("{n:.1} {}", UNITS[unit])
    }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{:.1} s", ms as f64 / 1e3),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::model::{Key, tests::look};

    fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        };
        (0..height).map(row).collect()
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn endpoints_and_sockets_are_shown_with_the_keys() {
        let mut model = Model::default();
        model.update(look(4_096));
        let shown = screen(&mut model, 140, 6);
        assert!(shown[0].starts_with("SpeedMimi  3 endpoints"), "{shown:?}");
        assert!(shown[1].contains("RTT ms") && shown[1].contains("RETR"));
        let row = words(&shown[2]);
        assert_eq!(
            row,
            [
                "upstream",
                "10.0.0.2:80",
                "0",
                "0.0",
                "-",
                "150",
                "B",
                "0",
                "B",
                "0.00",
                "1",
                "-",
                "1.0",
                "s"
            ]
        );
        assert!(shown[5].contains("b bytes↓") && shown[5].contains("q end"));
        model.press(Key::Letter('s'));
        model.press(Key::Letter('a'));
        let shown = screen(&mut model, 140, 6);
        assert!(shown[0].contains("3 sockets"));
        let row = words(&shown[2]);
        assert_eq!(
            row[..6],
            [
                "downstream",
                "127.0.0.1:80",
                "127.0.0.1:1",
                "ESTABLISHED",
                "4.0",
                "KiB"
            ]
        );
        assert!(shown[5].contains("a age↓"));
    }

    #[test]
    fn what_is_of_two_targets_is_told_apart() {
        let mut model = Model::default();
        let mut two = look(4_096);
        model.update(two.clone());
        assert!(!screen(&mut model, 140, 6)[1].contains("TARGET"));
        for endpoint in &mut two.report.endpoints {
            endpoint.target = "/a".to_owned();
        }
        two.report.endpoints[1].target = "/system.slice/a-long-name.service".to_owned();
        two.sockets[0].target = "/a".to_owned();
        model.update(two);
        let shown = screen(&mut model, 140, 6);
        assert!(shown[1].starts_with("TARGET "), "{shown:?}");
        assert!(shown[2].starts_with("…a-long-name.service "), "{shown:?}");
        assert_eq!(words(&shown[3])[..2], ["/a", "upstream"]);
        model.press(Key::Letter('s'));
        let shown = screen(&mut model, 140, 6);
        assert_eq!(words(&shown[2])[..2], ["/a", "downstream"], "{shown:?}");
    }

    #[test]
    fn any_size_of_terminal_is_good() {
        let mut model = Model::default();
        model.update(look(1));
        model.press(Key::Move(isize::MAX));
        for (width, height) in [(1, 1), (3, 2), (20, 3), (80, 24), (300, 100), (0, 0)] {
            let shown = screen(&mut model, width, height);
            assert_eq!(shown.len(), usize::from(height));
        }
        // What is chosen is in sight.
        let shown = screen(&mut model, 140, 4);
        assert!(shown[2].contains("10.0.0.1:80"), "{shown:?}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [bytes(0.4), bytes(2_048.0), bytes(5e12)],
            ["0 B", "2.0 KiB", "4.5 TiB"]
        );
        let ages = [1_500, 61_000, 3_660_000, 90_000_000].map(age);
        assert_eq!(ages, ["1.5 s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!(printable("a\x1b[2Jb"), "a·[2Jb");
    }
}
