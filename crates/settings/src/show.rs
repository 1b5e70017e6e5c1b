//! Settings as people read them: what counts and where it is from, an example, the
//! reference.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::{Format, Key, Kind, Place};

/// A setting that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, with those around it.
    pub key: String,
    /// Its values; none where nothing is given and there is no default.
    pub values: Vec<String>,
    /// Where they are from.
    pub source: Source,
    /// Whether they are never shown.
    pub is_secret: bool,
}

/// Where a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is not given.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// Where in it.
        at: Place,
    },
    /// A variable of the environment.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, at } => write!(f, "{}:{at}", path.display()),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

impl Setting {
    /// The keys of which the values differ.
    #[must_use]
    pub fn differing(one: &[Self], other: &[Self]) -> Vec<String> {
        let differs = |setting: &&Self| {
            let twin = other.iter().find(|twin| twin.key == setting.key);
            twin.is_none_or(|twin| twin.values != setting.values)
        };
        let gone = |setting: &&Self| !one.iter().any(|twin| twin.key == setting.key);
        let differing = one.iter().filter(differs).chain(other.iter().filter(gone));
        let mut keys: Vec<_> = differing.map(|setting| setting.key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// What a message calls a key: its flag, its variable, or its place in the file.
    #[must_use]
    pub fn label(settings: &[Self], key: &str) -> String {
        let found = settings.iter().find(|setting| setting.key == key);
        match found.map(|setting| &setting.source) {
            Some(source @ Source::File { .. }) => format!("{source}: {key}"),
            Some(Source::Environment(name)) => name.clone(),
            Some(Source::Flag | Source::Default) | None => format!("--{key}"),
        }
    }

    fn shown(&self) -> String {
        match self.values.as_slice() {
            [] => "–".to_owned(),
            _ if self.is_secret => "(secret)".to_owned(),
            values => values
                .iter()
                .map(|value| without_secrets(value))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

/// A URL may carry a password before its host, and a token in its query.
fn without_secrets(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?…"),
        None => (rest, ""),
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

/// What counts, and where it is from: a table, or JSON.
#[must_use]
pub fn shown(settings: &[Setting], as_json: bool) -> String {
    if as_json {
        let all = settings.iter().map(|setting| {
            let value = if setting.values.is_empty() {
                None
            } else {
                Some(setting.shown())
            };
            json!({"key": setting.key, "value": value, "source": setting.source.to_string()})
        });
        return format!("{}\n", Value::Array(all.collect()));
    }
    let width = |of: fn(&Setting) -> usize| settings.iter().map(of).max().unwrap_or_default();
    let keys = width(|setting| setting.key.chars().count()).max(3);
    let values = width(|setting| setting.shown().chars().count()).clamp(5, 48);
    let mut text = format!("{:keys$}  {:values$}  SOURCE\n", "KEY", "VALUE");
    for setting in settings {
        let (value, source) = (setting.shown(), &setting.source);
        // Writing to a text cannot fail.
        writeln!(text, "{:keys$}  {value:values$}  {source}", setting.key).ok();
    }
    text
}

/// What is said of settings that are right.
#[must_use]
pub fn checked(settings: &[Setting]) -> String {
    let given = settings
        .iter()
        .filter(|setting| setting.source != Source::Default);
    format!(
        "the configuration is valid: {} of {} settings are given\n",
        given.count(),
        settings.len()
    )
}

/// A configuration file with every key and its meaning, of which `head` says what it is.
#[must_use]
pub fn example(head: &str, keys: &[Key], format: Format) -> String {
    let mut text = String::new();
    for line in head.lines() {
        writeln!(text, "# {line}").ok();
    }
    match format {
        Format::Toml => {
            for key in keys {
                text.push('\n');
                comment(&mut text, key, 0);
                let value = value_of(key);
                let value = value.unwrap_or_else(|| Value::String(String::new()));
                writeln!(text, "# {} = {value}", key.name).ok();
            }
        }
        Format::Yaml => yaml(&mut text, keys, 0, false),
    }
    text
}

fn yaml(text: &mut String, keys: &[Key], depth: usize, is_item: bool) {
    for (index, key) in keys.iter().enumerate() {
        if depth == 0 {
            text.push('\n');
        }
        let mut indent = "  ".repeat(depth);
        if is_item && index == 0 {
            indent.replace_range(indent.len().saturating_sub(2).., "- ");
        } else {
            comment(text, key, depth);
        }
        let name = &key.name;
        match (&key.kind, value_of(key)) {
            (Kind::Table(keys), _) if key.default.is_some() || key.is_required => {
                writeln!(text, "{indent}{name}:").ok();
                yaml(text, keys, depth + 1, false);
            }
            (Kind::Named(of), Some(Value::Object(names))) if !names.is_empty() => {
                writeln!(text, "{indent}{name}:").ok();
                for entry in names.keys() {
                    writeln!(text, "{indent}  {entry}:").ok();
                    match of.as_ref() {
                        Kind::Table(keys) => yaml(text, keys, depth + 2, false),
                        Kind::List { of, .. } => {
                            if let Kind::Table(keys) = of.as_ref() {
                                yaml(text, keys, depth + 3, true);
                            }
                        }
                        _ => {}
                    }
                }
            }
            (_, Some(value)) if key.default.is_some() || key.is_required => {
                writeln!(text, "{indent}{name}: {}", plain(&value)).ok();
            }
            (Kind::Table(keys), _) => {
                let inner = keys
                    .iter()
                    .filter_map(|key| Some(format!("{}: {}", key.name, plain(&value_of(key)?))));
                let inner = inner.collect::<Vec<_>>().join(", ");
                writeln!(text, "{indent}# {name}: {{{inner}}}").ok();
            }
            (_, value) => {
                let value = value.map(|value| plain(&value)).unwrap_or_default();
                writeln!(text, "{indent}# {name}: {value}").ok();
            }
        }
    }
}

fn value_of(key: &Key) -> Option<Value> {
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({});
    let default = key.default.as_ref().filter(|default| !is_empty(default));
    let shown = default.or(key.example.as_ref()).or(key.default.as_ref());
    shown.cloned()
}

/// A value of YAML: what is clear needs no quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text)
            if text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
                && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

/// As wide as a comment gets.
const WIDTH: usize = 88;

fn comment(text: &mut String, key: &Key, depth: usize) {
    let indent = "  ".repeat(depth);
    let allowed = match &key.kind {
        Kind::Choice(_) => format!(" Allowed: {}.", key.kind.allowed()),
        _ => String::new(),
    };
    let help = key.help.split_whitespace().collect::<Vec<_>>().join(" ");
    let help = format!("{}.{allowed}", help.trim_end_matches('.'));
    let mut line = String::new();
    for word in help.split(' ') {
        if !line.is_empty() && line.len() + word.len() >= WIDTH - indent.len() {
            writeln!(text, "{indent}# {line}").ok();
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(text, "{indent}# {line}").ok();
}

/// The reference of these keys, as a table of Markdown.
#[must_use]
pub fn reference(keys: &[Key]) -> String {
    let mut text = "| key | default | allowed | meaning |\n|---|---|---|---|\n".to_owned();
    rows(&mut text, keys, "");
    text
}

fn rows(text: &mut String, keys: &[Key], path: &str) {
    for key in keys {
        let path = crate::key::join(path, &key.name);
        let help = key.help.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut cells = vec![format!("`{path}`")];
        let within = within(&key.kind);
        let is_table = within.is_some() && !matches!(key.kind, Kind::List { .. });
        cells.push(match &key.default {
            Some(default) if !is_table => format!("`{}`", self::text(default)),
            _ if key.is_required => "required".to_owned(),
            _ => String::new(),
        });
        cells.push(if is_table {
            String::new()
        } else {
            key.kind.allowed()
        });
        let mut help = format!("{}.", help.trim_end_matches('.'));
        if let Kind::Choice(choices) = &key.kind {
            for (name, meaning) in choices.iter().filter(|(_, meaning)| !meaning.is_empty()) {
                write!(help, " `{name}`: {}.", meaning.trim_end_matches('.')).ok();
            }
        }
        if let Some(name) = &key.variable {
            write!(help, " Environment: `{name}`.").ok();
        }
        if let Some(alias) = &key.alias {
            write!(help, " Older name: `{alias}`.").ok();
        }
        cells.push(help);
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(text, "| {} |", cells.join(" | ")).ok();
        if let Some((keys, suffix)) = within {
            rows(text, keys, &format!("{path}{suffix}"));
        }
    }
}

/// The keys within a value, and what stands before them.
fn within(kind: &Kind) -> Option<(&[Key], String)> {
    match kind {
        Kind::Table(keys) => Some((keys, String::new())),
        Kind::Named(of) => within(of).map(|(keys, suffix)| (keys, format!(".NAME{suffix}"))),
        Kind::List { of, .. } => within(of).map(|(keys, suffix)| (keys, format!("[]{suffix}"))),
        _ => None,
    }
}

/// A value as a user writes it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
