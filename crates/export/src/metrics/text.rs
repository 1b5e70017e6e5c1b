//! Lines of the text format.

use std::{borrow::Cow, fmt::Write as _};

use monitor_proto::figures::Number;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The two lines before a family's series.
pub fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    push(
        out,
        format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
    );
}

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub Vec<(Cow<'static, str>, String)>);

impl Labels {
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: &str) -> Self {
        self.0.push((name.into(), value.to_owned()));
        self
    }

    /// These, then the others.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// A sample's value; integers keep their last digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Integer(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        match value {
            Number::Integer(value) => Self::Integer(value),
            Number::Float(value) => Self::Float(value),
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// Where samples go.
pub trait Sink {
    /// The samples that follow are of the report's nth endpoint, all with the same
    /// labels, or of none.
    fn about(&mut self, _endpoint: Option<usize>) {}

    /// A sample that may have one more label.
    fn sample(
        &mut self,
        name: &str,
        labels: &Labels,
        more: Option<(&'static str, &str)>,
        value: Value,
    );
}

/// As a line of the text format.
impl Sink for String {
    fn sample(
        &mut self,
        name: &str,
        labels: &Labels,
        more: Option<(&'static str, &str)>,
        value: Value,
    ) {
        self.push_str(name);
        let mut before = '{';
        let all = labels
            .0
            .iter()
            .map(|(name, value)| (&**name, value.as_str()));
        for (name, value) in all.chain(more) {
            self.push(before);
            before = ',';
            label(self, name, value);
        }
        if before == ',' {
            self.push('}');
        }
        number(self, value);
    }
}

/// A label as it is written.
pub(super) fn label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The end of a line.
pub(super) fn number(out: &mut String, value: Value) {
    match value {
        Value::Integer(value) => push(out, format_args!(" {value}\n")),
        Value::Float(value) => push(out, format_args!(" {value}\n")),
    }
}

/// One series.
pub fn line(out: &mut dyn Sink, name: &str, labels: &Labels, value: impl Into<Value>) {
    out.sample(name, labels, None, value.into());
}

/// One of the series that one more label tells apart.
pub(super) fn line_of(
    out: &mut dyn Sink,
    name: &str,
    labels: &Labels,
    more: (&'static str, &str),
    value: impl Into<Value>,
) {
    out.sample(name, labels, Some(more), value.into());
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String never fails");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_label_values_stay_values() {
        let mut out = String::new();
        let labels = Labels::default().with("a", "x\"} evil 1\n\\");
        line(&mut out, "m", &labels, 1u64);
        assert_eq!(out, "m{a=\"x\\\"} evil 1\\n\\\\\"} 1\n");
    }
}
