//! ARCHITECTURE.md says of every direct dependency why it is there.

use std::collections::BTreeSet;

use super::{Finding, Tree};

const FILE: &str = "ARCHITECTURE.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.files.get(FILE) else {
        return vec![Finding::new(FILE, "is missing")];
    };
    let direct: BTreeSet<&str> = tree
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| !dependency.local)
        .map(|dependency| dependency.name.as_str())
        .collect();
    direct
        .into_iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .map(|name| {
            Finding::new(
                FILE,
                format!("say why `{name}` is a direct dependency, with its name in backticks"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_a_word_is_found() {
        let tree = Tree::of_files(&[(FILE, "`serde` for JSON")])
            .with_package("collector", &["serde", "left-pad", "./monitor-proto"]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("`left-pad`"));
    }

    #[test]
    fn the_file_itself_may_not_be_missing() {
        assert_eq!(check(&Tree::default()).len(), 1);
    }
}
