//! The environment variables that a configuration sets for the lines below.
//!
//! What the process was started with is not known, so that a variable has a value
//! only where the file alone decides on it.

use std::collections::HashMap;

/// How long a value is, and a word with values in it: a host and a port are shorter.
const VALUE_BYTES_MAX: usize = 4_096;

/// How many variables are kept; the rest is not known.
const VARIABLES_MAX: usize = 1_000;

/// How much of a variable's name is said.
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Value {
    /// The process's own, if it has one.
    #[default]
    Unknown,
    Unset,
    Is(String),
}

#[derive(Debug, Default)]
pub(super) struct Environment {
    named: HashMap<String, Value>,
    /// What all the others are.
    others: Value,
}

/// A reference to a variable, and what is behind it.
struct Reference<'a> {
    name: &'a str,
    default: &'a str,
    rest: &'a str,
}

impl Environment {
    /// A line of the section `global`, which may be one that does not hold.
    pub(super) fn take(&mut self, words: &[String], conditional: bool) {
        let Some((keyword, words)) = words.split_first() else {
            return;
        };
        match (keyword.as_str(), words) {
            ("setenv", [name, value, ..]) => self.set(name, is(value), conditional),
            ("presetenv", [name, value, ..]) if *self.get(name) == Value::Unset => {
                self.set(name, is(value), conditional);
            }
            ("unsetenv", names) => {
                for name in names {
                    self.set(name, Value::Unset, conditional);
                }
            }
            ("resetenv", _) if conditional => *self = Self::default(),
            ("resetenv", kept) => {
                let kept = kept
                    .iter()
                    .map(|name| (name.clone(), self.get(name).clone()));
                self.named = kept.collect();
                self.others = Value::Unset;
            }
            _ => {}
        }
    }

    fn get(&self, name: &str) -> &Value {
        self.named.get(name).unwrap_or(&self.others)
    }

    fn set(&mut self, name: &str, value: Value, conditional: bool) {
        let value = if conditional { Value::Unknown } else { value };
        if self.named.len() < VARIABLES_MAX || self.named.contains_key(name) {
            self.named.insert(name.to_owned(), value);
        } else {
            self.others = Value::Unknown;
        }
    }

    /// Appends what a `$` before this text stands for in double quotes; what is
    /// behind it.
    pub(super) fn expand<'a>(&self, text: &'a str, word: &mut String) -> &'a str {
        let Some(reference) = reference(text) else {
            word.push('$');
            return text;
        };
        let value = match self.get(reference.name) {
            Value::Unknown => None,
            Value::Unset => Some(reference.default),
            Value::Is(value) => Some(value.as_str()),
        };
        match value.filter(|value| word.len() + value.len() <= VALUE_BYTES_MAX) {
            Some(value) => word.push_str(value),
            None => word.extend(["${", reference.name, "}"]),
        }
        reference.rest
    }

    /// An address, in which variables have their values without quotes, too.
    pub(super) fn address(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = match reference(after) {
                // There is no default here.
                Some(reference) if reference.default.is_empty() => self.expand(after, &mut out),
                _ => {
                    out.push('$');
                    after
                }
            };
        }
        out + rest
    }
}

/// A value with a variable in it that is not known is not known either.
fn is(value: &str) -> Value {
    if value.contains('$') || value.len() > VALUE_BYTES_MAX {
        return Value::Unknown;
    }
    Value::Is(value.to_owned())
}

/// `NAME`, `{NAME}` or `{NAME-default}`, where a default ends with the first brace.
fn reference(text: &str) -> Option<Reference<'_>> {
    let inner = text.strip_prefix('{');
    let from = inner.unwrap_or(text);
    let end = from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (name, rest) = from.split_at(end.unwrap_or(from.len()));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let (default, rest) = match inner {
        None => ("", rest),
        Some(_) => {
            let (default, rest) = rest.split_once('}')?;
            match default {
                "" => ("", rest),
                default => (default.strip_prefix('-')?, rest),
            }
        }
    };
    Some(Reference {
        name,
        default,
        rest,
    })
}

/// The first variable that is left in a word, as it is said.
pub(super) fn variable(word: &str) -> Option<String> {
    let (_, after) = word.split_once('$')?;
    let name = reference(after).map_or("", |reference| reference.name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some("a variable".to_owned());
    }
    Some(format!("${name}"))
}

#[cfg(test)]
mod tests {
    use super::{super::words::words, *};

    /// The words of the last line, after the others.
    fn after(lines: &[&str], last: &str) -> Vec<String> {
        let mut environment = Environment::default();
        for line in lines {
            let line = words(line, &environment);
            environment.take(&line, false);
        }
        words(last, &environment)
    }

    /// What `HAProxy` 2.6 makes of these lines.
    #[test]
    fn variables_are_expanded_in_double_quotes_only() {
        let set = [
            r#"setenv A one"#,
            "unsetenv U",
            "setenv D one",
            "presetenv D two",
        ];
        for (line, expected) in [
            (
                r#""$A ${A} ${A-def} ${U} ${U-def} \$A x""#,
                "one one one  def $A x",
            ),
            (r#""${U-a\ b\"c\x41} ${U-}""#, r#"a\ b\"c\x41 "#),
            (r"'$A'", "$A"),
            (r"k4\ $A\$A", r"k4 $A\$A"),
            (r#""${U-$A} z""#, "$A z"),
            (r#""$D $A.b $A-c""#, "one one.b one-c"),
            (r#""${U-"q"} z""#, r#""q" z"#),
            (r#""${U-b c#d}""#, "b c#d"),
            (r#""${U-'x'}""#, "'x'"),
        ] {
            assert_eq!(after(&set, line), [expected], "{line}");
        }
    }

    #[test]
    fn the_process_s_own_environment_is_not_known() {
        let line = r#""$A ${B-b} $C""#;
        let unknown = ["${A} ${B} ${C}"];
        assert_eq!(after(&[], line), unknown);
        assert_eq!(after(&["presetenv A 1", "setenv C \"$X\""], line), unknown);
        assert_eq!(
            after(&["unsetenv A B", "presetenv A 1"], line),
            ["1 b ${C}"]
        );
        assert_eq!(after(&["setenv A 1", "resetenv A C"], line), ["1 b ${C}"]);
        assert_eq!(after(&["setenv A 1", "resetenv"], line), [" b "]);
        let set = words("setenv A 2", &Environment::default());
        let reset = words("resetenv", &Environment::default());
        let mut environment = Environment::default();
        environment.take(&set, false);
        environment.take(&reset, false);
        environment.take(&set, true);
        assert_eq!(words(line, &environment), ["${A} b "]);
        environment.take(&reset, true);
        assert_eq!(words(line, &environment), unknown);
    }

    #[test]
    fn values_and_their_number_are_bounded() {
        let mut lines = vec![format!("setenv A {}", "x".repeat(2_048))];
        lines.extend(["setenv B \"$A$A\"", "setenv C \"$B$A\""].map(str::to_owned));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(after(&lines, "\"$B\"")[0].len(), VALUE_BYTES_MAX);
        assert_eq!(after(&lines, "\"$C\""), ["${C}"]);
        let many: Vec<String> = (0..1_001).map(|n| format!("setenv V{n} {n}")).collect();
        let many = [
            &["resetenv"][..],
            &many.iter().map(String::as_str).collect::<Vec<_>>(),
        ];
        assert_eq!(
            after(&many.concat(), "\"$V999 $V1000 $V1001\""),
            ["999 ${V1000} ${V1001}"]
        );
    }
}
