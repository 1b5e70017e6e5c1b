//! A configuration file as a tree of values with their places: TOML, or YAML and so
//! JSON.

use std::{fmt, ops::Range, path::Path};

use daemon::read_text;
use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use toml::de::{DeTable, DeValue};

use crate::{Fault, SettingsError};

/// A configuration file is small.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Values within values.
const DEPTH_MAX: usize = 32;
/// Values in a document, those of YAML's aliases counted each time.
const NODES_MAX: usize = 100_000;

/// Where something is written, both from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) at: Place,
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Nothing is written.
    Null,
    /// A text, or what stands for a number or the like.
    Scalar {
        text: String,
        /// What it is where the format says that it is no text.
        typed: Option<&'static str>,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Place,
    pub(crate) value: Node,
}

/// The formats of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables and keys.
    Toml,
    /// JSON is part of it.
    Yaml,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Reads a file; `or` is its format where its name does not say it.
///
/// # Errors
/// Where it cannot be read or parsed; the message names the place.
pub fn read(path: &Path, or: Option<Format>) -> Result<Node, SettingsError> {
    let format = Format::of(path).or(or);
    let format = format.ok_or_else(|| SettingsError::Suffix(path.to_owned()))?;
    let text = read_text(path, FILE_BYTES_MAX)?;
    parse(&text, format).map_err(|fault| fault.in_file(path))
}

/// Reads a text.
///
/// # Errors
/// Where it is not of the format.
pub fn parse(text: &str, format: Format) -> Result<Node, Fault> {
    match format {
        Format::Toml => toml(text),
        Format::Yaml => Yaml::read(text),
    }
}

fn toml(text: &str) -> Result<Node, Fault> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Fault::at(place(at), format!("TOML: {}", one_line(error.message())))
    })?;
    let span = table.span();
    Ok(Node {
        at: place(span.start),
        content: toml_table(table.get_ref(), &place),
    })
}

fn toml_table(table: &DeTable<'_>, place: &impl Fn(usize) -> Place) -> Content {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        at: place(key.span().start),
        value: toml_value(value.get_ref(), value.span(), place),
    });
    Content::Map(entries.collect())
}

fn toml_value(value: &DeValue<'_>, span: Range<usize>, place: &impl Fn(usize) -> Place) -> Node {
    let typed = |text: String, what| Content::Scalar {
        text,
        typed: Some(what),
    };
    let content = match value {
        DeValue::String(text) => Content::Scalar {
            text: text.to_string(),
            typed: None,
        },
        DeValue::Integer(number) => typed(number.to_string(), "a number"),
        DeValue::Float(number) => typed(number.to_string(), "a number"),
        DeValue::Boolean(is) => typed(is.to_string(), "true or false"),
        DeValue::Datetime(time) => typed(time.to_string(), "a date or a time"),
        DeValue::Array(list) => {
            let values = list.iter();
            let values = values.map(|value| toml_value(value.get_ref(), value.span(), place));
            Content::List(values.collect())
        }
        DeValue::Table(table) => toml_table(table, place),
    };
    Node {
        at: place(span.start),
        content,
    }
}

/// YAML's events on their way to one tree.
struct Yaml<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    /// What aliases name, by its number.
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

impl<'t> Yaml<'t> {
    fn read(text: &'t str) -> Result<Node, Fault> {
        let mut yaml = Self {
            events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
            anchors: Vec::new(),
            nodes: 0,
        };
        let mut document = None;
        loop {
            match yaml.next()? {
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                (Event::StreamEnd, span) => {
                    return Ok(document.unwrap_or(Node {
                        at: place(span.start),
                        content: Content::Null,
                    }));
                }
                (_, span) if document.is_some() => {
                    return Err(Fault::at(
                        place(span.start),
                        "YAML: write one document alone",
                    ));
                }
                (event, span) => document = Some(yaml.node(event, span, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        loop {
            match self.events.next() {
                Some(Ok((event, _))) if !is_data(&event) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => {
                    let what = format!("YAML: {}", one_line(&error.info()));
                    return Err(Fault::at(place(*error.marker()), what));
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let at = place(span.start);
        self.count(1, at)?;
        if depth > DEPTH_MAX {
            return Err(Fault::at(
                at,
                format!("YAML: more than {DEPTH_MAX} values within values"),
            ));
        }
        let (anchor, content) = match event {
            Event::Alias(anchor) => return self.aliased(anchor, at),
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let scalar = Content::Scalar {
                    text: text.into_owned(),
                    typed: None,
                };
                (anchor, if is_null { Content::Null } else { scalar })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Content::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Content::Map(self.map(depth)?)),
            _ => return Err(Fault::at(at, "YAML: a value is missing")),
        };
        let node = Node { at, content };
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(list),
                (event, span) => list.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let (at, is_merge) = (place(span.start), is_merge(&event));
            let key = match self.node(event, span, depth + 1)?.content {
                Content::Scalar { text, .. } => text,
                Content::Null => "null".to_owned(),
                Content::List(_) | Content::Map(_) => {
                    return Err(Fault::at(at, "YAML: a key is a text"));
                }
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.push(value);
                continue;
            }
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let what = format!(
                    "{key:?} is already set in line {}: keep one of them",
                    first.at.line
                );
                return Err(Fault::at(at, what));
            }
            entries.push(Entry { key, at, value });
        }
        merged
            .into_iter()
            .for_each(|from| merge(&mut entries, from));
        Ok(entries)
    }

    fn aliased(&mut self, anchor: usize, at: Place) -> Result<Node, Fault> {
        let found = self.anchors.iter().rev().find(|(id, _)| *id == anchor);
        let Some((_, node)) = found else {
            return Err(Fault::at(at, "YAML: an alias within what it names"));
        };
        let node = node.clone();
        self.count(node.count(), at)?;
        Ok(node)
    }

    fn count(&mut self, more: usize, at: Place) -> Result<(), Fault> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            return Err(Fault::at(at, format!("YAML: more than {NODES_MAX} values")));
        }
        Ok(())
    }
}

/// `<<: *defaults`: what is not set here is as there.
fn merge(entries: &mut Vec<Entry>, from: Node) {
    match from.content {
        Content::Map(others) => {
            for other in others {
                if !entries.iter().any(|entry| entry.key == other.key) {
                    entries.push(other);
                }
            }
        }
        Content::List(list) => list.into_iter().for_each(|node| merge(entries, node)),
        Content::Null | Content::Scalar { .. } => {}
    }
}

impl Node {
    fn count(&self) -> usize {
        let within: usize = match &self.content {
            Content::Null | Content::Scalar { .. } => 0,
            Content::List(list) => list.iter().map(Self::count).sum(),
            Content::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        };
        within + 1
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.content {
            Content::Null => true,
            Content::Map(entries) => entries.is_empty(),
            Content::Scalar { .. } | Content::List(_) => false,
        }
    }

    /// Where the value at a path such as `backends.web[0].port` is, or the nearest that
    /// is around it.
    #[must_use]
    pub fn place(&self, path: &str) -> Option<Place> {
        self.walk(path).1
    }

    /// Where the value at a path is, and not what is around it.
    pub(crate) fn exact(&self, path: &str) -> Option<Place> {
        let (is_whole, at) = self.walk(path);
        at.filter(|_| is_whole)
    }

    /// Whether a path is there, and the last place on the way to it.  Names may have
    /// dots in them: the longest that fits is taken.
    fn walk(&self, path: &str) -> (bool, Option<Place>) {
        let (mut node, mut rest, mut found) = (self, path, None);
        while !rest.is_empty() {
            let next = match &node.content {
                Content::Map(entries) => entries
                    .iter()
                    .filter_map(|entry| {
                        let after = rest.strip_prefix(&*entry.key)?;
                        let ends = after.is_empty() || after.starts_with(['.', '[']);
                        ends.then_some((after, entry.at, &entry.value))
                    })
                    .min_by_key(|(after, ..)| after.len()),
                Content::List(list) => rest.strip_prefix('[').and_then(|rest| {
                    let (index, after) = rest.split_once(']')?;
                    let node = list.get(index.parse::<usize>().ok()?)?;
                    Some((after, node.at, node))
                }),
                Content::Null | Content::Scalar { .. } => None,
            };
            let Some((after, at, value)) = next else {
                return (false, found);
            };
            (rest, found, node) = (after.trim_start_matches('.'), Some(at), value);
        }
        (true, found)
    }
}

fn is_data(event: &Event<'_>) -> bool {
    let is_marker = matches!(
        event,
        Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd
    );
    is_marker || event.is_node()
}

fn is_merge(event: &Event<'_>) -> bool {
    event.scalar() == Some(("<<", ScalarStyle::Plain))
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str, format: Format) -> String {
        parse(text, format)
            .unwrap_err()
            .with_origin("f")
            .to_string()
    }

    #[test]
    fn what_is_not_of_the_format_is_told_with_its_place() {
        for (text, format, told) in [
            ("a = 1\nb =", Format::Toml, "2:4: TOML: "),
            ("a = 1\na = 2", Format::Toml, "2:1: TOML: duplicate key"),
            ("a: 1\nb: [", Format::Yaml, ":"),
            (
                "a: 1\na: 2",
                Format::Yaml,
                "2:1: \"a\" is already set in line 1",
            ),
            ("a: *b", Format::Yaml, "1:4: YAML: "),
            ("a: &b [*b]", Format::Yaml, "YAML: "),
            (
                "a: 1\n---\nb: 1",
                Format::Yaml,
                "3:1: YAML: write one document alone",
            ),
            ("? [a]\n: 1", Format::Yaml, "1:3: YAML: a key is a text"),
        ] {
            let fault = fault(text, format);
            assert!(fault.contains(told), "{text:?}: {fault}");
        }
    }

    #[test]
    fn what_grows_or_nests_without_end_is_refused() {
        let deep: String = (0..50).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(fault(&deep, Format::Yaml).contains("values within values"));
        for format in [Format::Toml, Format::Yaml] {
            assert!(parse(&"[".repeat(100_000), format).is_err());
        }
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..10 {
            let ten = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs += &format!("a{n}: &a{n} [{ten}]\n");
        }
        assert!(fault(&laughs, Format::Yaml).contains("more than 100000 values"));
    }

    #[test]
    fn places_of_values_are_found_by_their_path() {
        let text = "server:\n  host: a\nbackends:\n  web:\n    - id: a\n    - {id: b, port: 1}\n";
        let node = parse(text, Format::Yaml).unwrap();
        for (path, place) in [
            ("server.host", (2, 3)),
            ("backends.web[1].port", (6, 15)),
            ("backends.web[1].weight", (6, 7)),
            ("server.port", (1, 1)),
        ] {
            let (line, column) = place;
            assert_eq!(node.place(path), Some(Place { line, column }), "{path}");
        }
        assert_eq!(node.place("timeouts"), None);
        let toml = parse("a = 1\n[b]\n  c = [1, 2]\n", Format::Toml).unwrap();
        assert_eq!(
            toml.place("b.c[1]"),
            Some(Place {
                line: 3,
                column: 11
            })
        );
    }

    #[test]
    fn merged_keys_count_less_than_own_ones() {
        let text = "base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3\n";
        let node = parse(text, Format::Yaml).unwrap();
        let Content::Map(entries) = node.content else {
            panic!("a map")
        };
        let Content::Map(own) = &entries[1].value.content else {
            panic!("a map")
        };
        let keys: Vec<_> = own.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["b", "a"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9:\\[\\]{}&*<>=\", \n|-]{0,80}") {
            for format in [Format::Toml, Format::Yaml] {
                if let Err(fault) = parse(&text, format) {
                    prop_assert!(fault.to_string().contains(": "));
                }
            }
        }
    }
}
