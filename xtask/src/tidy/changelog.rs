//! CHANGELOG.md is there, in Keep-a-Changelog form.

use super::{Finding, Tree};

const FILE: &str = "CHANGELOG.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    match tree.files.get(FILE) {
        None => vec![Finding::new(FILE, "is missing")],
        Some(text) if !text.lines().any(|line| line.starts_with("## [Unreleased]")) => {
            vec![Finding::new(FILE, "needs a section `## [Unreleased]`")]
        }
        Some(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_must_be_there_and_have_a_place_for_the_next_change() {
        assert_eq!(check(&Tree::default()).len(), 1);
        assert_eq!(check(&Tree::of_files(&[(FILE, "# Changelog\n")])).len(), 1);
        let tree = Tree::of_files(&[(FILE, "# Changelog\n\n## [Unreleased]\n")]);
        assert_eq!(check(&tree), []);
    }
}
