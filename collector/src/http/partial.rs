//! Answers that may be partial.

use query::Partial;
use serde::Serialize;

/// An answer, and why something may be missing from it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "{T}")]
pub(super) struct PartialAnswer<T> {
    #[serde(flatten)]
    answer: T,
    /// Left out where the answer is whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partial: Vec<String>,
}

impl<T> PartialAnswer<T> {
    pub(super) fn of<V>(partial: Partial<V>, answer: impl FnOnce(V) -> T) -> Self {
        Self {
            answer: answer(partial.value),
            partial: partial.partial,
        }
    }
}
