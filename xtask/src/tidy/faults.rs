//! The tests that docs/reliability.md names are there.

use super::{Finding, Tree};
use crate::faults::{self, FILE};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.files.get(FILE) else {
        return vec![Finding::new(FILE, "is missing")];
    };
    let named = match faults::named(text) {
        Ok(named) => named,
        Err(row) => return vec![Finding::new(FILE, format!("names no test: {row}"))],
    };
    let is_there = |test: &faults::Named| tree.rust().any(|(path, text)| test.is_in(path, text));
    let missing = named.iter().filter(|test| !is_there(test));
    missing
        .map(|test| {
            let what = format!("there is no test {} of {}", test.test, test.program);
            Finding::new(FILE, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_test_must_be_there() {
        let table = (FILE, "| fault | test |\n|---|---|\n| a | `it: b` |\n");
        let of = |files: &[(&str, &str)]| check(&Tree::of_files(files)).len();
        assert_eq!(of(&[]), 1);
        assert_eq!(of(&[table]), 1);
        assert_eq!(of(&[table, ("proxy/tests/it/x.rs", "fn b() {}")]), 0);
        assert_eq!(of(&[(FILE, "| a | b |")]), 1);
    }
}
