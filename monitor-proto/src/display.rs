//! Figures and foreign text as tables show them, and which columns of a table
//! fit: the same in every view.

use std::{borrow::Cow, time::Duration};

use crate::protocol::{Protocol, Spoken};

/// Stands for what was not measured, or cannot be seen.
pub const UNKNOWN: &str = "–";

/// A figure, where there is one.
#[must_use]
pub fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The text without anything that a terminal would act on or that would change
/// the direction of what follows: labels come from other machines.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        Cow::Borrowed(text)
    } else {
        let mark = |c| if is_printable(c) { c } else { '\u{fffd}' };
        Cow::Owned(text.chars().map(mark).collect())
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A count or a rate with three digits or so: 950, 1.2k, 34M.
#[must_use]
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes in powers of 1024: 950 B, 1.2 KiB.
#[must_use]
pub fn bytes(value: f64) -> String {
    let units = [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"];
    scaled(value, 1024.0, &units)
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let whole = (value - value.round()).abs() < 0.05;
    let digits = usize::from(value < 100.0 && !(whole && unit == 0));
    format!("{value:.digits$}{}", units[unit])
}

/// A duration in milliseconds: 0.42 ms, 31 ms, 1.5 s.
#[must_use]
pub fn milliseconds(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{:.1} s", ms / 1000.0)
    } else if ms >= 10.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.2} ms")
    }
}

/// A duration of exchanges, marked with `*` where not all are HTTP/1 requests.
#[must_use]
pub fn exchange_duration(ms: Option<f64>, protocol: Option<Protocol>) -> String {
    let mark = if note(protocol, Spoken::default()).is_some() {
        "*"
    } else {
        ""
    };
    known(ms.map(|ms| format!("{}{mark}", milliseconds(ms))))
}

/// What a table says of an endpoint that is not HTTP/1 alone: why requests are not
/// seen, and what its times are of.
#[must_use]
pub fn note(protocol: Option<Protocol>, spoken: Spoken) -> Option<String> {
    let protocol = protocol?;
    let times = match protocol {
        Protocol::Mixed => "both",
        Protocol::Http1 | Protocol::Other => "exchanges",
    };
    let reason = protocol.reason(spoken)?;
    Some(format!("{reason}: * times are of {times}"))
}

/// How long ago: 3 s, 5 min, 2 h, 9 d.
#[must_use]
pub fn age(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// A listener's accept queue: connections now, at the most in the window, and the limit.
#[must_use]
pub fn accept_queue(connections: u64, connections_max: u64, limit: u64) -> String {
    format!("{connections}/{connections_max}/{limit}")
}

/// The end of a text that is too long, where names of cgroups differ.
#[must_use]
pub fn end_of(text: &str, width: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return Cow::Borrowed(text);
    }
    let end = text.chars().skip(length + 1 - width);
    Cow::Owned(std::iter::once('…').chain(end).collect())
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// The column with the highest rank is left out first; 0 stays.
    pub rank: u8,
    /// The fewest characters that are of use, where it may be cut: names may,
    /// figures never.
    pub cut_to: Option<usize>,
}

impl Column {
    /// A column of figures, which are shown whole or not at all.
    #[must_use]
    pub const fn figure(head: &'static str, rank: u8) -> Self {
        Self {
            head,
            rank,
            cut_to: None,
        }
    }

    /// A column of names.
    #[must_use]
    pub const fn name(head: &'static str, rank: u8, cut_to: usize) -> Self {
        Self {
            cut_to: Some(cut_to),
            ..Self::figure(head, rank)
        }
    }
}

/// The columns that fit into so many characters, one between two of them, with
/// the width of each; `widest` has the widest cell of every column.  Names are
/// cut before a column is left out.
#[must_use]
pub fn fitting(columns: &[Column], widest: &[usize], room: usize) -> Vec<(usize, usize)> {
    let width = |(i, column): (usize, &Column)| {
        let cells = widest.get(i).copied().unwrap_or(0);
        (i, cells.max(column.head.chars().count()))
    };
    let mut shown: Vec<(usize, usize)> = columns.iter().enumerate().map(width).collect();
    let least = |&(i, width): &(usize, usize)| columns[i].cut_to.map_or(width, |n| n.min(width));
    while total(shown.iter().map(least)) > room {
        let dispensable = shown.iter().filter(|(i, _)| columns[*i].rank > 0);
        let Some(&(first, _)) = dispensable.max_by_key(|(i, _)| columns[*i].rank) else {
            break;
        };
        shown.retain(|(i, _)| *i != first);
    }
    let mut excess = total(shown.iter().map(|(_, width)| *width)).saturating_sub(room);
    for column in &mut shown {
        let cut = excess.min(column.1 - least(column));
        column.1 -= cut;
        excess -= cut;
    }
    shown
}

/// The width of columns with one character between two of them.
fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths
        .map(|width| width + 1)
        .sum::<usize>()
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(0.25), "0.2");
        assert_eq!(count(950.0), "950");
        assert_eq!(count(1234.0), "1.2k");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(150.0 * 1024.0 * 1024.0), "150 MiB");
        assert_eq!(milliseconds(0.417), "0.42 ms");
        assert_eq!(milliseconds(31.4), "31 ms");
        assert_eq!(milliseconds(1500.0), "1.5 s");
        assert_eq!(age(Duration::from_secs(300)), "5 min");
    }

    #[test]
    fn a_note_says_why_requests_are_not_seen() {
        let spoken = |names: &[&str]| Spoken::by(|name| names.contains(&name).then_some(2));
        let tls = spoken(&["tls_handshakes"]);
        let two = spoken(&["connections_redis", "connections_http2"]);
        let of = |protocol, spoken| note(Some(protocol), spoken);
        let is = |text: &str| Some(text.to_owned());
        for (protocol, plain, of_tls, of_two) in [
            (
                Protocol::Other,
                "not HTTP/1: * times are of exchanges",
                "TLS: * times are of exchanges",
                "HTTP/2, Redis: * times are of exchanges",
            ),
            (
                Protocol::Mixed,
                "in part not HTTP/1: * times are of both",
                "in part TLS: * times are of both",
                "in part HTTP/2, Redis: * times are of both",
            ),
        ] {
            assert_eq!(of(protocol, Spoken::default()), is(plain));
            assert_eq!(of(protocol, tls), is(of_tls));
            assert_eq!(of(protocol, two), is(of_two));
        }
        // Who sees all has no reason, whatever else came.
        assert_eq!(of(Protocol::Http1, tls), None);
        assert_eq!(note(None, tls), None);
    }

    #[test]
    fn durations_of_exchanges_are_marked() {
        let shown = |ms, protocol| exchange_duration(ms, protocol);
        assert_eq!(shown(Some(31.0), Some(Protocol::Http1)), "31 ms");
        assert_eq!(shown(Some(31.0), Some(Protocol::Other)), "31 ms*");
        assert_eq!(shown(Some(31.0), Some(Protocol::Mixed)), "31 ms*");
        assert_eq!(shown(None, Some(Protocol::Other)), UNKNOWN);
    }

    #[test]
    fn a_label_cannot_steer_the_terminal() {
        let hostile = printable("a\u{1b}[2Jb\u{202e}c\nd");
        assert_eq!(hostile, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable("größe 北京"), "größe 北京");
    }

    #[test]
    fn the_end_of_a_long_name_is_kept() {
        assert_eq!(end_of("/system.slice/a", 20), "/system.slice/a");
        let long = end_of("/system.slice/größer/haproxy", 20);
        assert_eq!(long, "…lice/größer/haproxy");
        assert_eq!(long.chars().count(), 20);
    }

    #[test]
    fn columns_go_by_rank_and_names_are_cut_before() {
        const COLUMNS: [Column; 4] = [
            Column::name("ENDPOINT", 0, 8),
            Column::figure("REQ/S", 1),
            Column::figure("IN/S", 3),
            Column::figure("P99", 2),
        ];
        let row = ["10.0.0.100:8080", "1.2k", "12.3 KiB", "0.32 ms"];
        let shown = |room| fitting(&COLUMNS, &row.map(|cell| cell.chars().count()), room);
        assert_eq!(shown(38), [(0, 15), (1, 5), (2, 8), (3, 7)]);
        assert_eq!(shown(34), [(0, 11), (1, 5), (2, 8), (3, 7)]);
        assert_eq!(shown(30), [(0, 15), (1, 5), (3, 7)]);
        assert_eq!(shown(16), [(0, 10), (1, 5)]);
        assert_eq!(shown(4), [(0, 8)], "there is no less");
        assert_eq!(fitting(&COLUMNS, &[], 80).len(), 4);
    }
}
