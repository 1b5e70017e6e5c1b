//! The tests that docs/reliability.md names: its tables are the list.

use std::collections::BTreeSet;

/// Where the tables are.
pub(crate) const FILE: &str = "docs/reliability.md";

/// A test that a table names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    /// The test program: a file or directory of a crate's `tests`, or `lib`.
    pub(crate) program: String,
    /// Its name, without the modules that it is in.
    pub(crate) test: String,
}

impl Named {
    /// Whether this source file may have it.
    pub(crate) fn is_in(&self, path: &str, text: &str) -> bool {
        let (file, directory) = (
            format!("/tests/{}.rs", self.program),
            format!("/tests/{}/", self.program),
        );
        let of_program = match self.program.as_str() {
            "lib" => path.contains("/src/"),
            _ => path.ends_with(&file) || path.contains(&directory),
        };
        of_program && text.contains(&self.test)
    }
}

/// Those of all tables' last columns, written as `` `program: test` ``.
///
/// # Errors
/// The row that names none.
pub(crate) fn named(text: &str) -> Result<BTreeSet<Named>, String> {
    let mut all = BTreeSet::new();
    let rows = text.lines().filter(|line| line.starts_with('|'));
    for row in rows.filter(|row| !row.starts_with("|---") && !row.ends_with("| test |")) {
        let last = row.trim_end_matches('|').rsplit('|').next();
        let quoted = last.unwrap_or_default().split('`').skip(1).step_by(2);
        let before = all.len();
        for cell in quoted {
            let (program, test) = cell.split_once(": ").ok_or_else(|| row.to_owned())?;
            all.insert(Named {
                program: program.to_owned(),
                test: test.to_owned(),
            });
        }
        if all.len() == before {
            return Err(row.to_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_its_tests() {
        let text = "# x\n| fault | test |\n|---|---|\n| `a` | `lib: b` · `it: c` |\n";
        let named = named(text).unwrap();
        let found: Vec<_> = named.iter().map(|n| (&*n.program, &*n.test)).collect();
        assert_eq!(found, [("it", "c"), ("lib", "b")]);
        for row in ["| a | b |", "| a | `b` |"] {
            assert_eq!(super::named(row).unwrap_err(), row);
        }
    }

    #[test]
    fn a_test_is_in_its_own_program() {
        let it = Named {
            program: "it".into(),
            test: "c".into(),
        };
        assert!(it.is_in("proxy/tests/it/x.rs", "fn c() {"));
        assert!(it.is_in("proxy/tests/it.rs", "fn c() {"));
        assert!(!it.is_in("proxy/tests/other/x.rs", "fn c() {"));
        assert!(!it.is_in("proxy/tests/it/x.rs", "fn d() {"));
    }
}
