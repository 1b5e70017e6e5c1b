//! nginx's syntax, read as `ngx_conf_read_token` does: directives of words, with
//! blocks.
//!
//! Architecture invariant: pure; included files are asked for.

use std::rc::Rc;

/// How deeply blocks may stand in each other; nginx's own do not reach ten.
const DEPTH_MAX: usize = 32;

/// One directive; `server {…}` has a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    /// Of an `include`, once its files were read: what each of them holds.
    pub(super) included: Vec<Rc<[Directive]>>,
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

/// What a file holds: all of it, or what stands before an error.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) directives: Vec<Directive>,
    /// The line, and what is wrong there.
    pub(super) error: Option<String>,
}

/// Judges a directive by the words of the block around it, its own, and what was
/// kept before it.
type IsWanted = dyn Fn(&[String], &[String], &[Directive]) -> bool;

/// Which directives are kept, and how many words of them: a configuration may hold
/// millions that nobody asks for.
pub(super) struct Keep<'a> {
    pub(super) wanted: &'a IsWanted,
    /// How many words are kept from now on.
    pub(super) words_left: &'a mut usize,
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// A block that is open: its own words, and the directives before it.
type Open = (Vec<String>, Vec<Directive>);

struct Parser<'a, 'k> {
    keep: &'a mut Keep<'k>,
    open: Vec<Open>,
    directives: Vec<Directive>,
    // Words that no statement has ended yet.
    words: Vec<String>,
}

/// Reads directives.
pub(super) fn parse(text: &str, keep: &mut Keep<'_>) -> Parsed {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
    };
    let mut parser = Parser {
        keep,
        open: Vec::new(),
        directives: Vec::new(),
        words: Vec::new(),
    };
    let mut error = None;
    while let (None, Some(token)) = (&error, lexer.next()) {
        let step = match token {
            Token::Open if is_code(&parser.words) => {
                parser.words.clear();
                lexer.skip_code()
            }
            token => parser.take(token),
        };
        error = step
            .err()
            .map(|what| format!("line {}: {what}", lexer.line));
    }
    if let (None, Some((words, _))) = (&error, parser.open.last()) {
        error = Some(format!("the block of {} is not closed", words.join(" ")));
    }
    while parser.close().is_ok() {}
    Parsed {
        directives: parser.directives,
        error,
    }
}

/// Whether text begins with one of nginx's statements.
pub(crate) fn begins(text: &str) -> bool {
    let mut lexer = Lexer {
        text,
        at: 0,
        line: 1,
    };
    let mut words = 0usize;
    loop {
        match lexer.next() {
            Some(Token::Word(_)) => words += 1,
            Some(Token::End | Token::Open) => return words > 0,
            Some(Token::Close) | None => return false,
        }
    }
}

/// Lua in braces is no nginx syntax.
fn is_code(words: &[String]) -> bool {
    words.first().is_some_and(|w| w.ends_with("_by_lua_block"))
}

impl Parser<'_, '_> {
    fn take(&mut self, token: Token) -> Result<(), String> {
        match token {
            Token::Word(word) => self.words.push(word),
            Token::End => {
                let words = std::mem::take(&mut self.words);
                self.add(words, None)?;
            }
            Token::Open if self.open.len() == DEPTH_MAX => {
                return Err(format!("more than {DEPTH_MAX} blocks deep"));
            }
            Token::Open => {
                let words = std::mem::take(&mut self.words);
                let before = std::mem::take(&mut self.directives);
                self.open.push((words, before));
            }
            Token::Close => self.close()?,
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some((words, before)) = self.open.pop() else {
            return Err("a closing brace without an open one".to_owned());
        };
        // What stands without its semicolon is given up.
        self.words.clear();
        let block = std::mem::replace(&mut self.directives, before);
        self.add(words, Some(block))
    }

    fn add(&mut self, words: Vec<String>, block: Option<Vec<Directive>>) -> Result<(), String> {
        let around = self.open.last().map_or(&[][..], |(words, _)| words);
        let holds = block.as_ref().is_some_and(|block| !block.is_empty());
        if !holds && !(self.keep.wanted)(around, &words, &self.directives) {
            return Ok(());
        }
        let left = self.keep.words_left.checked_sub(words.len());
        *self.keep.words_left = left.ok_or("more than can be kept: the rest is not read")?;
        self.directives.push(Directive {
            words,
            block,
            included: Vec::new(),
        });
        Ok(())
    }
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let c = self.peek()?;
        self.at += 1;
        self.line += usize::from(c == b'\n');
        Some(c)
    }

    /// What was read since; delimiters are ASCII, so characters stay whole.
    fn since(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            let start = self.at;
            match self.bump()? {
                c if is_space(c) => {}
                b'#' => self.skip_line(),
                b';' => return Some(Token::End),
                b'{' => return Some(Token::Open),
                b'}' => return Some(Token::Close),
                quote @ (b'"' | b'\'') => {
                    self.skip_quoted(quote);
                    let end = self.at.saturating_sub(1).max(start + 1);
                    return Some(Token::Word(unescaped(self.since(start + 1, end))));
                }
                first => {
                    self.skip_word(first);
                    return Some(Token::Word(unescaped(self.since(start, self.at))));
                }
            }
        }
    }

    fn skip_line(&mut self) {
        while self.bump().is_some_and(|c| c != b'\n') {}
    }

    /// Past the quote that ends this string, or to the end of the text.
    fn skip_quoted(&mut self, quote: u8) {
        while let Some(c) = self.bump() {
            match c {
                b'\\' => drop(self.bump()),
                c if c == quote => return,
                _ => {}
            }
        }
        // As if the quote were there.
        self.at += 1;
    }

    fn skip_word(&mut self, first: u8) {
        let (mut variable, mut escaped) = (first == b'$', first == b'\\');
        while let Some(c) = self.peek() {
            match c {
                _ if escaped => escaped = false,
                // A variable's brace opens no block.
                b'{' if variable => {}
                b';' | b'{' => return,
                c if is_space(c) => return,
                c => (variable, escaped) = (c == b'$', c == b'\\'),
            }
            self.bump();
        }
    }

    /// To the brace that closes the one before; strings and comments of Lua may
    /// hold others.
    fn skip_code(&mut self) -> Result<(), String> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.bump().ok_or("a block of Lua is not closed")? {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                quote @ (b'"' | b'\'') => self.skip_quoted(quote),
                b'[' => drop(self.skip_long_bracket()),
                b'-' if self.peek() == Some(b'-') => {
                    self.bump();
                    let opens = self.peek() == Some(b'[') && self.bump().is_some();
                    if !(opens && self.skip_long_bracket()) {
                        self.skip_line();
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Past a long bracket of Lua, `[[…]]` or `[=[…]=]`, whose first `[` is read
    /// already; false where none begins here.
    fn skip_long_bracket(&mut self) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let level = rest.iter().take_while(|c| **c == b'=').count();
        if rest.get(level) != Some(&b'[') {
            return false;
        }
        let closing = format!("]{}]", "=".repeat(level));
        let after = self.at + level + 1;
        let length = self.since(after, self.text.len()).find(&closing);
        let end = length.map_or(self.text.len(), |length| after + length + closing.len());
        self.line += self.since(after, end).matches('\n').count();
        self.at = end;
        true
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

/// nginx takes the backslash from before quotes, backslashes and three letters, and
/// leaves every other one: regular expressions are full of them.
fn unescaped(raw: &str) -> String {
    let mut word = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match (c, chars.peek()) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('r')) => '\r',
            ('\\', Some('n')) => '\n',
            ('\\', Some(&c @ ('"' | '\'' | '\\'))) => c,
            _ => {
                word.push(c);
                continue;
            }
        };
        chars.next();
        word.push(escaped);
    }
    word
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that is there.
    pub(crate) fn whole(text: &str) -> Parsed {
        let (wanted, mut words_left) = (
            |_: &[_], words: &[String], _: &[_]| !words.is_empty(),
            usize::MAX,
        );
        let keep = &mut Keep {
            wanted: &wanted,
            words_left: &mut words_left,
        };
        parse(text, keep)
    }

    fn words(text: &str) -> Vec<Vec<String>> {
        let parsed = whole(text);
        assert_eq!(parsed.error, None, "{text}");
        parsed.directives.into_iter().map(|d| d.words).collect()
    }

    fn error(text: &str) -> String {
        whole(text).error.unwrap()
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
    fn backslashes_of_regular_expressions_are_kept() {
        let text = r#"location "~^/a\d{2}\.php\"\\$" ; server_name ~^\w+\;\ x\.test$ "\t|";"#;
        let expected: [&[&str]; 2] = [
            &["location", r#"~^/a\d{2}\.php"\$"#],
            &["server_name", r"~^\w+\;\ x\.test$", "\t|"],
        ];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn blocks_are_closed_and_lua_is_passed_over() {
        let text = "a { b { c; } content_by_lua_block { if x { '}' } -- }\n } d; }";
        let all = whole(text).directives;
        let block = all[0].block.as_ref().unwrap();
        let names: Vec<_> = block.iter().map(Directive::name).collect();
        assert_eq!(names, ["b", "d"]);
        assert!(error("a {").contains("not closed"));
        assert!(error("\n}").contains("line 2"));
        assert!(error(&"a{".repeat(40)).contains("32"));
    }

    #[test]
    fn long_brackets_of_lua_hold_anything() {
        for code in [
            "--[[ it's a note: } ]]",
            "ngx.say([[don't { stop]])",
            "x = [=[ ]] \" } ]=] y = [==[ ]=] ' ]==]",
            "--[=[ ]] } \n ' ]=] z = a[b[1]]",
            "-- [[ no long one: }\n a[1] = b[ [[x}]] ]",
            "--[ no long one: }\n",
        ] {
            let text = format!("init_by_lua_block {{ {code} }} after it;");
            assert_eq!(words(&text), [["after", "it"]], "{code}");
        }
        assert!(error("init_by_lua_block { [[ }").contains("Lua"));
    }

    #[test]
    fn what_stands_before_an_error_is_kept() {
        let parsed = whole("a b; http { c d; e {");
        assert!(parsed.error.is_some());
        assert_eq!(parsed.directives[0].words, ["a", "b"]);
        let block = parsed.directives[1].block.as_ref().unwrap();
        assert_eq!(block[0].words, ["c", "d"]);
    }

    #[test]
    fn words_are_bounded_and_only_those_of_interest_are_kept() {
        let wanted = |around: &[String], words: &[String], _: &[Directive]| {
            around.is_empty() && words[0] == "a"
        };
        let mut words_left = 4;
        let keep = &mut Keep {
            wanted: &wanted,
            words_left: &mut words_left,
        };
        let parsed = parse("b 1 2 3; a 1; c { a 2; } a 2; a 3;", keep);
        assert_eq!(parsed.directives.len(), 2);
        assert!(parsed.error.unwrap().contains("line 1"));
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([{};#'\"\\\\$\n\\[\\]= ]|a|--|_by_lua_block|é){0,60}") {
            let parsed = whole(&text);
            prop_assert!(parsed.directives.len() <= text.len());
        }
    }
}
