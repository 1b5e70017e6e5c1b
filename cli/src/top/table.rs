//! A table of the screen: whole figures in as many columns as there is room for.

use monitor_proto::display::{Column, end_of, fitting};
use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Row, Table, TableState},
};

/// The text of a cell, and how it looks.
pub(super) type Cell = (String, Style);

/// Draws rows with the chosen one in sight.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    block: Block<'_>,
    columns: &[Column],
    rows: &[Vec<Cell>],
    chosen: usize,
) {
    let inner = block.inner(area);
    let widest: Vec<usize> = (0..columns.len())
        .map(|i| {
            let cells = rows.iter().map(|row| row[i].0.chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let shown = fitting(columns, &widest, usize::from(inner.width));
    let line = |i: usize, width: usize, text: &str, style: Style| {
        if columns[i].cut_to.is_some() {
            Line::from(Span::styled(end_of(text, width).into_owned(), style))
        } else {
            Line::from(Span::styled(text.to_owned(), style)).right_aligned()
        }
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let head = shown
        .iter()
        .map(|&(i, width)| line(i, width, columns[i].head, bold));
    let row = |row: &Vec<Cell>| {
        let cells = shown.iter();
        Row::new(cells.map(|&(i, width)| line(i, width, &row[i].0, row[i].1)))
    };
    let widths = shown
        .iter()
        .map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    let table = Table::new(rows.iter().map(row), widths)
        .header(Row::new(head))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut state = TableState::new().with_selected((!rows.is_empty()).then_some(chosen));
    frame.render_stateful_widget(table, area, &mut state);
}
