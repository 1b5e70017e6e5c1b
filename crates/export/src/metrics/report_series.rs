//! The series of one host in a few bytes each.
//!
//! The text format wants a family's series together, of all hosts: to write them in
//! that order from the reports, each would be decoded once a family, or all be kept
//! decoded.  So a report is gone through once, and what is kept of it is what the
//! text is made of: labels as they are written, and numbers.

use std::collections::HashMap;

use budget::Held;
use prost::encoding::{decode_varint, encode_varint};

use super::{
    HostSample,
    families::{self, Family},
    text::{Labels, Sink, Value, label, number},
};

/// What follows a family's name; a histogram has three series.
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];
/// Set in a sample's first byte where its value is no integer.
const FLOAT: u8 = 1 << 7;

/// All series of one report.
#[derive(Debug)]
pub struct ReportSeries {
    /// As they are written, without braces.
    labels: Vec<Box<str>>,
    /// One more label of a series, such as `le="1"`; the first is none.
    more: Vec<Box<str>>,
    /// Of each family in their order: the samples.
    families: Vec<Box<[u8]>>,
    /// Its room in the budget.
    _held: Option<Held>,
}

impl ReportSeries {
    /// The same, which hold this from here on.
    pub fn in_room(self, held: Held) -> Self {
        Self {
            _held: Some(held),
            ..self
        }
    }

    pub fn of(sample: &HostSample) -> Self {
        let mut recorder = Recorder::default();
        recorder.more.push("".into());
        let families = families::all().map(|family| {
            recorder.family = family.name;
            family.write(&mut recorder, sample);
            std::mem::take(&mut recorder.samples).into()
        });
        let families = families.collect();
        Self {
            labels: recorder.labels,
            more: recorder.more,
            families,
            _held: None,
        }
    }

    /// What they take in memory, or a little less.
    pub fn bytes(&self) -> u64 {
        let texts = self.labels.iter().chain(&self.more);
        let texts: usize = texts.map(|text| text.len() + size_of::<Box<str>>()).sum();
        let families = self.families.iter();
        let families: usize = families.map(|f| f.len() + size_of::<Box<[u8]>>()).sum();
        (texts + families) as u64
    }

    /// Writes the next sample of the nth family; where the one after it begins, or
    /// `None` where there was none.
    pub(super) fn write(
        &self,
        out: &mut String,
        family: &Family,
        nth: usize,
        at: usize,
    ) -> Option<usize> {
        let all = self.families.get(nth)?;
        let (&kind, mut rest) = all.get(at..)?.split_first()?;
        let mut next = || decode_varint(&mut rest).ok();
        let (labels, more, bits) = (next()?, next()?, next()?);
        let labels = self.labels.get(usize::try_from(labels).ok()?)?;
        let more = self.more.get(usize::try_from(more).ok()?)?;
        out.push_str(family.name);
        out.push_str(SUFFIXES.get(usize::from(kind & !FLOAT))?);
        let between = if labels.is_empty() || more.is_empty() {
            ""
        } else {
            ","
        };
        if !labels.is_empty() || !more.is_empty() {
            for part in ["{", labels, between, more, "}"] {
                out.push_str(part);
            }
        }
        number(
            out,
            if kind & FLOAT == 0 {
                Value::Integer(bits)
            } else {
                Value::Float(f64::from_bits(bits.swap_bytes()))
            },
        );
        Some(all.len() - rest.len())
    }
}

#[derive(Default)]
struct Recorder {
    family: &'static str,
    labels: Vec<Box<str>>,
    /// Where the labels of each endpoint are.
    endpoints: HashMap<usize, u64>,
    endpoint: Option<usize>,
    more: Vec<Box<str>>,
    more_at: HashMap<(&'static str, String), u64>,
    samples: Vec<u8>,
}

impl Recorder {
    fn labels(&mut self, labels: &Labels) -> u64 {
        let known = self.endpoint.and_then(|n| self.endpoints.get(&n));
        if let Some(at) = known {
            return *at;
        }
        let mut text = String::new();
        for (name, value) in &labels.0 {
            text.push_str(if text.is_empty() { "" } else { "," });
            label(&mut text, name, value);
        }
        let at = self.labels.len() as u64;
        self.labels.push(text.into());
        if let Some(n) = self.endpoint {
            self.endpoints.insert(n, at);
        }
        at
    }

    fn more(&mut self, name: &'static str, value: &str) -> u64 {
        let key = (name, value.to_owned());
        if let Some(at) = self.more_at.get(&key) {
            return *at;
        }
        let mut text = String::new();
        label(&mut text, name, value);
        let at = self.more.len() as u64;
        self.more.push(text.into());
        self.more_at.insert(key, at);
        at
    }
}

impl Sink for Recorder {
    fn about(&mut self, endpoint: Option<usize>) {
        self.endpoint = endpoint;
    }

    fn sample(
        &mut self,
        name: &str,
        labels: &Labels,
        more: Option<(&'static str, &str)>,
        value: Value,
    ) {
        let suffix = name.strip_prefix(self.family).unwrap_or("");
        let kind = SUFFIXES.iter().position(|known| *known == suffix);
        let kind = u8::try_from(kind.unwrap_or(0)).unwrap_or(0);
        let labels = self.labels(labels);
        let more = more.map_or(0, |(name, value)| self.more(name, value));
        let (kind, bits) = match value {
            Value::Integer(value) => (kind, value),
            // The last bytes of most are zeros: turned round they are short.
            Value::Float(value) => (kind | FLOAT, value.to_bits().swap_bytes()),
        };
        self.samples.push(kind);
        for number in [labels, more, bits] {
            encode_varint(number, &mut self.samples);
        }
    }
}
