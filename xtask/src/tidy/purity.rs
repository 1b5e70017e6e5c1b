//! Pure modules stay pure: no I/O, no runtime, no clock, no kernel in them, so
//! that they are tested without any of these.

use std::collections::BTreeSet;

use super::{Finding, Tree, imports::imports};

/// What a pure module may not name.
const RUNTIMES: &[&str] = &["tokio", "tonic", "aya", "rusqlite", "hyper", "axum"];
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::process::Command",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
];

/// A module, or a file, and why it is pure.
struct Pure {
    prefix: &'static str,
    forbidden: &'static [&'static [&'static str]],
    reason: &'static str,
}

const PURE: &[Pure] = &[
    Pure {
        prefix: "monitor-common/src/",
        forbidden: &[&["tokio", "tonic", "rusqlite", "hyper", "axum"], EFFECTS],
        reason: "it is compiled for the kernel too",
    },
    Pure {
        prefix: "monitor-proto/src/",
        forbidden: &[&["tokio", "aya", "rusqlite", "hyper", "axum"], EFFECTS],
        reason: "it holds types and conversions alone",
    },
    Pure {
        prefix: "monitor-otlp/src/convert.rs",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "a request follows from its report alone, byte for byte",
    },
    Pure {
        prefix: "monitor-otlp/src/metrics.rs",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "a table of names and fields",
    },
    Pure {
        prefix: "crates/window/src/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "deltas, rates and histograms are maths over what was sampled",
    },
    Pure {
        prefix: "monitor-agent/src/pace.rs",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "the clock is given to it, so that its tests need no time",
    },
    Pure {
        prefix: "crates/rollup/src/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "roll-ups are maths over reports",
    },
    Pure {
        prefix: "crates/query/src/series/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "series are maths over reports",
    },
    Pure {
        prefix: "collector/src/validate.rs",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "what comes from outside is judged by its content alone",
    },
    Pure {
        prefix: "proxy/src/balance/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "a choice is made of loads and weights alone",
    },
    Pure {
        prefix: "crates/http1/src/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "the codec takes bytes and gives bytes, so that any driver can use it",
    },
    Pure {
        prefix: "cli/src/time.rs",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "tables are made of values, wherever these come from",
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    check_against(tree, PURE)
}

fn check_against(tree: &Tree, pure: &[Pure]) -> Vec<Finding> {
    let mut found = Vec::new();
    for module in pure {
        if !tree
            .files
            .keys()
            .any(|name| name.starts_with(module.prefix))
        {
            found.push(Finding::new(
                module.prefix,
                "is listed as pure and is not there: mend xtask/src/tidy/purity.rs",
            ));
        }
    }
    for (name, text) in tree.rust() {
        for module in pure.iter().filter(|m| name.starts_with(m.prefix)) {
            let forbidden = module.forbidden.iter().copied().flatten();
            found.extend(mentions(name, text, forbidden, module.reason));
        }
    }
    found
}

fn mentions<'a>(
    file: &str,
    text: &str,
    forbidden: impl IntoIterator<Item = &'a &'a str>,
    reason: &str,
) -> Vec<Finding> {
    let imports = imports(text);
    let mut places = BTreeSet::new();
    for path in forbidden {
        let imported = imports.iter().filter(|(_, import)| is_below(import, path));
        places.extend(imported.map(|(line, _)| (*line, *path)));
        let lines = text.lines().enumerate();
        let named = lines.filter(|(_, line)| names(code_of(line), path));
        places.extend(named.map(|(index, _)| (index + 1, *path)));
    }
    places
        .into_iter()
        .map(|(line, path)| {
            Finding::new(
                format!("{file}:{line}"),
                format!("may not use {path}: {reason}"),
            )
        })
        .collect()
}

/// Whether an import is the path or something in it.
fn is_below(import: &str, path: &str) -> bool {
    import
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether code names something by this path: `tokio::spawn`, `Instant::now()`,
/// not `my_tokio::spawn` and not a variable called `tokio`.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + path.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"');
        let ends = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        starts && ends && (path.contains("::") || after.starts_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[Pure] = &[Pure {
        prefix: "crates/http1/src/",
        forbidden: &[RUNTIMES, EFFECTS],
        reason: "because",
    }];

    fn places(text: &str) -> Vec<String> {
        let tree = Tree::of_files(&[("crates/http1/src/head.rs", text)]);
        let found = check_against(&tree, MODULE);
        found.into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn a_runtime_and_a_clock_are_found_with_their_lines() {
        let text = "use tokio::net::TcpStream;\n\nlet now = Instant::now();\nuse std::{fs, io};\n";
        assert_eq!(
            places(text),
            [
                "crates/http1/src/head.rs:1",
                "crates/http1/src/head.rs:3",
                "crates/http1/src/head.rs:4"
            ]
        );
    }

    #[test]
    fn comments_words_and_longer_names_are_not() {
        assert_eq!(
            places("// tokio::spawn\nuse my_tokio::x;\nlet tokio = 1;\nuse std::fs_like::y;\n"),
            <[&str; 0]>::default()
        );
    }

    #[test]
    fn a_listed_module_that_is_gone_is_found() {
        assert_eq!(check_against(&Tree::default(), MODULE).len(), 1);
    }
}
