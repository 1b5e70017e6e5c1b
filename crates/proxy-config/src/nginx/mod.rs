//! nginx's configuration: `upstream` blocks with their servers, `listen` with
//! `server_name`, and what is passed to an address directly.

mod files;
mod syntax;
mod variables;

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    path::Path,
};

pub(crate) use self::syntax::begins;
use self::{
    syntax::Directive,
    variables::{Sets, Variables},
};
use crate::{
    Name,
    found::{self, Family, Found, Place, ports},
    names::join,
    sources::Sources,
};

/// What names cannot be had for.
const VARIABLES: &str =
    "addresses with variables that are no constants are known to nginx alone: they have no names";

/// What nginx listens on where a server does not say.
const DEFAULT_LISTEN: &str = "80";

/// How many directives are looked at, those of a file as often as it is included;
/// and after how many of them no file is looked into any more.
const VISITS_MAX: usize = 40_000_000;
const INCLUDED_MAX: usize = 10_000_000;

/// What passes requests to an address or an upstream.
const PASSES: [&str; 6] = [
    "proxy_pass",
    "grpc_pass",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "memcached_pass",
];

/// Reads the names out of a configuration and all that it includes.
pub(crate) fn parse(text: &str, path: &Path, sources: &mut Sources) -> Found {
    let mut found = Found::default();
    let directives = files::read(text, path, sources, &mut found);
    let mut walk = Walk {
        found: &mut found,
        visits: 0,
    };
    let all = walk.flat(&directives);
    let mut known = Known::default();
    walk.know(&all, Part::Http, &mut known);
    walk.all(&all, Part::Http, &known, Variables::default());
    found
}

/// Whether a directive without a kept one in it is looked at later.
fn is_wanted(around: &[String], words: &[String], before: &[Directive]) -> bool {
    let name = words.first().map_or("", String::as_str);
    if around.first().is_some_and(|around| around == "map") {
        // Two values that differ tell as much as all of them.
        let is_new = || before.iter().all(|d| d.words.get(1) != words.get(1));
        let is_value = words.len() == 2;
        return ["default", "include"].contains(&name) || is_value && before.len() < 2 && is_new();
    }
    const KEPT: [&str; 7] = [
        "break",
        "include",
        "listen",
        "server",
        "server_name",
        "set",
        "upstream",
    ];
    KEPT.contains(&name) || PASSES.contains(&name)
}

/// Whose directives they are; each part has upstreams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Http,
    Stream,
    Mail,
}

impl Part {
    fn within(self, block: &str) -> Self {
        match block {
            "http" => Self::Http,
            "stream" => Self::Stream,
            "mail" => Self::Mail,
            _ => self,
        }
    }
}

/// What is known of all parts before any address is looked at.
#[derive(Default)]
struct Known<'d> {
    /// The names of upstreams, in lower case: nginx compares them so.
    upstreams: HashSet<(Part, String)>,
    maps: HashMap<Part, Sets<'d>>,
}

struct Walk<'a> {
    found: &'a mut Found,
    visits: usize,
}

impl Walk<'_> {
    /// The directives of a block, those of included files in their place.
    fn flat<'d>(&mut self, block: &'d [Directive]) -> Vec<&'d Directive> {
        let mut all = Vec::new();
        self.flatten(block, &mut all);
        all
    }

    fn flatten<'d>(&mut self, block: &'d [Directive], all: &mut Vec<&'d Directive>) {
        for directive in block {
            self.visits += 1;
            let is_include = !directive.included.is_empty();
            if self.visits > VISITS_MAX || is_include && self.visits > INCLUDED_MAX {
                let what = "its files include each other too often: some have no names";
                self.found.remark(what);
                continue;
            }
            for included in &directive.included {
                self.flatten(included, all);
            }
            if directive.name() != "include" {
                all.push(directive);
            }
        }
    }

    /// Upstreams and maps, which stand in the outermost blocks.
    fn know<'d>(&mut self, directives: &[&'d Directive], part: Part, known: &mut Known<'d>) {
        for directive in directives {
            let Some(block) = &directive.block else {
                continue;
            };
            // The entries of a map's files are not kept.
            let includes = block.iter().any(|d| d.name() == "include");
            let block = match directive.name() {
                "upstream" => {
                    let name = directive.argument().to_ascii_lowercase();
                    known.upstreams.insert((part, name));
                    continue;
                }
                "http" | "stream" | "map" => self.flat(block),
                _ => continue,
            };
            if directive.name() != "map" {
                self.know(&block, part.within(directive.name()), known);
            } else if let Some(name) = directive.words.get(2).and_then(|n| n.strip_prefix('$')) {
                let value = variables::map_value(&block).filter(|_| !includes);
                known.maps.entry(part).or_default().insert(name, value);
            }
        }
    }

    fn all<'d>(
        &mut self,
        directives: &[&'d Directive],
        part: Part,
        known: &Known<'d>,
        variables: Variables<'_, 'd>,
    ) {
        for directive in directives {
            let Some(block) = &directive.block else {
                self.pass(directive, part, known, variables);
                continue;
            };
            let block = self.flat(block);
            match directive.name() {
                "upstream" => self.upstream(directive.argument(), &block, part),
                "map" => {}
                "server" => {
                    self.listeners(&block, part);
                    let (mut server, mut anywhere) = (Sets::new(), Sets::new());
                    self.sets(&block, false, &mut server);
                    self.sets(&block, true, &mut anywhere);
                    let variables = Variables {
                        location: None,
                        server: Some(&server),
                        anywhere: Some(&anywhere),
                        maps: known.maps.get(&part),
                    };
                    self.all(&block, part, known, variables);
                }
                "location" => {
                    let mut own = Sets::new();
                    self.sets(&block, false, &mut own);
                    let location = Some(&own);
                    let variables = Variables {
                        location,
                        ..variables
                    };
                    self.all(&block, part, known, variables);
                }
                name => self.all(&block, part.within(name), known, variables),
            }
        }
    }

    /// What the directives of a block set, those in an `if` too; `everywhere` also
    /// those in locations, which have their own.
    fn sets<'d>(&mut self, block: &[&'d Directive], everywhere: bool, sets: &mut Sets<'d>) {
        for directive in block {
            match (directive.name(), &directive.block) {
                ("set", None) => variables::add(sets, directive),
                // Nothing behind it is carried out.
                ("break", None) if !everywhere => return,
                (name, Some(block)) if everywhere || name == "if" => {
                    let block = self.flat(block);
                    self.sets(&block, everywhere, sets);
                }
                _ => {}
            }
        }
    }

    fn upstream(&mut self, upstream: &str, block: &[&Directive], part: Part) {
        for server in block.iter().filter(|d| d.name() == "server") {
            let address = server.argument();
            if server.arguments().iter().any(|p| p.starts_with("service=")) {
                self.found.remark(format!(
                    "{upstream}: the ports of {address} come from DNS: it has no name"
                ));
            } else {
                self.peer(address, upstream, (part == Part::Http).then_some(80));
            }
        }
    }

    fn peer(&mut self, address: &str, upstream: &str, default_port: Option<u16>) {
        if address.starts_with("unix:") {
            return;
        }
        let Some((host, port)) = split(address) else {
            return;
        };
        let Some(port) = port.map_or(default_port, found::port) else {
            return;
        };
        let name = Name {
            name: address.to_owned(),
            upstream: upstream.to_owned(),
            backend: address.to_owned(),
        };
        self.found.peer(Place::new(host, Family::Any, port), &name);
    }

    /// `proxy_pass` and its kin, where they name an address and no upstream.
    fn pass(
        &mut self,
        directive: &Directive,
        part: Part,
        known: &Known<'_>,
        variables: Variables<'_, '_>,
    ) {
        if !PASSES.contains(&directive.name()) {
            return;
        }
        let variables = Variables {
            maps: known.maps.get(&part),
            ..variables
        };
        let Some(url) = variables.address(directive.argument()) else {
            return self.found.remark(VARIABLES);
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match (scheme.as_str(), directive.name()) {
            ("http" | "grpc", _) | ("", "grpc_pass") => Some(80),
            ("https" | "grpcs", _) => Some(443),
            (_, "memcached_pass") => Some(11_211),
            _ => None,
        };
        // `unix:` may be followed by a path with slashes.
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let upstream = (part, authority.to_ascii_lowercase());
        if !known.upstreams.contains(&upstream) {
            self.peer(authority, authority, default_port);
        }
    }

    fn listeners(&mut self, server: &[&Directive], part: Part) {
        let named = server.iter().filter(|d| d.name() == "server_name");
        let mut name = Name::default();
        for one in named.flat_map(|d| d.arguments()) {
            // These two stand for no name at all.
            if !matches!(one.as_str(), "" | "_") {
                join(&mut name.name, one);
            }
        }
        if name.name.is_empty() {
            return;
        }
        let mut is_default = part == Part::Http;
        for listen in server.iter().filter(|d| d.name() == "listen") {
            is_default = false;
            self.listen(listen.arguments(), &name);
        }
        if is_default {
            self.listen(&[DEFAULT_LISTEN.to_owned()], &name);
        }
    }

    fn listen(&mut self, arguments: &[String], name: &Name) {
        let (address, parameters) = arguments
            .split_first()
            .map_or(("", arguments), |(a, p)| (a.as_str(), p));
        let has = |parameter: &str| parameters.iter().any(|p| p == parameter);
        if address.starts_with("unix:") || has("udp") || has("quic") {
            return;
        }
        let Some((host, ports)) = listen_address(address) else {
            return;
        };
        let (host, family) = match host {
            "" | "*" => ("*", Family::V4),
            "::" if has("ipv6only=off") => ("*", Family::Any),
            host => (host, Family::Any),
        };
        self.found.listen(host, family, ports, name);
    }
}

/// `80`, `8000-8010`, `host`, `host:80`, `[::]:80`.
fn listen_address(address: &str) -> Option<(&str, RangeInclusive<u16>)> {
    let (host, port) = split(address)?;
    match port {
        Some(port) => Some((host, ports(port)?)),
        None => match ports(host) {
            Some(ports) => Some(("", ports)),
            None => Some((host, 80..=80)),
        },
    }
}

/// A host, without brackets, and what follows its colon.
fn split(address: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')));
    }
    match address.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => (!address.is_empty()).then_some((address, None)),
    }
}
