//! What is wrong with a configuration, in words that say where and what to do.

use serde_saphyr::Error as YamlError;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A key or choice that does not exist.
    #[error("line {line}: unknown {what} \"{found}\"{}", suggestion(nearest.as_ref()))]
    Unknown {
        /// The line, from 1.
        line: u64,
        /// `key` or `value`.
        what: &'static str,
        /// What is written.
        found: String,
        /// The nearest that exists.
        nearest: Option<String>,
    },
    /// Not YAML, or not of the expected shape.
    #[error("line {line}: {message}")]
    Yaml {
        /// The line, from 1.
        line: u64,
        /// The reason.
        message: String,
    },
    /// Well-formed, but not usable.
    #[error("{key}: {message}")]
    Invalid {
        /// The path of the key.
        key: String,
        /// The reason, and what to write instead.
        message: String,
    },
}

fn suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!(", did you mean \"{nearest}\"?")
    })
}

impl ConfigError {
    pub(super) fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.into(),
            message: message.into(),
        }
    }

    pub(super) fn from_yaml(error: &YamlError) -> Self {
        let error = error.without_snippet();
        let line = error.location().map_or(0, |location| location.line());
        match error {
            YamlError::SerdeUnknownField {
                field, expected, ..
            } => Self::Unknown {
                line,
                what: "key",
                found: field.clone(),
                nearest: nearest(field, expected),
            },
            YamlError::SerdeUnknownVariant {
                variant, expected, ..
            } => Self::Unknown {
                line,
                what: "value",
                found: variant.clone(),
                nearest: nearest(variant, expected),
            },
            other => Self::Yaml {
                line,
                message: first_line(&other.to_string()),
            },
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The known name that needs the fewest edits.
fn nearest(found: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .min_by_key(|name| edits(found, name))
        .map(|name| (*name).to_owned())
}

/// The Levenshtein distance, by one row of the table.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(
            nearest("prot", &["host", "port", "max_conn"]),
            Some("port".to_owned())
        );
    }
}
