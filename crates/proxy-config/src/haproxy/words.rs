//! The words of a line: quotes, backslashes and variables as `HAProxy` has them.

use super::environment::Environment;

/// `HAProxy` takes 64 words of a line.
const LINE_WORDS_MAX: usize = 64;

/// The words of a line, without its comment.  A variable whose value is not known
/// stays as it is written.
pub(super) fn words(line: &str, environment: &Environment) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if words.len() == LINE_WORDS_MAX {
            return words;
        }
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let word = word.get_or_insert_default();
                let dollar = quote.is_some() && chars.as_str().starts_with('$');
                match escaped(chars.as_str()).or_else(|| dollar.then_some(('$', 1))) {
                    Some((escaped, length)) => {
                        word.push(escaped);
                        chars = chars.as_str().get(length..).unwrap_or_default().chars();
                    }
                    // Before any other character it stands for itself.
                    None => word.push(c),
                }
            }
            ('$', Some('"')) => {
                let word = word.get_or_insert_default();
                let rest = environment.expand(chars.as_str(), word);
                chars = rest.chars();
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What a backslash before this text stands for, with how much of it.
fn escaped(text: &str) -> Option<(char, usize)> {
    let c = match text.chars().next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'x' => {
            let digits = text.get(1..3)?;
            let code = u8::from_str_radix(digits, 16).ok()?;
            return Some((char::from(code), 3));
        }
        c @ (' ' | '\\' | '#' | '"' | '\'') => c,
        _ => return None,
    };
    Some((c, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        super::words(line, &Environment::default())
    }

    #[test]
    fn words_are_told_apart_as_haproxy_does() {
        let text = r#"a "b c" 'd\n' e\ f\#g "h\"\x41\n" i#j"#;
        assert_eq!(words(text), ["a", "b c", r"d\n", "e f#g", "h\"A\n", "i"]);
        assert_eq!(words(r#"\x4 "" \"#), [r"\x4", "", r"\"]);
        assert_eq!(words(r#"\w+\.test "\d\\""#), [r"\w+\.test", r"\d\"]);
        assert_eq!(words(&"a ".repeat(1_000_000)).len(), LINE_WORDS_MAX);
    }
}
