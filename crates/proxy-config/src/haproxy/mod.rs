//! `HAProxy`'s configuration: the `bind`, `server` and `server-template` lines of
//! its proxies, and what its other sections connect to.
//!
//! Architecture invariant: pure.  What it does not know it passes over.

mod environment;
mod words;

use environment::{Environment, variable};
use words::words;

use crate::{
    Name,
    found::{self, Family, Found, Place, ports},
};

/// The keywords that begin a section at the start of a line.
const SECTIONS: [&str; 20] = [
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

/// What may stand before the first section.
const CONDITIONS: [&str; 6] = [".if", ".notice", ".warning", ".diag", ".alert", ".elif"];

/// Whether a line begins a configuration.
pub(crate) fn begins(line: &str) -> bool {
    let words = words(line, &Environment::default());
    let first = words.first().map_or("", String::as_str);
    // What nginx calls `listen` is a statement of its own.
    let is_nginx = first == "listen" && line.contains(';');
    CONDITIONS.contains(&first) || SECTIONS.contains(&first) && !is_nginx
}

/// Reads the names of what it listens on and connects to.
pub(crate) fn parse(text: &str) -> Found {
    let mut found = Found::default();
    let (mut section, mut name) = (String::new(), String::new());
    let mut environment = Environment::default();
    let mut conditions = 0_usize;
    for line in text.lines() {
        let words = words(line, &environment);
        let word = |i: usize| words.get(i).map_or("", String::as_str);
        if word(0).starts_with('.') {
            match word(0) {
                ".if" => conditions += 1,
                ".endif" => conditions = conditions.saturating_sub(1),
                _ => {}
            }
            found.remark("conditional lines (.if) are all taken as if they held");
            continue;
        }
        if SECTIONS.contains(&word(0)) {
            (section, name) = (word(0).to_owned(), word(1).to_owned());
            continue;
        }
        if section == "global" {
            environment.take(&words, conditions > 0);
            continue;
        }
        let mut line = Line {
            words: &words,
            environment: &environment,
            section: &name,
            found: &mut found,
        };
        match (section.as_str(), word(0)) {
            ("frontend" | "listen" | "peers" | "log-forward", "bind") => line.bind(1),
            ("listen" | "backend" | "ring" | "peers", "server") | ("mailers", "mailer") => {
                line.server(word(1), 2);
            }
            ("listen" | "backend", "server-template") => line.template(),
            ("peers", "peer") => {
                // The one that bears this host's name is where it listens.
                line.bind(2);
                line.server(word(1), 2);
            }
            // Without a protocol it is asked over UDP.
            ("resolvers", "nameserver") if word(2).starts_with("tcp") => line.server(word(1), 2),
            _ => {}
        }
    }
    found
}

struct Line<'a> {
    words: &'a [String],
    environment: &'a Environment,
    /// The name of its section.
    section: &'a str,
    found: &'a mut Found,
}

impl<'a> Line<'a> {
    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// Whether no variable is left in these words; else it is remarked on.  `HAProxy`
    /// takes no `$` in a name.
    fn is_known(&mut self, words: &[&str]) -> bool {
        let Some(name) = words.iter().find_map(|word| variable(word)) else {
            return true;
        };
        self.found.remark(format!(
            "the value of {name} is not known: addresses and names with it are left out; \
             HAProxy's own environment is not read and outranks presetenv and defaults: \
             write setenv in the section global"
        ));
        false
    }

    /// It listens on the addresses in this place.
    fn bind(&mut self, at: usize) {
        let only_v6 = self.words.iter().any(|w| w == "v6only");
        let name = Name {
            name: self.section.to_owned(),
            ..Name::default()
        };
        for address in self.word(at).split(',') {
            let address = self.environment.address(address);
            if !self.is_known(&[self.section, &address]) {
                continue;
            }
            let Some((host, family, port)) = split(&address) else {
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
            self.found.listen(host, family, ports, &name);
        }
    }

    /// It connects to the address in this place.
    fn server(&mut self, name: &str, at: usize) {
        let address = self.environment.address(self.word(at));
        if !self.is_known(&[self.section, name, &address]) {
            return;
        }
        let Some((host, family, port)) = split(&address) else {
            return;
        };
        // Without a port, or with a relative one, it is the client's.
        let Some(port) = found::port(port) else {
            return self.found.remark(format!(
                "server {}/{name} has no port of its own: it has no name",
                self.section
            ));
        };
        let name = Name {
            name: name.to_owned(),
            upstream: self.section.to_owned(),
            backend: name.to_owned(),
        };
        self.found.peer(Place::new(host, family, port), &name);
    }

    /// Servers that share an address: which of them it becomes is `HAProxy`'s choice.
    fn template(&mut self) {
        let (prefix, range) = (self.word(1), self.word(2));
        let (first, last) = range.split_once('-').unwrap_or(("1", range));
        self.server(&format!("{prefix}{first}-{last}"), 3);
    }
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
