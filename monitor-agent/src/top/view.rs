//! The screen.

use monitor_proto::{
    display::{self, Column, known, printable},
    v1,
};
use problems::{Severity, headlines};
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Style},
    text::{Line, Span, Text},
    widgets::TableState,
};

use super::{
    model::{Model, More, Page, Row, SortBy},
    table::{BOLD, line, table},
};
use crate::view::{has_queues, has_several_targets};

const DIM: Style = Style::new().fg(Color::DarkGray);

/// The columns of endpoints: of two, the one with the higher rank goes first
/// where there is no room.
const ENDPOINTS: [Column; 18] = [
    Column::name("TARGET", 6, 10),
    Column::name("ROLE", 2, ROLE),
    Column::name("ENDPOINT", 0, 16),
    Column::figure("ACTIVE", 6),
    Column::figure("OPENED/s", 8),
    Column::figure("REQ/s", 1),
    Column::figure("EXCH/s", 3),
    Column::figure("IN/s", 5),
    Column::figure("OUT/s", 5),
    Column::figure("RTT", 7),
    Column::figure("RETR", 4),
    Column::figure("RESET", 6),
    Column::figure("NOANS", 6),
    Column::figure("TLSFAIL", 6),
    Column::figure("QUEUE", 6),
    Column::figure("P99", 1),
    Column::figure("COUNTED", 9),
    Column::name("NOTE", 10, 38),
];

/// The columns of sockets, in the same way; of the two addresses the remote one
/// stays.
const SOCKETS: [Column; 11] = [
    Column::name("TARGET", 6, 10),
    Column::name("ROLE", 1, ROLE),
    Column::name("LOCAL AND REMOTE", 0, 21),
    Column::name("STATE", 7, 11),
    Column::figure("BYTES", 2),
    Column::figure("IN/s", 4),
    Column::figure("OUT/s", 4),
    Column::figure("RTT", 3),
    Column::figure("RETR", 5),
    Column::figure("REQ", 8),
    Column::figure("AGE", 5),
];

/// Both roles end in the same word, so none is cut.
const ROLE: usize = "downstream".len();

/// Draws everything, in whatever room there is.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let problems = problem_lines(model);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(problems.len()).unwrap_or(0)),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [title, wrong, rows, keys] = areas.areas(frame.area());
    frame.render_widget(title_line(model, title.width), title);
    frame.render_widget(Text::from(problems), wrong);
    let (kept, columns): (Vec<usize>, Vec<Column>) = columns(model).into_iter().unzip();
    let row = |row: &Row| -> Vec<String> {
        let mut cells: Vec<_> = cells(row).into_iter().map(Some).collect();
        kept.iter().filter_map(|i| cells[*i].take()).collect()
    };
    let cells: Vec<Vec<String>> = model.rows().iter().map(row).collect();
    let chosen = (!cells.is_empty()).then_some(model.selected);
    let mut state = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table(&columns, &cells, rows.width), rows, &mut state);
    frame.render_widget(key_line(model, keys.width), keys);
}

/// Problems that are shown; the others are counted.
const PROBLEMS_SHOWN: usize = 5;

/// What is wrong now, the worst first; nothing before the first look.
fn problem_lines(model: &Model) -> Vec<Line<'static>> {
    if model.problems.hosts == 0 {
        return Vec::new();
    }
    headlines(&model.problems, PROBLEMS_SHOWN)
        .into_iter()
        .map(|(severity, line)| {
            let color = match severity {
                Some(Severity::Critical) => Color::Red,
                Some(Severity::Warning) => Color::Yellow,
                Some(Severity::Info) => Color::Blue,
                None => Color::Green,
            };
            Line::styled(line, Style::new().fg(color))
        })
        .collect()
}

/// The columns that say something, with their places: the one that is sorted by
/// stays.
fn columns(model: &Model) -> Vec<(usize, Column)> {
    let columns: &[Column] = match model.page {
        Page::Endpoints => &ENDPOINTS,
        Page::Sockets => &SOCKETS,
    };
    let several = has_several_targets(&model.report);
    let exchanges = model.rows().iter().any(|row| note(row).is_some());
    let tls = model.rows().iter().any(has_tls);
    let is_there = |head| match head {
        "TARGET" => several,
        "EXCH/s" | "NOTE" => exchanges,
        "TLSFAIL" => tls,
        "QUEUE" => has_queues(&model.report),
        _ => true,
    };
    let sorted: &[&str] = match model.sort_by {
        SortBy::Bytes => &["BYTES"],
        SortBy::RoundTrip => &["RTT"],
        SortBy::Retransmits => &["RETR"],
        SortBy::Age => &["AGE", "COUNTED"],
    };
    let ranked = |column: Column| match sorted.contains(&column.head) {
        true => Column { rank: 0, ..column },
        false => column,
    };
    let columns = columns.iter().copied().enumerate();
    let there = columns.filter(|(_, column)| is_there(column.head));
    there.map(|(i, column)| (i, ranked(column))).collect()
}

fn has_tls(row: &Row) -> bool {
    matches!(row.more, More::Endpoint { spoken, .. } if spoken.has_tls())
}

fn note(row: &Row) -> Option<String> {
    match row.more {
        More::Endpoint {
            protocol, spoken, ..
        } => display::note(protocol, spoken),
        More::Socket { .. } => None,
    }
}

fn title_line(model: &Model, room: u16) -> Line<'static> {
    let metrics = model.report.host_metrics.clone().unwrap_or_default();
    let gauge = |name: &str, gauge: Option<v1::Gauge>, unit: &str| {
        let value = known(gauge.map(|g| format!("{:.1}{unit}", g.last)));
        Span::styled(format!(" {name} {value}"), DIM)
    };
    let page = match model.page {
        Page::Endpoints => "endpoints",
        Page::Sockets => "sockets",
    };
    let mut parts = vec![
        (0, Span::styled("SpeedMimi", BOLD)),
        (1, Span::raw(format!(" {} {page}", model.rows().len()))),
        (3, gauge("cpu", metrics.cpu_usage, " %")),
        (4, gauge("memory", metrics.memory_usage, " %")),
        (5, gauge("load", metrics.load_avg_1, "")),
    ];
    let lost: u64 = model.report.losses_totals.values().sum();
    if lost > 0 {
        let red = Style::new().fg(Color::Red);
        let text = format!(" {lost} lost: see doctor");
        parts.push((1, Span::styled(text, red)));
    }
    if model.paused {
        let yellow = Style::new().fg(Color::Yellow);
        parts.push((2, Span::styled(" paused", yellow)));
    }
    line(&parts, room)
}

/// The keys, with the one that sorts now in bold.
fn key_line(model: &Model, room: u16) -> Line<'static> {
    let mut parts = vec![(0, Span::styled("sort:", DIM))];
    for (letter, name, by) in SortBy::ALL {
        let style = if by == model.sort_by { BOLD } else { DIM };
        let arrow = match (by == model.sort_by, model.ascending) {
            (true, true) => "↑",
            (true, false) => "↓",
            (false, _) => "",
        };
        parts.push((2, Span::styled(format!("{letter} {name}{arrow} "), style)));
    }
    let rest = [
        (5, "i invert "),
        (3, "Tab endpoints/sockets "),
        (6, "↑↓ PgUp PgDn "),
        (4, "Space pause "),
        (1, "q end"),
    ];
    parts.extend(rest.map(|(rank, key)| (rank, Span::styled(key, DIM))));
    line(&parts, room)
}

/// A cell for every column of the page.
fn cells(row: &Row) -> Vec<String> {
    let names = [&row.target, row.role, &row.label].map(|name| printable(name).into_owned());
    let rtt = row.srtt_us.filter(|us| *us > 0);
    let rtt = known(rtt.map(|us| display::milliseconds(us as f64 / 1e3)));
    let (ins, outs) = (display::bytes(row.in_per_s), display::bytes(row.out_per_s));
    let retransmits = row.retransmits.to_string();
    let age = known(row.age_ms.map(age));
    let more = match &row.more {
        More::Endpoint {
            active,
            opened_per_s,
            requests_per_s,
            exchanges_per_s,
            resets,
            unanswered,
            tls_failed,
            spoken: _,
            queue,
            p99_ms,
            protocol,
        } => vec![
            active.to_string(),
            display::count(*opened_per_s),
            known(requests_per_s.map(display::count)),
            known(exchanges_per_s.map(display::count)),
            ins,
            outs,
            rtt,
            retransmits,
            known(resets.map(|n| n.to_string())),
            known(unanswered.map(|n| n.to_string())),
            known(tls_failed.map(|n| n.to_string())),
            known(queue.clone()),
            display::exchange_duration(*p99_ms, *protocol),
            age,
            note(row).unwrap_or_default(),
        ],
        More::Socket {
            state,
            bytes,
            requests,
        } => vec![
            state.clone(),
            display::bytes(*bytes as f64),
            ins,
            outs,
            rtt,
            retransmits,
            requests.to_string(),
            age,
        ],
    };
    names.into_iter().chain(more).collect()
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
    use crate::top::{
        Look,
        model::{Key, tests::look},
    };

    /// The screen without the line that says what is wrong.
    fn table(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut shown = screen(model, width, height + 1);
        assert_eq!(shown.remove(1), "nothing is wrong on 1 host");
        shown
    }

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
        let shown = table(&mut model, 140, 6);
        assert!(shown[0].starts_with("SpeedMimi  3 endpoints"), "{shown:?}");
        assert!(shown[1].contains("RTT") && !shown[1].contains("EXCH/s"));
        let row = words(&shown[2]);
        assert_eq!(
            row,
            [
                "upstream",
                "10.0.0.2:80",
                "0",
                "0",
                "–",
                "150",
                "B",
                "0",
                "B",
                "0.00",
                "ms",
                "1",
                "–",
                "–",
                "–",
                "1.0",
                "s"
            ]
        );
        assert!(shown[5].contains("b bytes↓") && shown[5].contains("q end"));
        model.press(Key::Letter('s'));
        model.press(Key::Letter('a'));
        let shown = table(&mut model, 140, 6);
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
        assert!(!table(&mut model, 140, 6)[1].contains("TARGET"));
        for endpoint in &mut two.report.endpoints {
            endpoint.target = "/a".to_owned();
        }
        two.report.endpoints[1].target = "/system.slice/a-long-name.service".to_owned();
        two.sockets[0].target = "/a".to_owned();
        model.update(two);
        let whole = table(&mut model, 140, 6);
        let long = "/system.slice/a-long-name.service ";
        assert!(whole[2].starts_with(long), "{whole:?}");
        let shown = table(&mut model, 112, 6);
        assert!(shown[1].starts_with("TARGET "), "{shown:?}");
        let cut = words(&shown[2])[0];
        assert!(cut.starts_with('…') && long.contains(&cut["…".len()..]));
        assert_eq!(words(&shown[2])[1..], words(&whole[2])[1..], "{shown:?}");
        assert_eq!(words(&shown[3])[..2], ["/a", "upstream"]);
        model.press(Key::Letter('s'));
        let shown = table(&mut model, 140, 6);
        assert_eq!(words(&shown[2])[..2], ["/a", "downstream"], "{shown:?}");
    }

    #[test]
    fn a_narrow_screen_has_fewer_columns_and_whole_figures() {
        let mut model = Model::default();
        let tls = encrypted("shop/first 10.0.0.9:443".to_owned());
        model.update(Look {
            report: tls,
            sockets: look(12_600).sockets,
        });
        let wide = table(&mut model, 200, 5);
        assert_eq!(
            wide[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "ROLE ENDPOINT ACTIVE OPENED/s REQ/s EXCH/s IN/s OUT/s RTT RETR RESET NOANS P99 COUNTED NOTE"
        );
        let row = words(&wide[2]).join(" ");
        let figures = "1234 0 – 239 12.3 KiB 1.2 MiB 0.32 ms 7654321 – – 0.34 ms* 0.0 s not HTTP/1";
        assert!(row.contains(figures), "{row}");
        let narrow = table(&mut model, 80, 5);
        assert_eq!(
            words(&narrow[1]),
            [
                "ROLE", "ENDPOINT", "REQ/s", "EXCH/s", "IN/s", "OUT/s", "RETR", "P99"
            ]
        );
        let row = words(&narrow[2]).join(" ");
        let figures = " – 239 12.3 KiB 1.2 MiB 7654321 0.34 ms*";
        assert!(row.starts_with("downstream …") && row.ends_with(figures));
        assert!(row.contains("10.0.0.9:443"), "{row}");
        assert!(narrow[4].ends_with("q end"), "{narrow:?}");
        // What is sorted by is in sight.
        for (key, head) in [('r', "RTT"), ('a', "COUNTED"), ('t', "RETR")] {
            model.press(Key::Letter(key));
            let sorted = table(&mut model, 80, 5);
            assert!(words(&sorted[1]).contains(&head), "{sorted:?}");
        }
        model.press(Key::Letter('s'));
        for width in [80, 200] {
            let shown = table(&mut model, width, 5);
            let row = words(&shown[2]).join(" ");
            for part in ["downstream", " 127.0.0.1:1 ", " 12.3 KiB ", " 0.99 ms "] {
                assert!(row.contains(part), "{part} at {width}: {row}");
            }
        }
    }

    #[test]
    fn a_listeners_queue_has_a_column_where_it_is_known() {
        let mut model = Model::default();
        let mut report = encrypted(String::new());
        report.endpoints[0].accept_queue = Some(v1::AcceptQueue {
            connections: 3,
            connections_max: 129,
            limit: 128,
            ..v1::AcceptQueue::default()
        });
        model.update(Look {
            report,
            sockets: Vec::new(),
        });
        let shown = table(&mut model, 200, 5);
        assert!(shown[1].contains("NOANS     QUEUE "), "{shown:?}");
        assert!(shown[2].contains(" – 3/129/128 "), "{shown:?}");
    }

    #[test]
    fn tls_has_its_failed_handshakes_and_is_the_reason_for_dashes() {
        let mut model = Model::default();
        let mut report = encrypted(String::new());
        let endpoint = &mut report.endpoints[0];
        let http = endpoint.window.as_mut().unwrap().http.as_mut().unwrap();
        http.tls_handshakes = Some(40);
        http.tls_handshakes_failed_alert = Some(5);
        http.tls_handshakes_failed_end = Some(2);
        endpoint.totals.clone_from(&endpoint.window);
        let mut look = Look {
            report,
            sockets: Vec::new(),
        };
        model.update(look.clone());
        let shown = table(&mut model, 200, 5);
        assert!(shown[1].contains("NOANS TLSFAIL"), "{shown:?}");
        let row = words(&shown[2]).join(" ");
        assert!(row.contains(" – 7 "), "{row}");
        assert!(row.contains(" TLS: * times are of exchanges"), "{row}");
        // Of a window in which none were looked at, nothing is told.
        let window = look.report.endpoints[0].window.as_mut().unwrap();
        window.http.as_mut().unwrap().tls_handshakes_failed_alert = None;
        model.update(look);
        let row = words(&table(&mut model, 200, 5)[2]).join(" ");
        assert!(row.contains(" – – "), "{row}");
    }

    /// A report of a listener whose streams are not HTTP/1.
    fn encrypted(name: String) -> v1::Report {
        let endpoint = v1::Endpoint {
            role: v1::Role::Downstream.into(),
            address: "10.0.0.9:443".to_owned(),
            name,
            connections_active: 1234,
            window: Some(v1::Counters {
                bytes_received: 5 * 12_600,
                bytes_sent: 5 * 1_260_000,
                retransmits: 7_654_321,
                http: Some(v1::HttpCounters {
                    exchanges: 1_195,
                    exchange_duration: Some(v1::Histogram {
                        count: 5,
                        scale: 2,
                        offset: -47,
                        buckets: vec![5],
                        ..v1::Histogram::default()
                    }),
                    ..v1::HttpCounters::default()
                }),
                ..v1::Counters::default()
            }),
            srtt: Some(v1::RoundTripTime {
                mean_us: 320,
                ..v1::RoundTripTime::default()
            }),
            ..v1::Endpoint::default()
        };
        v1::Report {
            window_duration_ns: 5_000_000_000,
            endpoints: vec![endpoint],
            losses_totals: [("unparsed".to_owned(), 123_456_789)].into(),
            ..v1::Report::default()
        }
    }

    #[test]
    fn the_title_leaves_gauges_out_before_it_cuts_them() {
        let mut model = Model::default();
        let mut report = encrypted(String::new());
        let gauge = |last| {
            Some(v1::Gauge {
                last,
                ..v1::Gauge::default()
            })
        };
        report.host_metrics = Some(v1::HostMetrics {
            cpu_usage: gauge(12.3),
            memory_usage: gauge(45.6),
            load_avg_1: gauge(7.8),
            ..v1::HostMetrics::default()
        });
        model.update(Look {
            report,
            sockets: Vec::new(),
        });
        model.press(Key::Letter(' '));
        let lost = "123456789 lost: see doctor  paused";
        assert_eq!(
            screen(&mut model, 200, 3)[0],
            format!("SpeedMimi  1 endpoints  cpu 12.3 %  memory 45.6 %  load 7.8  {lost}")
        );
        assert_eq!(
            screen(&mut model, 80, 3)[0],
            format!("SpeedMimi  1 endpoints  cpu 12.3 %  {lost}")
        );
        assert_eq!(screen(&mut model, 30, 3)[0], "SpeedMimi  1 endpoints");
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
        let shown = table(&mut model, 140, 4);
        assert!(shown[2].contains("10.0.0.1:80"), "{shown:?}");
    }

    #[test]
    fn ages_are_short() {
        let ages = [1_500, 61_000, 3_660_000, 90_000_000].map(age);
        assert_eq!(ages, ["1.5 s", "1m01s", "1h01m", "1d01h"]);
    }
}
