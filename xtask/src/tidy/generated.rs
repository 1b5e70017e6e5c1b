//! Generated code is committed, so that a build needs no generator.

use super::{Finding, Tree};

const FILE: &str = "monitor-proto/src/generated/speedmimi.v1.rs";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    match tree.files.get(FILE) {
        Some(text) if text.contains("@generated") => Vec::new(),
        Some(_) => vec![Finding::new(
            FILE,
            "is not what the generator wrote; run `cargo xtask codegen`",
        )],
        None => vec![Finding::new(FILE, "is missing; run `cargo xtask codegen`")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_must_be_there_and_come_from_the_generator() {
        assert_eq!(check(&Tree::default()).len(), 1);
        assert_eq!(check(&Tree::of_files(&[(FILE, "pub struct A;")])).len(), 1);
        assert_eq!(check(&Tree::of_files(&[(FILE, "// @generated\n")])), []);
    }
}
