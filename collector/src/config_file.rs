//! `--config FILE`: a TOML file whose keys are the flags of `run`.
//!
//! The file is turned into flags that stand before those of the command line:
//! both are checked by the same rules, and what is given there counts more.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use toml::Value;

/// A configuration file is small.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path}: give an existing, readable file")]
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
    /// A value has a form that no flag takes.
    #[error(
        "{key} in the configuration file {path} must be a string, a number, true, false or a list"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
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
    let table: toml::Table = text.parse().map_err(|source| ConfigFileError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut flags = Vec::new();
    for (key, value) in &table {
        let mut one = Vec::new();
        if !flag(key, value, &mut one) {
            return Err(ConfigFileError::Form {
                path: path.to_owned(),
                key: key.clone(),
            });
        }
        flags.extend(one.into_iter().map(OsString::from));
    }
    Ok(flags)
}

/// Whether the value can be a flag's; a list gives the flag several times.
fn flag(key: &str, value: &Value, flags: &mut Vec<String>) -> bool {
    match value {
        Value::String(text) => flags.push(format!("--{key}={text}")),
        Value::Integer(number) => flags.push(format!("--{key}={number}")),
        Value::Boolean(true) => flags.push(format!("--{key}")),
        Value::Boolean(false) => {}
        Value::Array(list) => {
            return list
                .iter()
                .all(|value| !value.is_array() && flag(key, value, flags));
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<OsString>, ConfigFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.toml");
        fs::write(&path, text).unwrap();
        flags(&path)
    }

    #[test]
    fn keys_are_flags() {
        let text =
            "data-dir = \"/d\"\ninsecure = true\nremote-write = [\"http://a/\", \"http://b/\"]";
        let expected = [
            "--data-dir=/d",
            "--insecure",
            "--remote-write=http://a/",
            "--remote-write=http://b/",
        ];
        assert_eq!(of(text).unwrap(), expected);
        assert!(of("insecure = false").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        assert!(matches!(
            of("data-dir ="),
            Err(ConfigFileError::Syntax { .. })
        ));
        for text in ["[table]\nx = 1", "x = 1.5", "x = [[1]]"] {
            assert!(
                matches!(of(text), Err(ConfigFileError::Form { .. })),
                "{text}"
            );
        }
    }
}
