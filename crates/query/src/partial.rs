//! Answers that may lack something.

/// A value, and why something may be missing from it; nothing where it is
/// whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial<T> {
    pub value: T,
    pub partial: Vec<String>,
}

impl<T> Partial<T> {
    /// Nothing is missing.
    pub fn whole(value: T) -> Self {
        Self {
            value,
            partial: Vec::new(),
        }
    }
}
