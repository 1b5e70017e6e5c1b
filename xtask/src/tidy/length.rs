//! No file grows until nobody reads it.

use super::{Finding, Tree};

/// Lines of a Rust file at the most.
const LINES_MAX: usize = 800;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter_map(|(name, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| {
                Finding::new(
                    name,
                    format!("has {lines} lines, more than {LINES_MAX}: split it by its nouns"),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_after_the_last_allowed_one_is_found() {
        let longest = "x\n".repeat(LINES_MAX);
        let too_long = "x\n".repeat(LINES_MAX + 1);
        let tree = Tree::of_files(&[
            ("proxy/src/a.rs", &longest),
            ("proxy/src/b.rs", &too_long),
            ("monitor-proto/src/generated/c.rs", &too_long),
            ("README.md", &too_long),
        ]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "proxy/src/b.rs");
    }
}
