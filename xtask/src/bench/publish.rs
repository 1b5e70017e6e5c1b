//! docs/benchmarks/NAME.md and NAME.svg: what was measured when, on what, and
//! by which command.
//!
//! Figures stand between two marks, so that the words around them stay when
//! they are measured again.

use std::{fs, io::ErrorKind, process::Command};

use anyhow::{Context as _, Result};

use super::{
    Provenance, Row,
    charts::{self, Panel, figure},
};
use crate::{
    command::{output, step},
    workspace::Workspace,
};

const BEGIN: &str = "<!-- figures: written by the command below -->";
const END: &str = "<!-- end of figures -->";

/// Writes the table and the picture of a bench.
pub(super) fn publish(
    workspace: &Workspace,
    provenance: &Provenance,
    panels: &[Panel],
    rows: &[Row],
) -> Result<()> {
    let name = provenance.bench;
    let directory = workspace.path("docs/benchmarks");
    fs::create_dir_all(&directory)?;
    let picture = charts::svg(name, panels, rows);
    if let Some(picture) = &picture {
        fs::write(directory.join(format!("{name}.svg")), picture)?;
    }
    let file = directory.join(format!("{name}.md"));
    let before = match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("reading {}", file.display()))?,
    };
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let figures = block(provenance, &date, picture.is_some(), panels, rows);
    fs::write(&file, replaced(name, &before, &figures))
        .with_context(|| format!("writing {}", file.display()))?;
    step(&format!("{} is written", file.display()));
    Ok(())
}

fn block(
    provenance: &Provenance,
    date: &str,
    has_picture: bool,
    panels: &[Panel],
    rows: &[Row],
) -> String {
    let Provenance {
        bench,
        kernel,
        commit,
        processors,
    } = provenance;
    let mut text = format!(
        "`{}`, {date}, Linux {kernel}, {processors} processors, commit {commit}.\n\n",
        command_line(std::env::args().skip(1))
    );
    if has_picture {
        let alternative = charts::alternative(bench, panels, &charts::rows_in(panels, rows));
        text.push_str(&format!("![{alternative}]({bench}.svg)\n\n"));
    }
    text.push_str("| case | metric | median | quartiles | 95 % interval | rounds |\n");
    text.push_str("|---|---|--:|--:|--:|--:|\n");
    for row in rows {
        let of = row.quartiles;
        let range = |low, high| format!("{}–{}", figure(low), figure(high));
        let interval = of.interval.map(|(low, high)| range(low, high));
        text.push_str(&format!(
            "| {} | `{}` | {} | {} | {} | {} |\n",
            row.case,
            row.metric,
            figure(of.median),
            range(of.q1, of.q3),
            interval.as_deref().unwrap_or(""),
            row.rounds
        ));
    }
    text
}

/// What to type to measure the same again.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let words = arguments.filter(|word| word != "--save");
    ["cargo".to_owned(), "xtask".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The document with new figures in the place of the former ones.
fn replaced(name: &str, before: &str, figures: &str) -> String {
    let block = format!("{BEGIN}\n\n{figures}\n{END}");
    let around = before
        .split_once(BEGIN)
        .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    match around {
        Some((head, tail)) => format!("{head}{block}{tail}"),
        None if before.is_empty() => format!("# bench {name}\n\n{block}\n"),
        None => format!("{}\n\n{block}\n", before.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_around_the_figures_stay() {
        let first = replaced("x", "# What it costs\n\nWords.\n", "1");
        assert!(first.starts_with("# What it costs\n\nWords.\n\n<!--"));
        let after = format!("{first}\nMore words.\n");
        let second = replaced("x", &after, "2");
        assert_eq!(second, after.replace("\n1\n", "\n2\n"));
        assert!(replaced("x", "", "1").starts_with("# bench x\n"));
    }

    #[test]
    fn the_command_is_the_one_to_type() {
        let words = ["bench", "overhead", "--save", "--rounds", "9"].map(str::to_owned);
        assert_eq!(
            command_line(words.into_iter()),
            "cargo xtask bench overhead --rounds 9"
        );
    }

    #[test]
    fn a_row_of_the_table_has_every_figure() {
        let provenance = Provenance {
            bench: "x",
            kernel: "6.1".to_owned(),
            commit: "abc".to_owned(),
            processors: 2,
        };
        let rows = [Row::of("one", "ratio", vec![1.0; 6]).unwrap()];
        let text = block(&provenance, "2026-01-01", false, &[], &rows);
        assert!(
            text.ends_with("| one | `ratio` | 1.000 | 1.000–1.000 | 1.000–1.000 | 6 |\n"),
            "{text}"
        );
        assert!(text.contains("2026-01-01, Linux 6.1, 2 processors, commit abc."));
    }
}
