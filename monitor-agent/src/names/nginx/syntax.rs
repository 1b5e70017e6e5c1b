//! nginx's syntax: directives of words, with blocks.
//!
//! Architecture invariant: pure; included files are asked for.

use std::iter::Peekable;
use std::str::Chars;

/// How deeply blocks may stand in each other; nginx's own do not reach ten.
const DEPTH_MAX: usize = 32;

/// One directive; `server {…}` has a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What follows its name.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    pub(super) fn argument(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

/// Reads directives; the error tells the line.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, String> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        line: 1,
    };
    // The blocks that are open, each with the words before it.
    let mut open: Vec<(Vec<String>, Vec<Directive>)> = Vec::new();
    let mut directives = Vec::new();
    let mut words = Vec::new();
    while let Some(token) = lexer.next() {
        let line = lexer.line;
        match token {
            Token::Word(word) => words.push(word),
            Token::End => {
                let words = std::mem::take(&mut words);
                if !words.is_empty() {
                    directives.push(Directive { words, block: None });
                }
            }
            Token::Open if is_code(&words) => {
                lexer.skip_code();
                words.clear();
            }
            Token::Open => {
                if open.len() == DEPTH_MAX {
                    return Err(format!("line {line}: more than {DEPTH_MAX} blocks deep"));
                }
                let before = std::mem::take(&mut directives);
                open.push((std::mem::take(&mut words), before));
            }
            Token::Close => {
                let Some((words_before, before)) = open.pop() else {
                    return Err(format!("line {line}: a closing brace without an open one"));
                };
                // What stands without its semicolon is given up.
                words.clear();
                let block = Some(std::mem::replace(&mut directives, before));
                let words = words_before;
                directives.push(Directive { words, block });
            }
        }
    }
    match open.pop() {
        Some((words, _)) => Err(format!("the block of {} is not closed", words.join(" "))),
        None => Ok(directives),
    }
}

/// Lua in braces is no nginx syntax.
fn is_code(words: &[String]) -> bool {
    words.iter().any(|w| w.ends_with("_by_lua_block"))
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.chars.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            match self.bump()? {
                c if c.is_ascii_whitespace() => {}
                '#' => while self.bump().is_some_and(|c| c != '\n') {},
                ';' => return Some(Token::End),
                '{' => return Some(Token::Open),
                '}' => return Some(Token::Close),
                quote @ ('"' | '\'') => return Some(Token::Word(self.quoted(quote))),
                first => return Some(Token::Word(self.word(first))),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> String {
        let mut word = String::new();
        while let Some(c) = self.bump() {
            match c {
                '\\' => word.extend(self.bump()),
                c if c == quote => break,
                c => word.push(c),
            }
        }
        word
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::new();
        let mut c = Some(first);
        while let Some(now) = c {
            word.push(now);
            match (now, self.chars.peek()) {
                ('\\', Some(_)) => word.extend(self.bump()),
                // A variable's braces are no block.
                ('$', Some('{')) => {
                    while let Some(c) = self.bump() {
                        word.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                _ => {}
            }
            match self.chars.peek() {
                Some(';' | '{') => break,
                Some(next) if next.is_ascii_whitespace() => break,
                _ => c = self.bump(),
            }
        }
        word
    }

    /// To the brace that closes the one before; strings and comments of Lua may
    /// hold others.
    fn skip_code(&mut self) {
        let mut depth = 1usize;
        while depth > 0 {
            match self.bump() {
                None => return,
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                Some(quote @ ('"' | '\'')) => drop(self.quoted(quote)),
                Some('-') if self.chars.peek() == Some(&'-') => {
                    while self.bump().is_some_and(|c| c != '\n') {}
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let all = parse(text).unwrap();
        all.into_iter().map(|d| d.words).collect()
    }

    #[test]
    fn words_are_told_apart_as_nginx_does() {
        let text = r#"a b;# c;
            log 'x; {y}' "say \"hi\"";set $a ${b}c;"#;
        let expected: [&[&str]; 3] = [
            &["a", "b"],
            &["log", "x; {y}", "say \"hi\""],
            &["set", "$a", "${b}c"],
        ];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn blocks_are_closed_and_lua_is_passed_over() {
        let text = "a { b { c; } content_by_lua_block { if x { '}' } -- }\n } d; }";
        let all = parse(text).unwrap();
        let block = all[0].block.as_ref().unwrap();
        let names: Vec<_> = block.iter().map(Directive::name).collect();
        assert_eq!(names, ["b", "d"]);
        assert!(parse("a {").unwrap_err().contains("not closed"));
        assert!(parse("\n}").unwrap_err().contains("line 2"));
        assert!(parse(&"a{".repeat(40)).unwrap_err().contains("32"));
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([{};#'\"\\\\$\n ]|a|_by_lua_block|é){0,60}") {
            if let Ok(all) = parse(&text) {
                prop_assert!(all.len() <= text.len());
            }
        }
    }
}
