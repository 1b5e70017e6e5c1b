//! The paths that a file's `use` statements name, nested braces unfolded.

/// Every path that is imported, with the line its last name stands on.
pub(super) fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(first) = use_statement(line) else {
            continue;
        };
        let mut statement = Unfolding::new(&mut found);
        let (mut index, mut part) = (index, first);
        while !statement.take(index + 1, part) {
            match lines.next() {
                Some(next) => (index, part) = next,
                None => break,
            }
        }
    }
    found
}

/// What stands behind `use`, whatever its visibility is.
fn use_statement(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => line,
    };
    line.strip_prefix("use ")
}

/// One statement on its way to its semicolon.
struct Unfolding<'a> {
    found: &'a mut Vec<(usize, String)>,
    /// What stands before each open brace.
    prefixes: Vec<String>,
    current: String,
}

impl<'a> Unfolding<'a> {
    fn new(found: &'a mut Vec<(usize, String)>) -> Self {
        Self {
            found,
            prefixes: Vec::new(),
            current: String::new(),
        }
    }

    /// Takes a line's part; true at the statement's end.
    fn take(&mut self, line: usize, part: &str) -> bool {
        let code = part.split("//").next().unwrap_or_default();
        for character in code.chars() {
            match character {
                '{' => self.prefixes.push(std::mem::take(&mut self.current)),
                ',' => self.end_of_path(line),
                '}' => {
                    self.end_of_path(line);
                    self.prefixes.pop();
                }
                ';' => {
                    self.end_of_path(line);
                    return true;
                }
                _ => self.current.push(character),
            }
        }
        false
    }

    fn end_of_path(&mut self, line: usize) {
        let current = std::mem::take(&mut self.current);
        let name = current.split(" as ").next().unwrap_or_default().trim();
        if !name.is_empty() {
            let prefix: String = self.prefixes.iter().map(|prefix| prefix.trim()).collect();
            let path = format!("{prefix}{name}");
            let path = path.trim_end_matches("::self").trim_start_matches("::");
            self.found.push((line, path.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        imports(text).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn plain_nested_and_renamed_imports_are_unfolded() {
        assert_eq!(
            paths("use tokio::net::TcpStream;"),
            ["tokio::net::TcpStream"]
        );
        assert_eq!(
            paths("pub(crate) use std::{fs::{self, File}, io::Read as _, net};"),
            ["std::fs", "std::fs::File", "std::io::Read", "std::net"]
        );
    }

    #[test]
    fn a_statement_over_several_lines_names_each_line() {
        let text = "//! Docs.\nuse std::{\n    fs, // why\n    thread,\n};\nfn main() {}\n";
        assert_eq!(
            imports(text),
            [(3, "std::fs".to_owned()), (4, "std::thread".to_owned())]
        );
    }

    #[test]
    fn words_that_only_look_like_it_are_not_imports() {
        assert_eq!(
            paths("// use tokio;\nlet reuse = 1;\nusername();\n"),
            <[&str; 0]>::default()
        );
    }
}
