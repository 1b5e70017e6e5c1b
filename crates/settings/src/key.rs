//! What may be written: keys, what they take, and the check of a document by them.

use daemon::units::{parse_bytes, parse_duration};
use serde_json::{Map, Number, Value};

use crate::{
    Fault,
    document::{Content, Node},
};

/// A key of a configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// As it is written in a file.
    pub name: String,
    /// An older name that is taken too.
    pub alias: Option<String>,
    /// What it is for.
    pub help: String,
    /// What it takes.
    pub kind: Kind,
    /// What counts where nothing is given.
    pub default: Option<Value>,
    /// What an example shows where there is no default.
    pub example: Option<Value>,
    /// Whether its table cannot be without it.
    pub is_required: bool,
    /// Whether its value is never shown.
    pub is_secret: bool,
    /// Its flag, where it has one.
    pub flag: Option<String>,
    /// Its environment variable, where it has one.
    pub variable: Option<String>,
}

/// What a key takes.
#[derive(Clone, Debug)]
pub enum Kind {
    /// True or false.
    Switch,
    /// Any text; what it means is checked later.
    Text,
    /// A whole number.
    Number {
        /// The minimum.
        min: i64,
        /// The maximum.
        max: i64,
    },
    /// A number with its unit of time.
    Duration,
    /// A number of bytes.
    Size,
    /// One of these, each with what it means.
    Choice(Vec<(String, String)>),
    /// Several; one alone needs no brackets where it is a flag's.
    List {
        /// What each takes.
        of: Box<Self>,
        /// Whether one alone needs no brackets.
        or_one: bool,
    },
    /// Keys.
    Table(Vec<Key>),
    /// Names that the user gives, each with a value.
    Named(Box<Self>),
}

impl Kind {
    /// What may be written, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Number { min, max: i64::MAX } if *min > i64::MIN => {
                format!("a whole number from {min} on")
            }
            Self::Number {
                min: i64::MIN,
                max: _,
            } => "a whole number".to_owned(),
            Self::Number { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration => "a duration such as 500ms, 30s or 1h30m".to_owned(),
            Self::Size => "a size such as 512KiB or 256MiB".to_owned(),
            Self::Choice(choices) => {
                let names: Vec<_> = choices.iter().map(|(name, _)| name.as_str()).collect();
                either(&names)
            }
            Self::List { of, or_one: true } => format!("{}, or a list of such", of.allowed()),
            Self::List { of, .. } => match of.as_ref() {
                Self::Table(_) => "a list of tables".to_owned(),
                of => format!("a list, each {}", of.allowed()),
            },
            Self::Table(keys) => {
                let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
                format!("keys: {}", names.join(", "))
            }
            Self::Named(_) => "names, each with its own keys".to_owned(),
        }
    }

    /// The value that a text stands for: of a flag or of the environment.
    ///
    /// # Errors
    /// Where it is no such value.
    pub fn scalar(&self, text: &str) -> Result<Value, Fault> {
        let wrong = || Err(Fault::of("", format!("{text:?}: write {}", self.allowed())));
        let unit = |error: daemon::units::UnitError| Fault::of("", error.to_string());
        match self {
            Self::Switch => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => wrong(),
            },
            Self::Number { min, max } => match text.parse::<i64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(Number::from(number).into()),
                _ => wrong(),
            },
            Self::Duration => {
                parse_duration(text).map_err(unit)?;
                Ok(text.into())
            }
            Self::Size => {
                parse_bytes(text).map_err(unit)?;
                Ok(text.into())
            }
            Self::Choice(choices) if !choices.iter().any(|(name, _)| name == text) => {
                let names = choices.iter().map(|(name, _)| name.as_str());
                let meant = did_you_mean(text, names);
                Err(Fault::of(
                    "",
                    format!("{text:?}{meant}: write {}", self.allowed()),
                ))
            }
            Self::Text | Self::Choice(_) => Ok(text.into()),
            Self::List { of, .. } => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                let values: Result<Vec<_>, _> = parts.map(|part| of.scalar(part)).collect();
                Ok(values?.into())
            }
            Self::Table(_) | Self::Named(_) => wrong(),
        }
    }

    /// The value that is written.  `path` is where it stands.
    ///
    /// # Errors
    /// Where it is not one that may be written there.
    pub fn value(&self, node: &Node, path: &str) -> Result<Value, Fault> {
        let fault = |what: String| Fault::at(node.at, what).with_key(path);
        let form = |is: &str| fault(format!("is {is}: write {}", self.allowed()));
        match (self, &node.content) {
            (Self::Table(keys), Content::Map(_) | Content::Null) => table(keys, node, path),
            (Self::Named(of), Content::Null) if !matches!(**of, Self::Text) => {
                Ok(Map::new().into())
            }
            (Self::Named(of), Content::Map(entries)) => {
                let values = entries.iter().map(|entry| {
                    let path = join(path, &entry.key);
                    Ok((entry.key.clone(), of.value(&entry.value, &path)?))
                });
                Ok(Value::Object(values.collect::<Result<_, _>>()?))
            }
            (Self::List { of, .. }, Content::List(list)) => {
                let values = list.iter().enumerate();
                let values =
                    values.map(|(index, node)| of.value(node, &format!("{path}[{index}]")));
                Ok(values.collect::<Result<Vec<_>, _>>()?.into())
            }
            (Self::List { .. }, Content::Null) => Ok(Value::Array(Vec::new())),
            (Self::List { of, or_one: true }, Content::Scalar { .. }) => {
                Ok(vec![of.value(node, path)?].into())
            }
            (_, Content::Null) => Err(form("empty")),
            (_, Content::Map(_)) => Err(form("a table of keys")),
            (_, Content::List(_)) => Err(form("a list")),
            (
                Self::Table(_) | Self::Named(_) | Self::List { .. },
                Content::Scalar { typed, .. },
            ) => Err(form(typed.unwrap_or("a text"))),
            (
                Self::Text | Self::Choice(_),
                Content::Scalar {
                    typed: Some(is), ..
                },
            ) => Err(fault(format!(
                "is {is}: write {} in quotes",
                self.allowed()
            ))),
            (_, Content::Scalar { text, .. }) => {
                let value = self.scalar(text);
                value.map_err(|fault| fault.in_place(Some(node.at)).with_key(path))
            }
        }
    }
}

fn table(keys: &[Key], node: &Node, path: &str) -> Result<Value, Fault> {
    let Content::Map(entries) = &node.content else {
        return required(keys, Map::new(), node, path);
    };
    let mut values = Map::new();
    for entry in entries {
        let known = |key: &&Key| key.name == entry.key || key.alias.as_ref() == Some(&entry.key);
        let Some(key) = keys.iter().find(known) else {
            return Err(Fault::at(entry.at, unknown(keys, &entry.key)).with_key(path));
        };
        let path = join(path, &entry.key);
        let is_null = matches!(entry.value.content, Content::Null);
        if is_null && key.default.is_none() && !key.is_required {
            continue;
        }
        let value = key.kind.value(&entry.value, &path)?;
        if values.insert(key.name.clone(), value).is_some() {
            let what = format!(
                "is the older name of {:?}, which is set too: keep one",
                key.name
            );
            return Err(Fault::at(entry.at, what).with_key(&path));
        }
    }
    required(keys, values, node, path)
}

fn required(
    keys: &[Key],
    values: Map<String, Value>,
    node: &Node,
    path: &str,
) -> Result<Value, Fault> {
    let mut missing = keys.iter().filter(|key| key.is_required);
    match missing.find(|key| !values.contains_key(&key.name)) {
        Some(key) => {
            let what = format!("{:?} is missing: write {}", key.name, key.kind.allowed());
            Err(Fault::at(node.at, what).with_key(path))
        }
        None => Ok(Value::Object(values)),
    }
}

fn unknown(keys: &[Key], name: &str) -> String {
    let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
    let mut meant = did_you_mean(name, names.iter().copied());
    if meant.is_empty() {
        let elsewhere: Vec<_> = keys
            .iter()
            .filter(|key| has(&key.kind, name))
            .map(|key| format!("{}.{name}", key.name))
            .collect();
        if !elsewhere.is_empty() {
            meant = format!("; there is {}", elsewhere.join(", "));
        }
    }
    format!(
        "unknown key {name:?}{meant}; allowed here: {}",
        names.join(", ")
    )
}

fn has(kind: &Kind, name: &str) -> bool {
    matches!(kind, Kind::Table(keys) if keys.iter().any(|key| key.name == name))
}

/// The name that is meant, where it is a slip of a few letters: any other would mislead.
pub(crate) fn did_you_mean<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> String {
    let lower = written.to_ascii_lowercase();
    let edits = |name: &str| strsim::levenshtein(&lower, &name.to_ascii_lowercase());
    let nearest = names.map(|name| (edits(name), name)).min();
    match nearest {
        Some((edits, name)) if edits <= written.chars().count().div_ceil(3).max(2) => {
            format!(", did you mean {name:?}?")
        }
        _ => String::new(),
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn either(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
