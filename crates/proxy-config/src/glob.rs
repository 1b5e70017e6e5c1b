//! Shell patterns in nginx's `include`: `*`, `?` and `[…]`, within one part of a
//! path, as glob(7) has them.

use globset::{GlobBuilder, GlobMatcher};

/// Whether a pattern has to be looked for.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// A pattern for the names of files in one directory.
pub(crate) struct Pattern {
    hidden: bool,
    /// `None` fits nothing, as a range that ends before it begins.
    matcher: Option<GlobMatcher>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        let glob = GlobBuilder::new(&without_alternatives(text))
            .allow_unclosed_class(true)
            .build();
        Self {
            hidden: text.starts_with('.'),
            matcher: glob.ok().map(|glob| glob.compile_matcher()),
        }
    }

    /// Whether a file's name fits; hidden files must be asked for.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let matcher = self.matcher.as_ref();
        (self.hidden || !name.starts_with('.')) && matcher.is_some_and(|m| m.is_match(name))
    }
}

/// Braces are ordinary characters to glob(3).
fn without_alternatives(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        if matches!(c, '{' | '}') && !escaped {
            out.push('\\');
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_fit_as_the_shell_has_them() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("*.conf", "a.conf~", false),
            ("site-?", "site-1", true),
            ("[0-9][!x]*", "1abc", true),
            ("[0-9][!x]*", "1x", false),
            ("[]a]", "]", true),
            ("[a", "[a", true),
            ("*a*b*", "xaxxbx", true),
            ("*a*b", "xaxxbx", false),
            ("[^0-9]", "a", true),
            ("[z-a]", "m", false),
            ("**.conf", "a.conf", true),
            ("{a,b}*", "{a,b}.conf", true),
            ("{a,b}*", "a.conf", false),
            ("\\{*\\*", "{x*", true),
            ("\\**", "a", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).fits(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]!^-]{0,40}", name in "[ab\\[\\]-]{0,40}") {
            let fitted = Pattern::new(&pattern).fits(&name);
            if !is_pattern(&pattern) {
                prop_assert_eq!(fitted, pattern == name);
            }
        }
    }
}
