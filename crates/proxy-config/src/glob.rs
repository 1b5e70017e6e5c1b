//! Shell patterns in nginx's `include`: `*`, `?` and `[…]`, within one part of a
//! path, as glob(7) has them.

/// Whether a pattern has to be looked for.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a file's name fits.  Takes at most the product of both lengths.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Hidden files must be asked for.
    if name.first() == Some(&'.') && pattern.first() != Some(&'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and where what it covers ended.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&pattern[p..], name[n]),
            Some(c) => (*c == name[n]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                n += 1;
            }
            (None, Some((at, covered))) => {
                star = Some((at, covered + 1));
                p = at + 1;
                n = covered + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The length of the class that a pattern begins with, where it holds `c`; a
/// bracket that is never closed stands for itself.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    // A bracket in the first place belongs to the class.
    let end = pattern.iter().skip(first + 1).position(|&c| c == ']');
    let Some(end) = end.map(|i| i + first + 1) else {
        return (c == '[').then_some(1);
    };
    let mut holds = false;
    let mut i = first;
    while i < end {
        if pattern.get(i + 1) == Some(&'-') && i + 2 < end {
            holds |= (pattern[i]..=pattern[i + 2]).contains(&c);
            i += 3;
        } else {
            holds |= pattern[i] == c;
            i += 1;
        }
    }
    (holds != negated).then_some(end + 1)
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
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]!^-]{0,40}", name in "[ab\\[\\]-]{0,40}") {
            let fitted = fits(&pattern, &name);
            if !is_pattern(&pattern) {
                prop_assert_eq!(fitted, pattern == name);
            }
        }
    }
}
