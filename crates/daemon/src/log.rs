//! The log, on stderr: stdout is for what a command was asked for.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// What stands on a line beside its message and fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The module too.  Fields in JSON are an object of their own, as some are called
    /// like the line's own keys (level, target).
    Full,
    /// Time and level alone.  Fields in JSON stand beside them.
    Short,
}

/// Starts the process's log.  `RUST_LOG` chooses what is logged, `info` and above by
/// default; the directives hold whatever it says.  Later calls are ignored, so that
/// tests may run several daemons in one process.
///
/// A line that stderr does not take is lost: whoever read it has gone, and no daemon
/// ends for that.
pub fn start(format: LogFormat, line: Line, directives: &[&str]) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (wanted, unclear) = understood(&wanted);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(&wanted, directives))
        .with_writer(stderr)
        .with_target(line == Line::Full)
        .with_ansi(stderr().is_terminal())
        // These would be printed on the same stderr, where a failure is a panic.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(line == Line::Short).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
    if !unclear.is_empty() {
        let ignored = unclear.join(",");
        tracing::warn!(
            ignored,
            "RUST_LOG: a part is not understood; write directives such as info or \
             speedmimi_bpf=debug, with commas between them"
        );
    }
}

/// The directives in a text, and what is none.  `EnvFilter` would print that on stderr,
/// and panic where it is closed.
fn understood(text: &str) -> (String, Vec<&str>) {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let (clear, unclear): (Vec<_>, _) = parts.partition(|part| part.parse::<Directive>().is_ok());
    (clear.join(","), unclear)
}

fn filter(wanted: &str, directives: &[&str]) -> EnvFilter {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(wanted);
    let directives = directives.iter().filter_map(|text| text.parse().ok());
    directives.fold(filter, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_directives_hold() {
        for directive in ["speedmimi_bpf=debug", "speedmimi_collector=info"] {
            assert!(!filter("", &[]).to_string().contains(directive));
            let shown = filter("", &[directive]).to_string();
            assert!(shown.contains(directive), "{shown}");
        }
    }
    #[test]
    fn of_a_malformed_filter_the_rest_counts() {
        let (directives, unclear) = understood("warn,=,, a=loud ,bpf=debug");
        assert_eq!(unclear, ["=", "a=loud"]);
        assert_eq!(filter(&directives, &[]).to_string(), "bpf=debug,warn");
        assert_eq!(filter("", &[]).to_string(), "info");
    }
}
