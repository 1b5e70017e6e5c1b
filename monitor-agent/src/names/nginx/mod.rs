//! nginx's configuration: `upstream` blocks with their servers, `listen` with
//! `server_name`, and what is passed to an address directly.

mod syntax;

use std::{collections::HashSet, ops::RangeInclusive, path::Path};

use self::syntax::Directive;
use super::{
    Name, NamesError,
    found::{self, Family, Found, Place, ports},
    sources::Sources,
};

/// How deeply files may include each other.
const INCLUDES_MAX: usize = 16;

/// What names cannot be had for.
const VARIABLES: &str = "addresses with variables are known to nginx alone: they have no names";

/// What nginx listens on where a server does not say.
const DEFAULT_LISTEN: &str = "80";

/// Reads the names out of a configuration and all that it includes.
pub(super) fn parse(text: &str, path: &Path, sources: &mut Sources) -> Result<Found, NamesError> {
    let mut found = Found::default();
    let root = path.parent().unwrap_or(Path::new("."));
    let directives = Reader {
        root,
        sources,
        found: &mut found,
    }
    .read(text, path, 0)?;
    let mut upstreams = HashSet::new();
    collect_upstreams(&directives, &mut upstreams);
    let mut walk = Walk {
        found: &mut found,
        upstreams,
    };
    walk.all(&directives, true);
    Ok(found)
}

struct Reader<'a> {
    /// Where included files are: beside the first one.
    root: &'a Path,
    sources: &'a mut Sources,
    found: &'a mut Found,
}

impl Reader<'_> {
    fn read(
        &mut self,
        text: &str,
        path: &Path,
        depth: usize,
    ) -> Result<Vec<Directive>, NamesError> {
        let syntax = |message| NamesError::Syntax {
            path: path.to_owned(),
            message,
        };
        let directives = syntax::parse(text).map_err(syntax)?;
        self.with_included(directives, depth)
    }

    /// Puts the directives of included files where they are included.
    fn with_included(
        &mut self,
        directives: Vec<Directive>,
        depth: usize,
    ) -> Result<Vec<Directive>, NamesError> {
        let mut all = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if let Some(block) = directive.block.take() {
                directive.block = Some(self.with_included(block, depth)?);
                all.push(directive);
            } else if directive.name() == "include" {
                all.extend(self.include(directive.argument(), depth)?);
            } else {
                all.push(directive);
            }
        }
        Ok(all)
    }

    fn include(&mut self, pattern: &str, depth: usize) -> Result<Vec<Directive>, NamesError> {
        let pattern = self.root.join(pattern);
        if depth == INCLUDES_MAX {
            return Err(NamesError::Syntax {
                path: pattern,
                message: format!("files include each other more than {INCLUDES_MAX} deep"),
            });
        }
        let paths = if super::glob::is_pattern(&pattern.to_string_lossy()) {
            self.sources.matching(&pattern)
        } else {
            vec![pattern]
        };
        let mut all = Vec::new();
        for path in paths {
            let read = self.sources.read(&path);
            match read {
                Ok(text) => all.extend(self.read(&text, &path, depth + 1)?),
                // A key or another file that this agent may not read does not
                // take all names away; too much of it does.
                Err(error) if error.kind() == std::io::ErrorKind::Other => {
                    return Err(NamesError::Unreadable {
                        path,
                        source: error,
                    });
                }
                Err(error) => {
                    let what = format!(
                        "{}, which is included, is not read: {error}",
                        path.display()
                    );
                    self.found.remark(what);
                }
            }
        }
        Ok(all)
    }
}

fn collect_upstreams(directives: &[Directive], upstreams: &mut HashSet<String>) {
    for directive in directives {
        if directive.name() == "upstream" {
            upstreams.insert(directive.argument().to_owned());
        }
        collect_upstreams(directive.block.as_deref().unwrap_or_default(), upstreams);
    }
}

struct Walk<'a> {
    found: &'a mut Found,
    upstreams: HashSet<String>,
}

impl Walk<'_> {
    /// `http` is false within `stream` and `mail`, which have no ports of their
    /// own.
    fn all(&mut self, directives: &[Directive], http: bool) {
        for directive in directives {
            let Some(block) = &directive.block else {
                self.pass(directive);
                continue;
            };
            match directive.name() {
                "upstream" => self.upstream(directive.argument(), block, http),
                "server" => {
                    self.listeners(block, http);
                    self.all(block, http);
                }
                "stream" | "mail" => self.all(block, false),
                _ => self.all(block, http),
            }
        }
    }

    fn upstream(&mut self, upstream: &str, block: &[Directive], http: bool) {
        for server in block.iter().filter(|d| d.name() == "server") {
            let address = server.argument();
            let parameters = server.arguments();
            if parameters.iter().any(|p| p.starts_with("service=")) {
                self.found.remark(format!(
                    "{upstream}: the ports of {address} come from DNS: it has no name"
                ));
                continue;
            }
            if parameters.iter().any(|p| p == "resolve") {
                self.found.remark(format!(
                    "{upstream}: nginx looks {address} up again and again: the addresses of now \
                     are named"
                ));
            }
            self.peer(address, upstream, http.then_some(80));
        }
    }

    fn peer(&mut self, address: &str, upstream: &str, default_port: Option<u16>) {
        if address.starts_with("unix:") {
            return;
        }
        if address.contains('$') {
            self.found.remark(VARIABLES);
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
        self.found.peer(Place::new(host, Family::Any, port), name);
    }

    /// `proxy_pass` and its kin, where they name an address and no upstream.
    fn pass(&mut self, directive: &Directive) {
        const PASSES: [&str; 6] = [
            "proxy_pass",
            "grpc_pass",
            "fastcgi_pass",
            "uwsgi_pass",
            "scgi_pass",
            "memcached_pass",
        ];
        if !PASSES.contains(&directive.name()) {
            return;
        }
        let url = directive.argument();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let default_port = match (scheme, directive.name()) {
            ("http" | "grpc", _) | ("", "grpc_pass") => Some(80),
            ("https" | "grpcs", _) => Some(443),
            (_, "memcached_pass") => Some(11_211),
            _ => None,
        };
        // `unix:` may be followed by a path with slashes.
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if !self.upstreams.contains(authority) {
            self.peer(authority, authority, default_port);
        }
    }

    fn listeners(&mut self, server: &[Directive], http: bool) {
        let arguments = |name: &'static str| {
            let named = server.iter().filter(move |d| d.name() == name);
            named.flat_map(Directive::arguments)
        };
        let mut name = Name::default();
        for one in arguments("server_name") {
            // These two stand for no name at all.
            if !matches!(one.as_str(), "" | "_") {
                super::join(&mut name.name, one);
            }
        }
        if name.name.is_empty() {
            return;
        }
        let listens = server.iter().filter(|d| d.name() == "listen");
        let mut is_default = http;
        for listen in listens {
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
        if address.contains('$') {
            self.found.remark(VARIABLES);
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
