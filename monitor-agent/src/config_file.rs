//! `--config FILE`: TOML or YAML, whose keys are the flags of `run`.

use std::{fs, path::Path};

use clap::{
    Args as _,
    error::{ContextKind, ContextValue},
};

use crate::{cli::RunArgs, config::ConfigError};

/// A configuration file is small.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the flags in a file.
pub(crate) fn read(path: &Path) -> Result<RunArgs, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::File {
            path: path.to_owned(),
            what: "is larger than 1MiB",
        });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let parsed = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => toml(&text),
        Some("yaml" | "yml") if text.trim().is_empty() => Ok(RunArgs::default()),
        Some("yaml" | "yml") => yaml(&text),
        _ => {
            return Err(ConfigError::File {
                path: path.to_owned(),
                what: "must end in .toml, .yaml or .yml",
            });
        }
    };
    parsed.map_err(|(line, message)| ConfigError::Syntax {
        path: path.to_owned(),
        line,
        message: explained(&text, line, &message),
    })
}

/// What is wrong, and in which line from 1 on.
type Wrong = (u64, String);

fn toml(text: &str) -> Result<RunArgs, Wrong> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() as u64 + 1);
        (line, error.message().to_owned())
    })
}

fn yaml(text: &str) -> Result<RunArgs, Wrong> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        (line, error.without_snippet().to_string())
    })
}

/// A key that is unknown, with the one that may be meant; else the key and what is
/// wrong with it.
fn explained(text: &str, line: u64, message: &str) -> String {
    if let Some((_, rest)) = message.split_once("unknown field `")
        && let Some((key, _)) = rest.split_once('`')
    {
        return format!(
            "there is no key {key:?}: {}; the keys are the flags of `speedmimi-agent run --help`, \
             without --",
            nearest(key)
        );
    }
    let line = usize::try_from(line).unwrap_or(usize::MAX);
    let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key = written.split(['=', ':']).next().unwrap_or_default().trim();
    format!("{key}: {message}")
}

fn nearest(key: &str) -> String {
    let command = RunArgs::augment_args(clap::Command::new("run"));
    let unknown = command.try_get_matches_from(["run", &format!("--{key}")]);
    let error = unknown.err();
    match error
        .as_ref()
        .and_then(|e| e.get(ContextKind::SuggestedArg))
    {
        Some(ContextValue::String(flag)) => format!("did you mean {}?", flag.trim_matches('-')),
        _ => "none is like it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, told) in [
            (
                "a.toml",
                "\ncolector = \"x\"",
                "a.toml:2: there is no key \"colector\": did you mean collector?",
            ),
            ("a.yaml", "pid: 1\ncolector: x", "did you mean collector?"),
            (
                "a.toml",
                "zzzz = 1",
                "a.toml:1: there is no key \"zzzz\": none is like it",
            ),
            (
                "a.toml",
                "pid = 1\nspool-dir = 5",
                "a.toml:2: spool-dir: invalid type: integer `5`",
            ),
            (
                "a.toml",
                "insecure = \"yes\"",
                "a.toml:1: insecure: invalid type: string",
            ),
            ("a.yaml", "pid: 1\ninsecure: [1]", "a.yaml:2: insecure: "),
            (
                "a.toml",
                "level = \"udp\"",
                "a.toml:1: level: unknown variant `udp`",
            ),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
