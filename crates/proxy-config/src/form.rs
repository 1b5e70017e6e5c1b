//! Whose configuration a text is.

use crate::{haproxy, nginx};

/// The programs whose configurations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Yaml,
    Nginx,
    HaProxy,
}

impl Form {
    /// Judges by the grammar of the first statement: `HAProxy`'s is a line that
    /// begins with a section's keyword, YAML's a key with a colon, and nginx's ends
    /// with `;` or opens a block.
    pub(crate) fn of(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|l| !l.is_empty() && !l.starts_with('#'));
        let first = first.unwrap_or_default();
        if is_key(first) {
            Self::Yaml
        } else if haproxy::begins(first) {
            Self::HaProxy
        } else if nginx::begins(text) {
            Self::Nginx
        } else {
            Self::Yaml
        }
    }
}

/// A plain or quoted word and a colon that ends it, a list's item, or what only
/// YAML begins with.
fn is_key(line: &str) -> bool {
    if line == "-" || line.starts_with(['%', '{']) || line.starts_with("- ") {
        return true;
    }
    if line.starts_with("---") {
        return true;
    }
    let quote = line.chars().next().filter(|c| ['"', '\''].contains(c));
    let after = match quote {
        Some(quote) => line[1..].split_once(quote).map_or("", |(_, after)| after),
        None => line.trim_start_matches(|c: char| c.is_alphanumeric() || "_-./".contains(c)),
    };
    let value = after.trim_start().strip_prefix(':');
    value.is_some_and(|value| value.is_empty() || value.starts_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_configuration_it_is_tells_the_first_statement() {
        for (text, form) in [
            ("server: { host: 0.0.0.0 }\nbackends: {}", Form::Yaml),
            ("{\"backends\": {}}", Form::Yaml),
            ("---\nbackends: {}", Form::Yaml),
            ("\"server\" : {}", Form::Yaml),
            ("global: {} # not HAProxy's", Form::Yaml),
            ("global:\n  x: 1", Form::Yaml),
            ("listen: 8080", Form::Yaml),
            ("", Form::Yaml),
            ("words without any end", Form::Yaml),
            ("# a comment: of nginx\ndaemon off; pid x;", Form::Nginx),
            ("upstream a { server 127.0.0.1:1; }", Form::Nginx),
            ("server { listen 1; }", Form::Nginx),
            ("user www-data;", Form::Nginx),
            ("user\n  www-data\n;", Form::Nginx),
            ("events # of workers: {\n{ }", Form::Nginx),
            ("listen 80; # a fragment", Form::Nginx),
            ("listen 80 default_server ; server_name a;", Form::Nginx),
            ("map $a $b { default: 1; }", Form::Nginx),
            ("\n# x\n\nlisten a\n bind :1\n", Form::HaProxy),
            ("global # settings:\n maxconn 1;\n", Form::HaProxy),
            ("global # settings; of {\n maxconn 1\n", Form::HaProxy),
            ("defaults http:\n mode http\n", Form::HaProxy),
            ("\"frontend\" \"a {\"\n bind :1\n", Form::HaProxy),
            ("ring r\n format raw\n", Form::HaProxy),
            (".if streq(a,b)\nglobal\n.endif\n", Form::HaProxy),
        ] {
            assert_eq!(Form::of(text), form, "{text}");
        }
    }
}
