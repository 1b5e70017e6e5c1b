//! Lines and tables in the room there is: what does not fit is left out as a
//! whole, and no figure loses a digit or its unit.

use monitor_proto::display::{Column, end_of, fitting};
use ratatui::{
    layout::Constraint,
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Row, Table},
};

pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// The table of these rows, which have a cell for each column.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], room: u16) -> Table<'static> {
    let widest: Vec<usize> = (0..columns.len())
        .map(|i| {
            let cells = rows.iter().map(|row| row[i].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let shown = fitting(columns, &widest, usize::from(room));
    let cell = |i: usize, width: usize, text: &str| {
        if columns[i].cut_to.is_some() {
            Line::from(end_of(text, width).into_owned())
        } else {
            Line::from(text.to_owned()).right_aligned()
        }
    };
    let head = shown
        .iter()
        .map(|&(i, width)| cell(i, width, columns[i].head));
    let row = |row: &Vec<String>| {
        let cells = shown.iter();
        Row::new(cells.map(|&(i, width)| cell(i, width, &row[i])))
    };
    let widths = shown
        .iter()
        .map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    Table::new(rows.iter().map(row), widths)
        .header(Row::new(head).style(BOLD))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

/// The parts of a line that fit, each with its rank: the highest goes first.
pub(super) fn line(parts: &[(u8, Span<'static>)], room: u16) -> Line<'static> {
    let columns: Vec<Column> = parts
        .iter()
        .map(|(rank, _)| Column::figure("", *rank))
        .collect();
    let widths: Vec<usize> = parts.iter().map(|(_, part)| part.width()).collect();
    let mut spans = Vec::new();
    for (i, _) in fitting(&columns, &widths, usize::from(room)) {
        if !spans.is_empty() {
            spans.push(Span::raw(" "));
        }
        spans.push(parts[i].1.clone());
    }
    Line::from(spans)
}
