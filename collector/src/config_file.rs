//! `--config FILE`: a TOML file whose keys are the flags of `run`.
//!
//! The file is turned into flags that stand before those of the command line:
//! both are checked by the same rules, and what is given there counts more.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, CommandFactory as _,
    error::{ContextKind, ContextValue},
};
use toml::de::{DeTable, DeValue};

use crate::args::Args;

/// A configuration file is small.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path}: use an existing, readable file")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is far too large.
    #[error("the configuration file {0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// It is no TOML.
    #[error("the configuration file {path} is not TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// No flag of `run` has this name.
    #[error(
        "{path}:{line}: unknown key {key:?}: {nearest}; the keys are the flags of \
         `speedmimi-collector run --help`, without --"
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: usize,
        /// The key.
        key: String,
        /// What may be meant.
        nearest: String,
    },
    /// A value has a form that its flag does not take.
    #[error("{path}:{line}: {key} is {wanted}, such as {key} = {example}")]
    Form {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: usize,
        /// The key.
        key: String,
        /// What it takes.
        wanted: &'static str,
        /// One that it takes.
        example: &'static str,
    },
}

/// The flags in a file.
///
/// # Errors
/// Where it cannot be read or holds what cannot be a flag.
pub fn flags(path: &Path) -> Result<Vec<OsString>, ConfigFileError> {
    let read = |source| ConfigFileError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(ConfigFileError::TooLarge(path.to_owned()));
    }
    parse(path, &fs::read_to_string(path).map_err(read)?)
}

/// The flags in a file's text.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<OsString>, ConfigFileError> {
    let table = DeTable::parse(text).map_err(|source| ConfigFileError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let line_of = |at: usize| {
        1 + text.as_bytes()[..at]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    };
    let command = Args::command();
    let known = |key: &str| {
        let run = command.find_subcommand("run")?;
        run.get_arguments()
            .find(|arg| key != "config" && arg.get_long() == Some(key))
    };
    let mut flags = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        let name = key.get_ref().as_ref();
        let arg = known(name).ok_or_else(|| ConfigFileError::Unknown {
            path: path.to_owned(),
            line,
            key: name.to_owned(),
            nearest: nearest(name),
        })?;
        let of_key = of_value(arg, name, value.get_ref()).ok_or_else(|| {
            let (wanted, example) = form(arg);
            ConfigFileError::Form {
                path: path.to_owned(),
                line,
                key: name.to_owned(),
                wanted,
                example,
            }
        })?;
        flags.extend(of_key.into_iter().map(OsString::from));
    }
    Ok(flags)
}

/// A key as a flag; a list gives it several times.  `None` where it takes no
/// such value.
fn of_value(arg: &Arg, key: &str, value: &DeValue<'_>) -> Option<Vec<String>> {
    let flag = |value: &DeValue<'_>| Some(format!("--{key}={}", value.as_str()?));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Some(vec![format!("--{key}")]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Some(Vec::new()),
        (ArgAction::SetTrue, _) => None,
        (ArgAction::Append, DeValue::Array(list)) => {
            list.iter().map(|value| flag(value.get_ref())).collect()
        }
        (_, value) => Some(vec![flag(value)?]),
    }
}

/// What a flag takes, and an example.
fn form(arg: &Arg) -> (&'static str, &'static str) {
    match arg.get_action() {
        ArgAction::SetTrue => ("true or false", "true"),
        ArgAction::Append => ("a string or a list of strings", "[\"…\", \"…\"]"),
        _ => ("a string", "\"…\""),
    }
}

/// The flag that is meant, by the rules of the command line.
fn nearest(key: &str) -> String {
    let unknown = ["speedmimi-collector", "run", &format!("--{key}")];
    let error = Args::command().try_get_matches_from(unknown).err();
    match error
        .as_ref()
        .and_then(|error| error.get(ContextKind::SuggestedArg))
    {
        Some(ContextValue::String(flag)) => format!("did you mean {}?", flag.trim_matches('-')),
        _ => "no key is similar".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<OsString>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.toml");
        fs::write(&path, text).unwrap();
        let directory = format!("{}/", dir.path().display());
        flags(&path).map_err(|error| error.to_string().replace(&directory, ""))
    }

    #[test]
    fn keys_are_flags() {
        let text =
            "data-dir = \"/d\"\ninsecure = true\nremote-write = [\"http://a/\", \"http://b/\"]";
        let mut given = of(text).unwrap();
        given.sort_unstable();
        let expected = [
            "--data-dir=/d",
            "--insecure",
            "--remote-write=http://a/",
            "--remote-write=http://b/",
        ];
        assert_eq!(given, expected);
        assert!(of("insecure = false").unwrap().is_empty());
        assert_eq!(of("otlp = \"grpc://a\"").unwrap(), ["--otlp=grpc://a"]);
    }

    #[test]
    fn what_is_no_flag_is_told_with_its_line_and_what_is_meant() {
        for (text, words) in [
            (
                "# one\n\ndata-dri = \"/d\"",
                "collector.toml:3: unknown key \"data-dri\": did you mean data-dir?",
            ),
            (
                "zzzz = 1",
                "collector.toml:1: unknown key \"zzzz\": no key is similar",
            ),
            (
                "[listen]\ngrpc = 1",
                "collector.toml:1: unknown key \"listen\"",
            ),
            ("config = \"x\"", "collector.toml:1: unknown key \"config\""),
            ("help = true", "collector.toml:1: unknown key \"help\""),
            (
                "insecure = true\ndata-dir = 5",
                "collector.toml:2: data-dir is a string, such as data-dir = \"…\"",
            ),
            (
                "insecure = \"yes\"",
                "collector.toml:1: insecure is true or false, such as insecure = true",
            ),
            (
                "insecure = 1",
                "collector.toml:1: insecure is true or false",
            ),
            (
                "data-dir = [\"a\", \"b\"]",
                "collector.toml:1: data-dir is a string",
            ),
            (
                "otlp = [[\"a\"]]",
                "collector.toml:1: otlp is a string or a list of strings",
            ),
            (
                "otlp = { a = 1 }",
                "collector.toml:1: otlp is a string or a list of strings",
            ),
            (
                "retention-age = 1.5",
                "collector.toml:1: retention-age is a string",
            ),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.starts_with(words), "{text:?}: {error}");
        }
        assert!(of("data-dir =").unwrap_err().contains("is not TOML"));
    }
}
