//! Standard output: lines, tables and colours.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstyle::{AnsiColor, Style};
use monitor_proto::display::{self, Column, end_of, fitting};
use ratatui::crossterm::terminal;

use crate::{CliError, args::Color};

/// What a cell means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Head,
    Good,
    Warn,
    Bad,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Head => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }
}

/// One cell of a table; its text is made safe for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            text: display::printable(text).into_owned(),
            tone: Tone::Plain,
            right: false,
        }
    }

    /// Figures stand at the right, under each other's last digit.
    pub(crate) fn figure(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
            right: true,
        }
    }

    /// A figure, where there is one.
    pub(crate) fn known(text: Option<String>) -> Self {
        Self::figure(display::known(text))
    }

    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The end of a text that is too long.
    fn cut(mut self, width: usize) -> Self {
        self.text = end_of(&self.text, width).into_owned();
        self
    }
}

/// What stands between two cells.
const GAP: &str = "  ";

/// The head and the rows with as many columns as fit into so many characters; all of
/// them where nobody says how many there are.
pub(crate) fn fit(
    columns: &[Column],
    rows: Vec<Vec<Cell>>,
    room: Option<usize>,
) -> (Vec<Cell>, Vec<Vec<Cell>>) {
    // `fitting` has one character between columns: the rest of the gap is taken for a
    // part of each column.
    let more = GAP.len() - 1;
    let widest: Vec<usize> = (0..columns.len())
        .map(|i| {
            let cells = rows.iter().map(|row| row[i].width());
            let head = columns[i].head.chars().count();
            more + cells.max().unwrap_or(0).max(head)
        })
        .collect();
    let room = room.map_or(usize::MAX, |room| room + more);
    let shown: Vec<(usize, usize)> = fitting(columns, &widest, room)
        .into_iter()
        .map(|(i, width)| (i, width - more))
        .collect();
    let head = shown.iter().map(|&(i, _)| {
        if columns[i].cut_to.is_some() {
            Cell::text(columns[i].head)
        } else {
            Cell::figure(columns[i].head)
        }
    });
    let row = |row: Vec<Cell>| {
        let cells = shown.iter().map(|&(i, width)| match columns[i].cut_to {
            Some(_) => row[i].clone().cut(width),
            None => row[i].clone(),
        });
        cells.collect()
    };
    (head.collect(), rows.into_iter().map(row).collect())
}

/// A table whose columns only grow, so that rows which come later fit under
/// those printed before.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<Cell>,
    widths: Vec<usize>,
    head_printed: bool,
}

impl Table {
    pub(crate) fn new(head: Vec<Cell>) -> Self {
        Self {
            widths: head.iter().map(Cell::width).collect(),
            head: head.into_iter().map(|cell| cell.tone(Tone::Head)).collect(),
            head_printed: false,
        }
    }

    /// The head and these rows as lines without colours.
    #[cfg(test)]
    pub(crate) fn lines(mut self, rows: &[Vec<Cell>]) -> Vec<String> {
        self.grow(rows);
        let rows = [&self.head].into_iter().chain(rows);
        rows.map(|row| line(row, &self.widths, false)).collect()
    }

    fn grow(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
    }

    /// Prints rows, and before the first ones the head.
    pub(crate) fn print(&mut self, rows: &[Vec<Cell>], out: &mut Output) -> Result<(), CliError> {
        self.grow(rows);
        if !self.head_printed {
            self.head_printed = true;
            out.row(&self.head, &self.widths)?;
        }
        for row in rows {
            out.row(row, &self.widths)?;
        }
        out.flush()
    }
}

/// Buffered standard output.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    colored: bool,
}

impl Output {
    pub(crate) fn stdout(color: Color) -> Self {
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self {
            out: BufWriter::new(io::stdout()),
            colored,
        }
    }

    /// How many characters a line of the terminal has; `None` where it is none.
    pub(crate) fn columns() -> Option<usize> {
        let is_terminal = io::stdout().is_terminal();
        let (columns, _) = is_terminal.then(terminal::size)?.ok()?;
        Some(usize::from(columns))
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}").map_err(CliError::Output)
    }

    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::Output)
    }

    /// A line of cells as wide as that at the least; the last is not padded.
    pub(crate) fn cells(&mut self, cells: &[Cell], widths: &[usize]) -> Result<(), CliError> {
        let more = cells.len().saturating_sub(widths.len());
        let widths: Vec<usize> = widths.iter().copied().chain(vec![0; more]).collect();
        self.row(cells, &widths)
    }

    fn row(&mut self, cells: &[Cell], widths: &[usize]) -> Result<(), CliError> {
        self.line(&line(cells, widths, self.colored))
    }
}

fn line(cells: &[Cell], widths: &[usize], colored: bool) -> String {
    let mut line = String::new();
    for (i, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        let (before, after) = if cell.right {
            (padding.as_str(), "")
        } else if i + 1 == cells.len() {
            ("", "")
        } else {
            ("", padding.as_str())
        };
        let style = if colored {
            cell.tone.style()
        } else {
            Style::new()
        };
        let gap = if i == 0 { "" } else { GAP };
        let text = &cell.text;
        line.push_str(&format!("{gap}{before}{style}{text}{style:#}{after}"));
    }
    line
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
