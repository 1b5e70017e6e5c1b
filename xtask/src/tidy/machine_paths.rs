//! No path of one person's machine is in the tree.

use super::{Finding, Tree};

/// Spelled in two pieces, so that this file does not find itself.
const FORBIDDEN: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, text) in &tree.files {
        for (index, line) in text.lines().enumerate() {
            for path in FORBIDDEN.iter().filter(|path| line.contains(**path)) {
                found.push(Finding::new(
                    format!("{name}:{}", index + 1),
                    format!("names {path}, a path of one machine"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_found_with_its_line() {
        let text = format!("fine\nlet p = \"{}main\";\n", FORBIDDEN[0]);
        let found = check(&Tree::of_files(&[("a.md", &text), ("b.md", "/proc/stat")]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.md:2");
    }
}
