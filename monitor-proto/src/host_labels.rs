//! What the labels of a host may be: the same rules where they are configured, where
//! they are taken, and where they are shown.

use std::collections::BTreeMap;

/// How many a host may have.
pub const COUNT_MAX: usize = 16;
/// How long a key may be.
pub const KEY_BYTES_MAX: usize = 63;
/// How long a value may be.
pub const VALUE_BYTES_MAX: usize = 256;

/// OTLP's attributes of a host that are told of each anyway.
pub const RESERVED: [&str; 7] = [
    "host.id",
    "host.name",
    "os.type",
    "os.version",
    "service.instance.id",
    "service.name",
    "service.version",
];

/// Which rule labels break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// Too many.
    #[error("{0} labels: at most {COUNT_MAX} are taken")]
    TooMany(usize),
    /// A key.
    #[error(
        "label {0:?}: a key has 1 to {KEY_BYTES_MAX} letters a-z, digits, `_` and `.`, and begins with a \
         letter"
    )]
    Key(String),
    /// A key that says what is told anyway.
    #[error("label {0:?}: this attribute is the agent's own")]
    Reserved(String),
    /// A value.
    #[error("label {0:?}: a value has 1 to {VALUE_BYTES_MAX} bytes, and no control characters")]
    Value(String),
    /// Two keys that are one for Prometheus.
    #[error("labels {0:?} and {1:?} are the same in Prometheus, which has `_` for `.`")]
    Twice(String, String),
}

/// Checks all rules.
///
/// # Errors
/// Where one is broken.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), InvalidLabels> {
    if labels.len() > COUNT_MAX {
        return Err(InvalidLabels::TooMany(labels.len()));
    }
    let mut names = BTreeMap::new();
    for (key, value) in labels {
        let valid = key.len() <= KEY_BYTES_MAX
            && key.starts_with(|c: char| c.is_ascii_lowercase())
            && (key.bytes()).all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'));
        if !valid {
            return Err(InvalidLabels::Key(shortened(key)));
        }
        if RESERVED.contains(&key.as_str()) {
            return Err(InvalidLabels::Reserved(key.clone()));
        }
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.contains(char::is_control) {
            return Err(InvalidLabels::Value(key.clone()));
        }
        if let Some(other) = names.insert(prometheus(key), key) {
            return Err(InvalidLabels::Twice(other.clone(), key.clone()));
        }
    }
    Ok(())
}

/// The name of the Prometheus label: `label_` keeps it apart from the labels of our own.
#[must_use]
pub fn prometheus(key: &str) -> String {
    format!("label_{}", key.replace('.', "_"))
}

/// A key that may be long, for an error.
fn shortened(key: &str) -> String {
    key.chars().take(KEY_BYTES_MAX + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(labels: &[(&str, &str)]) -> Result<(), InvalidLabels> {
        let owned = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        check(&owned.collect())
    }

    #[test]
    fn labels_are_bounded() {
        let long = "a".repeat(KEY_BYTES_MAX);
        let value = "v".repeat(VALUE_BYTES_MAX);
        assert_eq!(checked(&[(&long, &value), ("a.b_c1", "ü 1")]), Ok(()));
        assert_eq!(checked(&[]), Ok(()));
        for key in ["", "A", "1a", "_a", "a-b", "a b", "ä", "a\n", &(long + "a")] {
            let told = checked(&[(key, "v")]);
            assert_eq!(told, Err(InvalidLabels::Key(key.into())), "{key:?}");
        }
        for text in ["", "a\nb", "\0", &(value + "v")] {
            let told = checked(&[("k", text)]);
            assert_eq!(told, Err(InvalidLabels::Value("k".into())), "{text:?}");
        }
        for key in RESERVED {
            let told = checked(&[(key, "v")]);
            assert_eq!(told, Err(InvalidLabels::Reserved(key.into())));
        }
        let told = checked(&[("a.b", "1"), ("a_b", "2")]);
        assert_eq!(told, Err(InvalidLabels::Twice("a.b".into(), "a_b".into())));
        let many = (0..=COUNT_MAX).map(|n| (format!("k{n}"), "v".to_owned()));
        assert_eq!(check(&many.collect()), Err(InvalidLabels::TooMany(17)));
    }
}
