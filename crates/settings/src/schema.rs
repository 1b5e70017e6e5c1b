//! Settings that are keys within keys: the JSON Schema of the types that they become
//! says what may be written.

use std::{ffi::OsString, path::Path};

use serde_json::{Map, Value};

use crate::{
    Fault, Key, Kind, Setting, Source,
    document::{Content, Node},
    key::{did_you_mean, join},
    show::text,
};

/// What counts more than a file: variables of the environment, and `--set KEY=VALUE`.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys with their values, as they are written.
    pub set: Vec<String>,
}

/// The keys of a file.
#[derive(Clone, Debug)]
pub struct Schema {
    keys: Vec<Key>,
}

/// What a file and its overrides come to.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Of the types that the schema is of.
    pub value: Value,
    /// What is not from the file.
    given: Vec<(String, Source)>,
    node: Option<Node>,
}

impl Schema {
    /// The keys in a JSON Schema without references; of each that is not in a list or a
    /// named one, the environment variable begins with `prefix`.
    #[must_use]
    pub fn new(schema: &Value, prefix: &str) -> Self {
        Self {
            keys: keys(schema, Some(prefix)),
        }
    }

    /// The keys, those that are required first.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Checks a file's content and what is put over it.
    ///
    /// # Errors
    /// Where there is what may not be.
    pub fn merge(&self, mut node: Node, overrides: &Overrides) -> Result<Merged, Fault> {
        rename(&mut node, &self.keys);
        let mut value = Kind::Table(self.keys.clone()).value(&node, "")?;
        let mut given = Vec::new();
        let mut all = Vec::new();
        leaves(&self.keys, "", &mut all);
        for (path, key) in &all {
            let Some(name) = &key.variable else { continue };
            let found = overrides
                .environment
                .iter()
                .find(|(known, _)| known == name.as_str());
            let Some((_, raw)) = found.filter(|(_, raw)| !raw.is_empty()) else {
                continue;
            };
            let fault = |fault: Fault| fault.with_origin(name);
            let text = raw
                .to_str()
                .ok_or_else(|| fault(Fault::of("", "is not UTF-8")))?;
            insert(&mut value, path, key.kind.scalar(text).map_err(fault)?);
            given.push((path.clone(), Source::Environment(name.clone())));
        }
        for written in &overrides.set {
            let fault = |what: String| Fault::of("", what).with_origin("--set");
            let Some((path, text)) = written.split_once('=') else {
                return Err(fault(format!(
                    "{written:?}: write KEY=VALUE, such as server.port=8080"
                )));
            };
            let Some((_, key)) = all.iter().find(|(known, _)| known == path) else {
                let meant = did_you_mean(path, all.iter().map(|(known, _)| known.as_str()));
                return Err(fault(format!("unknown key {path:?}{meant}")));
            };
            let parsed = key.kind.scalar(text);
            let parsed = parsed.map_err(|fault| fault.with_key(path).with_origin("--set"))?;
            insert(&mut value, path, parsed);
            given.retain(|(known, _)| known != path);
            given.push((path.to_owned(), Source::Flag));
        }
        Ok(Merged {
            value,
            given,
            node: Some(node),
        })
    }

    /// What counts, of a value as it is used, and where it is from.
    #[must_use]
    pub fn settings(&self, value: &Value, merged: &Merged, file: &Path) -> Vec<Setting> {
        let mut settings = Vec::new();
        for key in &self.keys {
            let value = value.get(&key.name);
            flatten(key, value, &key.name, &mut settings);
        }
        for setting in &mut settings {
            let given = merged.given.iter().find(|(path, _)| *path == setting.key);
            setting.source = if let Some((_, source)) = given {
                source.clone()
            } else if let Some(at) = merged
                .node
                .as_ref()
                .and_then(|node| node.exact(&setting.key))
            {
                Source::File {
                    path: file.to_owned(),
                    at,
                }
            } else {
                Source::Default
            };
        }
        settings
    }
}

impl Merged {
    /// A fault of a key with the place where it is written, if that is in the file.
    #[must_use]
    pub fn located(&self, fault: Fault, key: &str) -> Fault {
        match self.given.iter().find(|(path, _)| path == key) {
            Some((_, source)) => fault.with_origin(source.to_string()),
            None => fault.in_place(self.node.as_ref().and_then(|node| node.place(key))),
        }
    }
}

fn flatten(key: &Key, value: Option<&Value>, path: &str, out: &mut Vec<Setting>) {
    let one = |values| Setting {
        key: path.to_owned(),
        values,
        source: Source::Default,
        is_secret: key.is_secret,
    };
    match (&key.kind, value) {
        (Kind::Table(keys), value)
            if key.default.is_some() || value.is_some_and(Value::is_object) =>
        {
            for inner in keys {
                let value = value.and_then(|value| value.get(&inner.name));
                flatten(inner, value, &join(path, &inner.name), out);
            }
        }
        (Kind::Named(of), Some(Value::Object(names))) => {
            for (name, value) in names {
                let inner = Key {
                    kind: of.as_ref().clone(),
                    ..key.clone()
                };
                flatten(&inner, Some(value), &join(path, name), out);
            }
        }
        (Kind::List { of, .. }, Some(Value::Array(list))) if matches!(**of, Kind::Table(_)) => {
            for (index, value) in list.iter().enumerate() {
                let inner = Key {
                    kind: of.as_ref().clone(),
                    ..key.clone()
                };
                flatten(&inner, Some(value), &format!("{path}[{index}]"), out);
            }
        }
        (_, Some(Value::Array(list))) => out.push(one(list.iter().map(text).collect())),
        (_, None | Some(Value::Null)) => out.push(one(Vec::new())),
        (_, Some(value)) => out.push(one(vec![text(value)])),
    }
}

/// Gives keys that are called by an older name their own.
fn rename(node: &mut Node, keys: &[Key]) {
    let Content::Map(entries) = &mut node.content else {
        return;
    };
    let names: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    for entry in entries {
        let found = keys
            .iter()
            .find(|key| key.alias.as_ref() == Some(&entry.key));
        if let Some(key) = found.filter(|key| !names.contains(&key.name)) {
            entry.key.clone_from(&key.name);
        }
    }
}

fn insert(value: &mut Value, path: &str, leaf: Value) {
    let mut at = value;
    for part in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part];
    }
    *at = leaf;
}

/// The keys with a variable of their own, by their paths.
fn leaves<'k>(keys: &'k [Key], path: &str, out: &mut Vec<(String, &'k Key)>) {
    for key in keys {
        let path = join(path, &key.name);
        match &key.kind {
            Kind::Table(inner) => leaves(inner, &path, out),
            _ if key.variable.is_some() => out.push((path, key)),
            _ => {}
        }
    }
}

fn keys(schema: &Value, prefix: Option<&str>) -> Vec<Key> {
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|one| one == name));
    let properties = schema["properties"].as_object();
    let properties = properties.into_iter().flatten();
    let mut keys: Vec<_> = properties
        .map(|(name, schema)| {
            let name_in_variable = name.to_uppercase();
            let variable = prefix.map(|prefix| format!("{prefix}_{name_in_variable}"));
            let kind = kind(schema, variable.as_deref());
            let is_leaf = match &kind {
                Kind::Table(_) | Kind::Named(_) => false,
                Kind::List { of, .. } => !matches!(**of, Kind::Table(_)),
                _ => true,
            };
            let string = |key: &str| schema[key].as_str().map(str::to_owned);
            Key {
                name: name.clone(),
                alias: string("x-alias"),
                help: string("description").unwrap_or_default(),
                default: schema
                    .get("default")
                    .filter(|value| !value.is_null())
                    .cloned(),
                example: schema["examples"].get(0).cloned(),
                is_required: is_required(name),
                is_secret: schema["writeOnly"] == true,
                flag: None,
                variable: variable.filter(|_| is_leaf),
                kind,
            }
        })
        .collect();
    keys.sort_by_key(|key| !key.is_required);
    keys
}

fn kind(schema: &Value, prefix: Option<&str>) -> Kind {
    // Of something that may be absent: what it is where it is there.
    if let Some(any) = schema["anyOf"].as_array() {
        let present = any.iter().find(|one| one["type"] != "null");
        return present.map_or(Kind::Text, |one| kind(one, prefix));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let choice = |one: &Value| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("const"), text("description"))
        };
        return Kind::Choice(choices.iter().map(choice).collect());
    }
    let is = |name: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    };
    match schema["format"].as_str() {
        Some("duration") => return Kind::Duration,
        Some("size") => return Kind::Size,
        _ => {}
    }
    if is("object") && schema["properties"].is_object() {
        Kind::Table(keys(schema, prefix))
    } else if is("object") {
        Kind::Named(Box::new(kind(&schema["additionalProperties"], None)))
    } else if is("array") {
        let of = Box::new(kind(&schema["items"], None));
        Kind::List { of, or_one: false }
    } else if is("boolean") {
        Kind::Switch
    } else if is("integer") {
        let bound = |key: &str, otherwise| schema[key].as_i64().unwrap_or(otherwise);
        let max = match schema["format"].as_str() {
            Some("uint32") => u32::MAX.into(),
            _ => i64::MAX,
        };
        Kind::Number {
            min: bound("minimum", i64::MIN),
            max: bound("maximum", max),
        }
    } else {
        Kind::Text
    }
}
