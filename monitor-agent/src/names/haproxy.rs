//! `HAProxy`'s configuration: `frontend`, `listen` and `backend` sections with
//! their `bind`, `server` and `server-template` lines.
//!
//! Architecture invariant: pure.  What it does not know it passes over.

use super::{
    Name,
    found::{self, Family, Found, Place, ports},
};

/// The keywords that begin a section at the start of a line.
pub(super) const SECTIONS: [&str; 20] = [
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
    "acme",
    "dynamic-update",
];

const ITS_VARIABLES: &str =
    "addresses with environment variables are known to HAProxy alone: they have no names";

/// Reads the names of `bind` lines and servers.
pub(super) fn parse(text: &str) -> Found {
    let mut found = Found::default();
    let mut section = (String::new(), String::new());
    for line in text.lines() {
        let words = words(line);
        let word = |i: usize| words.get(i).map_or("", String::as_str);
        if word(0).starts_with('.') {
            found.remark("conditional lines (.if) are all taken as if they held");
            continue;
        }
        if SECTIONS.contains(&word(0)) {
            section = (word(0).to_owned(), word(1).to_owned());
            continue;
        }
        let (binds, serves) = match section.0.as_str() {
            "frontend" => (true, false),
            "listen" => (true, true),
            "backend" => (false, true),
            _ => continue,
        };
        match word(0) {
            "bind" if binds => bind(word(1), &words, &section.1, &mut found),
            "server" if serves => server(word(1), word(2), &words, &section.1, &mut found),
            "server-template" if serves => {
                let (prefix, range) = (word(1), word(2));
                let last = range.rsplit('-').next().unwrap_or(range);
                let first = if range.contains('-') {
                    range.split('-').next().unwrap_or("1")
                } else {
                    "1"
                };
                // Which of them an address becomes is HAProxy's choice.
                let all = format!("{prefix}{first}-{last}");
                server(&all, word(3), &words, &section.1, &mut found);
            }
            _ => {}
        }
    }
    found
}

fn bind(addresses: &str, words: &[String], frontend: &str, found: &mut Found) {
    let only_v6 = words.iter().any(|w| w == "v6only");
    let name = Name {
        name: frontend.to_owned(),
        ..Name::default()
    };
    for address in addresses.split(',') {
        if address.contains('$') {
            found.remark(ITS_VARIABLES);
            continue;
        }
        let Some((host, family, port)) = split(address) else {
            continue;
        };
        let Some(ports) = ports(port) else {
            continue;
        };
        let (host, family) = match (host, family) {
            ("" | "*" | "0.0.0.0", Family::Any | Family::V4) => ("0.0.0.0", Family::V4),
            ("::", Family::Any) if !only_v6 => ("*", Family::Any),
            ("" | "*", Family::V6) => ("::", Family::V6),
            other => other,
        };
        found.listen(host, family, ports, &name);
    }
}

fn server(name: &str, address: &str, words: &[String], backend: &str, found: &mut Found) {
    if address.contains('$') {
        found.remark(ITS_VARIABLES);
        return;
    }
    let Some((host, family, port)) = split(address) else {
        return;
    };
    // Without a port, or with a relative one, it is the client's.
    let Some(port) = found::port(port) else {
        found.remark(format!(
            "server {backend}/{name} has no port of its own: it has no name"
        ));
        return;
    };
    if words.iter().any(|w| w == "resolvers") {
        found.remark(format!(
            "HAProxy looks {host} up again and again: the addresses of now are named"
        ));
    }
    let name = Name {
        name: name.to_owned(),
        upstream: backend.to_owned(),
        backend: name.to_owned(),
    };
    found.peer(Place::new(host, family, port), name);
}

/// Host, family and port of an address; `None` where it is no address of TCP.
fn split(address: &str) -> Option<(&str, Family, &str)> {
    let (address, family) = match address.split_once('@') {
        None => (address, Family::Any),
        Some(("ipv4" | "tcp4" | "mptcp4", rest)) => (rest, Family::V4),
        Some(("ipv6" | "tcp6" | "mptcp6", rest)) => (rest, Family::V6),
        Some(("tcp" | "mptcp", rest)) => (rest, Family::Any),
        Some(_) => return None,
    };
    if address.is_empty() || address.starts_with('/') {
        return None;
    }
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return Some((host, family, rest.strip_prefix(':').unwrap_or("")));
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    Some((host, family, port))
}

/// The words of a line, without its comment: quotes and backslashes as in the
/// shell.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let escaped = chars.next();
                word.get_or_insert_default().extend(escaped);
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
