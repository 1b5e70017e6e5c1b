//! What an engine answers.  Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// More series than any answer of ours is made from.
const SERIES_MAX: usize = 200_000;
/// How much of an engine's own words is repeated.
const WORDS_MAX: usize = 300;

/// One series: its labels, and values by unix seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) values: Vec<(f64, f64)>,
}

impl Series {
    /// A label's value; one that is not there is empty.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The newest value.
    pub(super) fn last(&self) -> Option<f64> {
        self.values.last().map(|(_, value)| *value)
    }
}

/// Series, and why some may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) series: Vec<Series>,
    pub(super) partial: Vec<String>,
}

/// The answer is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("it rejected the query: {0}")]
    Refused(String),
    #[error("its response is not of the Prometheus API: {0}")]
    NotOfTheApi(String),
    #[error("its response has more than {SERIES_MAX} series: select a host or an endpoint")]
    TooMany,
}

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    data: Data,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default)]
    result: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Reads an answer; values that are no finite numbers are left out.
pub(super) fn parse(body: &[u8]) -> Result<Answer, BadAnswer> {
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| BadAnswer::NotOfTheApi(words(&error.to_string())))?;
    if envelope.status != "success" {
        return Err(BadAnswer::Refused(words(&envelope.error)));
    }
    if envelope.data.result.len() > SERIES_MAX {
        return Err(BadAnswer::TooMany);
    }
    let mut partial: Vec<String> = envelope
        .warnings
        .iter()
        .chain(&envelope.infos)
        .take(10)
        .map(|text| words(text))
        .collect();
    if envelope.is_partial {
        partial.push("some storage nodes of the query backend did not answer".to_owned());
    }
    Ok(Answer {
        series: envelope.data.result.into_iter().map(series).collect(),
        partial,
    })
}

fn series(item: Item) -> Series {
    let number = |(at, text): (f64, String)| {
        let value: f64 = text.parse().ok()?;
        (at.is_finite() && value.is_finite()).then_some((at, value))
    };
    let values = item.value.into_iter().chain(item.values);
    let mut values: Vec<_> = values.filter_map(number).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series {
        labels: item.metric,
        values,
    }
}

fn words(text: &str) -> String {
    text.chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_matrices_are_read_and_what_is_no_number_is_left_out() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"host":"a"},"values":[[20,"2"],[10.5,"1e3"],[30,"NaN"],[40,"+Inf"],[50,"x"]]},
            {"metric":{},"value":[7,"-1"]}]}}"#;
        let answer = parse(body).unwrap();
        assert_eq!(answer.series[0].values, [(10.5, 1000.0), (20.0, 2.0)]);
        assert_eq!(answer.series[0].label("host"), "a");
        assert_eq!(
            (answer.series[1].last(), answer.series[1].label("host")),
            (Some(-1.0), "")
        );
        assert!(answer.partial.is_empty());
    }

    #[test]
    fn a_partial_answer_says_so() {
        let body =
            br#"{"status":"success","isPartial":true,"data":{"result":[]},"warnings":["w"]}"#;
        let answer = parse(body).unwrap();
        assert_eq!(answer.partial.len(), 2);
        assert_eq!(answer.partial[0], "w");
    }

    #[test]
    fn hostile_answers_are_errors() {
        let refused = br#"{"status":"error","errorType":"execution","error":"too many samples"}"#;
        assert_eq!(
            parse(refused),
            Err(BadAnswer::Refused("too many samples".into()))
        );
        for body in [
            &b""[..],
            b"<html>",
            b"[]",
            b"{}",
            br#"{"status":"success","data":{"result":[{"metric":{"a":1}}]}}"#,
            br#"{"status":"success","data":{"result":[{"metric":{},"values":[["x","1"]]}]}}"#,
        ] {
            assert!(
                matches!(parse(body), Err(BadAnswer::NotOfTheApi(_))),
                "{body:?}"
            );
        }
        let item = r#"{"metric":{}}"#;
        let many = vec![item; SERIES_MAX + 1].join(",");
        let body = format!(r#"{{"status":"success","data":{{"result":[{many}]}}}}"#);
        assert_eq!(parse(body.as_bytes()), Err(BadAnswer::TooMany));
    }
}
