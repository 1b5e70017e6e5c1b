//! Generated code is committed, so that a build needs no generator.

use super::{Finding, Tree};

const FILE: &str = "monitor-proto/src/generated/speedmimi.v1.rs";
/// What the daemons print of their settings.
const SETTINGS: &str = "docs/configuration.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let check = |file| match tree.files.get(file) {
        Some(text) if text.contains("@generated") => None,
        Some(_) => Some("is not what the generator wrote; run `cargo xtask codegen`"),
        None => Some("is missing; run `cargo xtask codegen`"),
    };
    let found = [FILE, SETTINGS].into_iter();
    let found = found.filter_map(|file| Some(Finding::new(file, check(file)?)));
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_must_be_there_and_come_from_the_generator() {
        let printed = (SETTINGS, "<!-- @generated -->");
        assert_eq!(check(&Tree::default()).len(), 2);
        assert_eq!(
            check(&Tree::of_files(&[printed, (FILE, "pub struct A;")])).len(),
            1
        );
        assert_eq!(
            check(&Tree::of_files(&[printed, (FILE, "// @generated\n")])),
            []
        );
    }
}
