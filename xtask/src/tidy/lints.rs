//! Every crate takes the workspace's lints.

use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files
        .iter()
        // The root has no crate, and what is its own workspace, as the kernel
        // programs and the fuzz targets are, cannot take another's lints.
        .filter(|(name, text)| name.ends_with("/Cargo.toml") && !text.contains("\n[workspace]"))
        .filter(|(_, text)| !text.contains("[lints]\nworkspace = true"))
        .map(|(name, _)| Finding::new(name, "needs `[lints]` with `workspace = true`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_the_lints_is_found() {
        let tree = Tree::of_files(&[
            ("Cargo.toml", "[workspace]\n"),
            (
                "proxy/Cargo.toml",
                "[package]\n\n[lints]\nworkspace = true\n",
            ),
            ("cli/Cargo.toml", "[package]\n"),
            ("monitor-ebpf/Cargo.toml", "[package]\n\n[workspace]\n"),
        ]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "cli/Cargo.toml");
    }
}
