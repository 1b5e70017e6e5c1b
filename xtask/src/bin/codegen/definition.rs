//! The figures as the .proto files define them.

use protox::prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind as Type,
};

use crate::Outcome;

/// Every figure, and the messages whose fields are the parts of one.
#[derive(Debug)]
pub(crate) struct Definition {
    figures: Vec<Figure>,
}

/// A field that is a figure.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The message that it is a field of.
    pub(crate) message: String,
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// The first paragraph of its comment.
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) unit: String,
    pub(crate) prometheus: Option<String>,
    pub(crate) opentelemetry: Option<String>,
    pub(crate) opentelemetry_upstream: Option<String>,
    /// Key and value.
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) labels: Vec<String>,
    pub(crate) json: String,
    pub(crate) factor: f64,
    pub(crate) seen: Seen,
    pub(crate) rollup: Rollup,
    pub(crate) title: String,
    pub(crate) source: String,
    /// The kernel programs count its parts.
    pub(crate) is_sum: bool,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Integer,
    /// Absent where it was not measured.
    Optional,
    /// Messages, or one; its name, and its fields with their help.
    Message(String, Vec<(String, String)>),
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Tcp,
    Http,
    Http1,
}

/// Its tag in roll-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollup {
    /// Among those that there were at first.
    First(u32),
    /// Among those that came later.
    Later(u32),
}

impl Definition {
    pub(crate) fn read(pool: &DescriptorPool) -> Outcome<Self> {
        let option = pool
            .get_extension_by_name("speedmimi.v1.figure")
            .ok_or("figure.proto defines no option `figure`")?;
        let mut figures = Vec::new();
        for message in pool.all_messages() {
            for field in message.fields() {
                let options = field.options();
                if !options.has_extension(&option) {
                    continue;
                }
                let given = options.get_extension(&option);
                let given = given.as_message().ok_or("figure is a message")?;
                figures.push(Figure::new(&field, given)?);
            }
        }
        Ok(Self { figures })
    }

    /// Those of a message, in the order of its fields.
    pub(crate) fn of<'a>(&'a self, message: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |f| f.message == message)
    }

    /// The figure of a field.
    pub(crate) fn get(&self, message: &str, name: &str) -> Outcome<&Figure> {
        let mut all = self.figures.iter();
        let found = all.find(|figure| figure.message == message && figure.name == name);
        found.ok_or_else(|| format!("{message}.{name} has no option `figure`").into())
    }
}

impl Figure {
    fn new(field: &FieldDescriptor, given: &DynamicMessage) -> Outcome<Self> {
        let name = field.name().to_owned();
        let text = |key: &str| {
            let value = given.get_field_by_name(key);
            let text = value.as_ref().and_then(|value| value.as_str());
            text.unwrap_or_default().to_owned()
        };
        let number = |key: &str| {
            let value = given.get_field_by_name(key);
            value.and_then(|value| value.as_u32()).unwrap_or_default()
        };
        let number_of = |key: &str| {
            let value = given.get_field_by_name(key);
            value.and_then(|value| value.as_enum_number())
        };
        let list = |key: &str| -> Vec<String> {
            let value = given.get_field_by_name(key);
            let values = value.as_ref().and_then(|value| value.as_list());
            let texts = values.unwrap_or_default().iter();
            texts
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let named = |key: &str, default: String| match text(key).as_str() {
            "-" => None,
            "" => Some(default),
            name => Some(name.to_owned()),
        };
        let given_or = |key: &str, default: String| match text(key) {
            given if given.is_empty() => default,
            given => given,
        };
        let kind = match number_of("kind") {
            Some(1) => Kind::Gauge,
            Some(2) => Kind::Histogram,
            _ => Kind::Counter,
        };
        let seen = match number_of("seen") {
            Some(1) => Seen::Http,
            Some(2) => Seen::Http1,
            _ => Seen::Tcp,
        };
        let message = field.parent_message().name().to_owned();
        let first_tag_of_message = if seen == Seen::Tcp { 100 } else { 200 };
        let rollup = match (number("first_rollup_tag"), number("rollup_tag")) {
            (0, 0) => Rollup::Later(first_tag_of_message + field.number()),
            (0, tag) => Rollup::Later(tag),
            (tag, _) => Rollup::First(tag),
        };
        let factor = given
            .get_field_by_name("factor")
            .and_then(|value| value.as_f64())
            .filter(|&factor| factor != 0.0);
        let end = if kind == Kind::Counter { "_total" } else { "" };
        let attribute = |pair: String| {
            let (key, value) = pair.split_once('=').ok_or("attributes are key=value")?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Self {
            shape: shape(field),
            help: help(field)?,
            kind,
            unit: text("unit"),
            prometheus: named("prometheus", format!("speedmimi_{name}{end}")),
            opentelemetry: named("opentelemetry", format!("speedmimi.{name}")),
            opentelemetry_upstream: Some(text("opentelemetry_upstream"))
                .filter(|name| !name.is_empty()),
            attributes: list("attributes")
                .into_iter()
                .map(attribute)
                .collect::<Outcome<_>>()?,
            labels: list("labels"),
            json: given_or("json", name.clone()),
            factor: factor.unwrap_or(1.0),
            seen,
            rollup,
            title: given_or("title", title(&name)),
            source: text("source"),
            is_sum: given
                .get_field_by_name("is_sum")
                .and_then(|value| value.as_bool())
                .unwrap_or_default(),
            message,
            name,
        })
    }

    /// What its values are called in tables and documents.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    /// Whether reports have it in percent and exports as a ratio.
    pub(crate) fn is_percent(&self) -> bool {
        (self.factor * 100.0 - 1.0).abs() < 1e-9
    }

    /// Whether it is a counter of an endpoint that no label splits.
    pub(crate) fn is_plain(&self) -> bool {
        let is_number = matches!(self.shape, Shape::Integer | Shape::Optional);
        is_number && self.kind == Kind::Counter
    }
}

fn shape(field: &FieldDescriptor) -> Shape {
    if field.is_map() {
        return Shape::Map;
    }
    match field.kind() {
        Type::Message(of) => {
            let parts = of.fields();
            let part =
                |part: FieldDescriptor| (part.name().to_owned(), help(&part).unwrap_or_default());
            Shape::Message(of.name().to_owned(), parts.map(part).collect())
        }
        _ if field.supports_presence() && field.cardinality() == Cardinality::Optional => {
            Shape::Optional
        }
        _ => Shape::Integer,
    }
}

/// "Bytes received" of `bytes_received`.
fn title(name: &str) -> String {
    let words = name.replace('_', " ");
    let (first, rest) = words.split_at(words.len().min(1));
    first.to_uppercase() + rest
}

/// The first paragraph of a field's comment.
fn help(field: &FieldDescriptor) -> Outcome<String> {
    let file = field.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut places = info.into_iter().flat_map(|info| &info.location);
    let comment = places
        .find(|place| place.path == field.path())
        .map_or("", |place| place.leading_comments());
    let lines = comment.lines().map(str::trim);
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(format!("{} needs a comment: it is its help", field.full_name()).into());
    }
    Ok(lines.join(" "))
}
