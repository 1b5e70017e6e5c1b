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
    #[error("line {line}: unknown {what} \"{found}\"{} known here: {}", suggestion(nearest.as_ref()), known.join(", "))]
    Unknown {
        /// The line, from 1.
        line: u64,
        /// `key` or `value`.
        what: &'static str,
        /// What is written.
        found: String,
        /// The one that was probably meant.
        nearest: Option<String>,
        /// All that can be written there.
        known: Vec<&'static str>,
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
    nearest.map_or_else(
        || ";".to_owned(),
        |nearest| format!(", did you mean \"{nearest}\"?"),
    )
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
                known: expected.clone(),
            },
            YamlError::SerdeUnknownVariant {
                variant, expected, ..
            } => Self::Unknown {
                line,
                what: "value",
                found: variant.clone(),
                nearest: nearest(variant, expected),
                known: expected.clone(),
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

/// The known name that needs the fewest edits, where it is a slip of a few letters:
/// any other would mislead.
fn nearest(found: &str, known: &[&str]) -> Option<String> {
    let (edits, name) = known.iter().map(|name| (edits(found, name), *name)).min()?;
    (edits <= found.chars().count().div_ceil(3).max(2)).then(|| name.to_owned())
}

/// The Levenshtein distance, by one row of the table.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, a) in from.to_ascii_lowercase().chars().enumerate() {
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
        let algorithms = ["ip_hash", "least_connections", "weight"];
        assert_eq!(nearest("round_robin", &algorithms), None);
        assert_eq!(nearest("IP-Hash", &algorithms), Some("ip_hash".to_owned()));
    }
}
