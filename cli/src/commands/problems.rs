//! `speedmimi problems`: what is wrong now.

use std::{thread, time::Duration};

use jiff::Zoned;
use problems::{Problem, Problems, Severity, nothing};

use crate::{
    CliError,
    args::{self, Format},
    client::Client,
    output::{Cell, Output, Tone},
    time::local,
};

/// How often the collector is asked while it is watched.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Prints the problems; how many there are.
pub(crate) fn problems(
    client: &Client,
    options: &args::Problems,
    out: &mut Output,
) -> Result<u64, CliError> {
    let (text, now) = ask(client, options)?;
    if options.watch {
        return watch(client, options, now, out);
    }
    match options.common.output {
        Format::Json => out.line(text.trim_end())?,
        Format::Table => print(&now, out)?,
    }
    Ok(now.total)
}

fn ask(client: &Client, options: &args::Problems) -> Result<(String, Problems), CliError> {
    let host = options.host.as_deref().unwrap_or("");
    let severity = options.severity.map_or("", Severity::word);
    let kind = options.kind.as_deref().unwrap_or("");
    let query = [("host", host), ("severity", severity), ("kind", kind)];
    let (text, now): (_, Problems) = client.get("/api/v1/problems", &query)?;
    if now.hosts == 0 && !host.is_empty() {
        client.must_know(host)?;
    }
    Ok((text, now))
}

/// What is wrong, worst first, or that nothing is.
pub(crate) fn print(now: &Problems, out: &mut Output) -> Result<(), CliError> {
    for problem in &now.problems {
        let line = [
            Cell::text(problem.severity.word()).tone(tone(problem)),
            Cell::text(&problem.summary),
        ];
        out.cells(&line, &[Severity::Critical.word().len()])?;
        for line in problem.facts(&local(&problem.since, &Zoned::now())) {
            out.cells(
                &[Cell::text(""), Cell::text(&line)],
                &[Severity::Critical.word().len()],
            )?;
        }
    }
    let shown = now.problems.len() as u64;
    if shown < now.total {
        out.line(&format!(
            "{} more: choose with --host, --kind or --severity",
            now.total - shown
        ))?;
    }
    if now.total == 0 {
        out.line(&nothing(now))?;
    }
    Ok(())
}

fn tone(problem: &Problem) -> Tone {
    match problem.severity {
        Severity::Critical => Tone::Bad,
        Severity::Warning => Tone::Warn,
        Severity::Info => Tone::Plain,
    }
}

/// What tells problems apart.
fn key(problem: &Problem) -> impl PartialEq + use<> {
    (problem.kind.clone(), problem.subject.clone())
}

/// Prints what begins and what is over, until it is interrupted.
fn watch(
    client: &Client,
    options: &args::Problems,
    first: Problems,
    out: &mut Output,
) -> Result<u64, CliError> {
    let mut known: Vec<Problem> = Vec::new();
    let mut now = first;
    if now.total == 0 && options.common.output == Format::Table {
        out.line(&nothing(&now))?;
    }
    loop {
        let is_among = |all: &[Problem], one: &Problem| all.iter().any(|p| key(p) == key(one));
        for problem in now.problems.iter().filter(|one| !is_among(&known, one)) {
            tell("begin", problem, options.common.output, out)?;
        }
        for problem in known.iter().filter(|one| !is_among(&now.problems, one)) {
            tell("end", problem, options.common.output, out)?;
        }
        out.flush()?;
        known = now.problems;
        thread::sleep(LOOK_INTERVAL);
        now = ask(client, options)?.1;
    }
}

fn tell(event: &str, problem: &Problem, format: Format, out: &mut Output) -> Result<(), CliError> {
    if format == Format::Json {
        let line = serde_json::json!({ "event": event, "problem": problem });
        return out.line(&line.to_string());
    }
    let now = Zoned::now();
    let (time, tone) = match event {
        "begin" => (local(&problem.since, &now), tone(problem)),
        _ => (local(&now.timestamp().to_string(), &now), Tone::Good),
    };
    let word = if event == "begin" {
        problem.severity.word()
    } else {
        "over"
    };
    let cells = [
        Cell::text(&time),
        Cell::text(word).tone(tone),
        Cell::text(&problem.summary),
    ];
    out.cells(&cells, &["00:00:00".len(), Severity::Critical.word().len()])
}
