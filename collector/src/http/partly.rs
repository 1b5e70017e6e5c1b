//! Answers that may be partial.

use serde::Serialize;

use crate::engine::Partly;

/// An answer, and why something may be missing from it.
#[derive(Debug, Serialize)]
pub(super) struct Told<T> {
    #[serde(flatten)]
    answer: T,
    /// Left out where the answer is whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partial: Vec<String>,
}

impl<T> Told<T> {
    pub(super) fn of<V>(partly: Partly<V>, answer: impl FnOnce(V) -> T) -> Self {
        Self {
            answer: answer(partly.value),
            partial: partly.partial,
        }
    }
}
