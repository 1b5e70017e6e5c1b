//! Parsing and judging a request's head.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::fields::{ConnectionOptions, Field, classify, content_length};
use super::reject::Reject;
use super::{Framing, HEADERS_MAX, HeadLimits, Version, lines_end_in_crlf};

/// The storage that a parsed head borrows; lives on the caller's stack.
pub type HeaderSlots<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

/// Fresh header storage.
#[must_use]
pub fn header_slots<'b>() -> HeaderSlots<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// A request's head, checked: it can be forwarded.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method, a token.
    pub method: &'b str,
    /// Path and query in origin-form, `*`, or for CONNECT the authority.
    pub target: &'b str,
    /// Where the request was addressed; empty for HTTP/1.0 without `Host`.
    pub host: &'b str,
    /// The version that the client spoke.
    pub version: Version,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// Whether this is a WebSocket opening handshake.
    pub websocket: bool,
    /// Whether this is CONNECT, whose target is host and port.
    pub connect: bool,
    /// The client's `Accept` value, empty where there is none.
    pub accept: &'b [u8],
    /// Every field in its order.
    pub headers: &'h [Header<'b>],
    /// What each of `headers` means.
    pub kinds: [Field; HEADERS_MAX],
    /// Bytes of the head in the input, the empty line included.
    pub head_bytes: usize,
}

/// Parses a head from the beginning of `input`.
///
/// Gives `None` while the head is incomplete and still within its bounds. The
/// answer for a complete head does not depend on how the bytes were split.
///
/// # Errors
/// A [`Reject`] with the status to answer; the connection cannot be used again.
pub fn parse_request<'h, 'b>(
    input: &'b [u8],
    slots: &'h mut HeaderSlots<'b>,
    limits: HeadLimits,
) -> Result<Option<RequestHead<'h, 'b>>, Reject> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let mut request = httparse::Request::new(&mut []);
    let slots = &mut slots[..limits.headers_max.min(HEADERS_MAX)];
    let head_bytes = match request.parse_with_uninit_headers(window, slots) {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) if window.len() == limits.head_bytes_max => {
            return Err(Reject::HeadTooLarge);
        }
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::HeadTooLarge),
        Err(httparse::Error::Version) => {
            return match version_reject(window) {
                Some(reject) => Err(reject),
                None if window.len() == limits.head_bytes_max => Err(Reject::HeadTooLarge),
                None => Ok(None),
            };
        }
        Err(_) => return Err(Reject::Syntax),
    };
    if !lines_end_in_crlf(&window[..head_bytes]) {
        return Err(Reject::BareLf);
    }
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Reject::Syntax);
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    if method == "CONNECT" && !limits.connect {
        return Err(Reject::Connect);
    }
    validate(method, path, version, request.headers, head_bytes).map(Some)
}

/// Tells an unsupported version from a start line that is malformed where the
/// version should be. The end of the line decides: `None` before that.
fn version_reject(window: &[u8]) -> Option<Reject> {
    let start = window
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = &window[start..];
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let mut words = line[..end].split(|byte| *byte == b' ');
    let words = [words.next(), words.next(), words.next(), words.next()];
    // With a space in the target, its rest stands where the version is looked for.
    let [Some(_), Some(_), Some(version), None] = words else {
        return Some(Reject::Syntax);
    };
    let named = version.strip_prefix(b"HTTP/").unwrap_or_default();
    let reject = match named {
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => Reject::Version,
        _ => Reject::Syntax,
    };
    Some(reject)
}

/// What the fields of one head say, gathered in a single walk.
#[derive(Default)]
struct ScannedFields<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    coding: Coding,
    options: ConnectionOptions,
    upgrade_websocket: bool,
    accept: &'b [u8],
}

/// What the `Transfer-Encoding` fields say together. Where chunked is not the last
/// coding, once, the end of the body is unknown (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Chunked, and something else before.
    Encoded,
    Unframed,
}

impl Coding {
    /// With the value of a further field. A second one, and a list with holes, is
    /// read differently elsewhere.
    fn combined_with(self, value: &[u8]) -> Self {
        if self != Self::None {
            return Self::Unframed;
        }
        if is_chunked(value) {
            return Self::Chunked;
        }
        let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let last = codings.next_back();
        if last.is_some_and(is_chunked) && codings.all(|one| !one.is_empty() && !is_chunked(one)) {
            Self::Encoded
        } else {
            Self::Unframed
        }
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

fn validate<'h, 'b>(
    method: &'b str,
    path: &'b str,
    version: Version,
    headers: &'h [Header<'b>],
    head_bytes: usize,
) -> Result<RequestHead<'h, 'b>, Reject> {
    let mut kinds = [Field::EndToEnd; HEADERS_MAX];
    let seen = scan_fields(headers, &mut kinds)?;
    let framing = framing(&seen, version)?;
    let connect = method == "CONNECT";
    let (target, authority) = if connect {
        (
            connect_target(path, version, framing)?,
            Some(Authority::exact(path)),
        )
    } else {
        split_target(method, path)?
    };
    let host = host(&seen, authority, version)?;
    let keep_alive = match version {
        Version::Http11 => !seen.options.close,
        Version::Http10 => seen.options.keep_alive && !seen.options.close,
    };
    // An upgrade is forwarded for WebSocket alone: h2c upgrades are a known way
    // around a front, and a body before the switch cannot be framed safely.
    let websocket = seen.upgrade_websocket
        && seen.options.upgrade
        && version == Version::Http11
        && method == "GET"
        && matches!(framing, Framing::Empty | Framing::Length(0));
    Ok(RequestHead {
        method,
        target,
        host,
        version,
        framing,
        keep_alive,
        websocket,
        connect,
        accept: seen.accept,
        headers,
        kinds,
        head_bytes,
    })
}

fn scan_fields<'b>(
    headers: &[Header<'b>],
    kinds: &mut [Field; HEADERS_MAX],
) -> Result<ScannedFields<'b>, Reject> {
    for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
        *kind = if header.name.contains('_') {
            Field::Ambiguous
        } else {
            classify(header.name)
        };
    }
    let mut seen = ScannedFields::default();
    for (index, header) in headers.iter().enumerate() {
        match kinds[index] {
            Field::Host if seen.host.is_some() => return Err(Reject::HostRepeated),
            Field::Host => seen.host = Some(header.value),
            Field::ContentLength if seen.length.is_some() => return Err(Reject::Length),
            Field::ContentLength => {
                seen.length = Some(content_length(header.value).ok_or(Reject::Length)?);
            }
            Field::TransferEncoding => seen.coding = seen.coding.combined_with(header.value),
            Field::Connection => seen
                .options
                .read(header.value, headers, kinds)
                .ok_or(Reject::Nominated)?,
            Field::Upgrade => {
                seen.upgrade_websocket |= header.value.eq_ignore_ascii_case(b"websocket");
            }
            Field::Expect if !header.value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Reject::Expectation);
            }
            Field::Accept => seen.accept = header.value,
            _ => {}
        }
    }
    Ok(seen)
}

fn framing(seen: &ScannedFields<'_>, version: Version) -> Result<Framing, Reject> {
    if seen.coding == Coding::None {
        return Ok(seen.length.map_or(Framing::Empty, Framing::Length));
    }
    if version == Version::Http10 {
        return Err(Reject::CodingInHttp10);
    }
    if seen.length.is_some() {
        return Err(Reject::LengthAndCoding);
    }
    match seen.coding {
        Coding::Chunked => Ok(Framing::Chunked),
        Coding::Encoded => Err(Reject::Coding),
        Coding::None | Coding::Unframed => Err(Reject::CodingUnframed),
    }
}

/// Splits a target into origin-form and, for absolute-form, its authority.
fn split_target<'b>(
    method: &str,
    path: &'b str,
) -> Result<(&'b str, Option<Authority<'b>>), Reject> {
    // Anything outside visible ASCII has to be percent-encoded, and a fragment
    // never travels: both are read differently from server to server.
    if path
        .bytes()
        .any(|byte| !byte.is_ascii_graphic() || byte == b'#')
    {
        return Err(Reject::Target);
    }
    if path.starts_with('/') {
        return Ok((path, None));
    }
    if path == "*" {
        return if method == "OPTIONS" {
            Ok((path, None))
        } else {
            Err(Reject::Target)
        };
    }
    let (rest, default_port) = strip_scheme(path).ok_or(Reject::Target)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(Reject::Target);
    }
    let authority = Authority {
        text: authority,
        default_port: Some(default_port),
    };
    match target {
        "" if method == "OPTIONS" => Ok(("*", Some(authority))),
        "" => Ok(("/", Some(authority))),
        // "http://host?query" has an empty path, which origin-form cannot say
        // without changing the bytes.
        _ if target.starts_with('?') => Err(Reject::Target),
        _ => Ok((target, Some(authority))),
    }
}

/// Checks a target in authority-form. Its port has no default (RFC 9110, section
/// 9.3.6), and a body would be taken for the tunnel's first bytes or for none of
/// them, as the reader likes.
fn connect_target(path: &str, version: Version, framing: Framing) -> Result<&str, Reject> {
    if version == Version::Http10 {
        return Err(Reject::Connect);
    }
    if framing != Framing::Empty {
        return Err(Reject::ConnectBody);
    }
    if is_authority(path) {
        Ok(path)
    } else {
        Err(Reject::Target)
    }
}

/// Whether `text` is host and port, as CONNECT names them.
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    is_host(text) && matches!(port, Some(Ok(1..)))
}

/// What follows the scheme, and the scheme's default port.
fn strip_scheme(path: &str) -> Option<(&str, &'static str)> {
    let schemes = [("http://", "80"), ("https://", "443")];
    schemes.into_iter().find_map(|(scheme, port)| {
        let (head, rest) = path.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some((rest, port))
    })
}

/// Where a target says that the request goes.
#[derive(Debug, Clone, Copy)]
struct Authority<'b> {
    text: &'b str,
    /// The port that may be left out.
    default_port: Option<&'static str>,
}

impl<'b> Authority<'b> {
    /// One whose port cannot be left out.
    fn exact(text: &'b str) -> Self {
        Self {
            text,
            default_port: None,
        }
    }

    /// Whether a `Host` names the same place (RFC 9110, section 4.2.3).
    fn matches_host(self, host: &str) -> bool {
        let own = |text: &'_ str| -> usize {
            let Some(default) = self.default_port else {
                return text.len();
            };
            let bare = text.strip_suffix(default).unwrap_or(text);
            bare.strip_suffix(':').map_or(text.len(), str::len)
        };
        let (text, host) = (&self.text[..own(self.text)], &host[..own(host)]);
        text.eq_ignore_ascii_case(host)
    }
}

fn host<'b>(
    seen: &ScannedFields<'b>,
    authority: Option<Authority<'b>>,
    version: Version,
) -> Result<&'b str, Reject> {
    let Some(value) = seen.host else {
        return match (version, authority) {
            (Version::Http11, _) => Err(Reject::HostMissing),
            (Version::Http10, authority) => Ok(authority.map_or("", |authority| authority.text)),
        };
    };
    let host = std::str::from_utf8(value).map_err(|_| Reject::HostInvalid)?;
    if !host.is_empty() && !is_host(host) {
        return Err(Reject::HostInvalid);
    }
    match authority {
        // Two names for one request is how caches are poisoned.
        Some(authority) if !authority.matches_host(host) => Err(Reject::HostInvalid),
        _ => Ok(host),
    }
}

/// Whether `text` is `uri-host [ ":" port ]` (RFC 9110, section 7.2).
fn is_host(text: &str) -> bool {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        let valid = !address.is_empty()
            && address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
        if !valid {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => ("v6", port),
            None if rest.is_empty() => ("v6", ""),
            None => return false,
        }
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    let name_byte = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!')
    };
    !name.is_empty()
        && name.bytes().all(name_byte)
        && port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether repeating a request with this method has the effect of sending it
/// once (RFC 9110, section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, String, Framing, bool), Reject> {
        let mut slots = header_slots();
        let head = parse_request(text.as_bytes(), &mut slots, HeadLimits::default())?;
        let head = head.expect("the head is complete");
        Ok((
            head.target.to_owned(),
            head.host.to_owned(),
            head.framing,
            head.keep_alive,
        ))
    }

    fn reject(text: &str) -> Reject {
        match parse(text) {
            Err(reject) => reject,
            Ok(head) => panic!("{text:?} was accepted as {head:?}"),
        }
    }

    #[test]
    fn a_plain_request_is_accepted() {
        let head = parse("GET /a?b=c HTTP/1.1\r\nHost: x:80\r\n\r\n").unwrap();
        assert_eq!(
            head,
            ("/a?b=c".to_owned(), "x:80".to_owned(), Framing::Empty, true)
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let with = |fields: &str| reject(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        let cl_te = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(with(cl_te), Reject::LengthAndCoding);
        assert_eq!(
            with("Content-Length: 3\r\nContent-Length: 3\r\n"),
            Reject::Length
        );
        assert_eq!(
            with("Content-Length: 3\r\nContent-Length: 4\r\n"),
            Reject::Length
        );
        assert_eq!(with("Content-Length: 3, 3\r\n"), Reject::Length);
        assert_eq!(with("Content-Length: +3\r\n"), Reject::Length);
        assert_eq!(with("Content-Length:\r\n"), Reject::Length);
        assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n"), Reject::Coding);
        let field = "Transfer-Encoding:";
        for encoded in ["gzip,Chunked", "gzip, deflate , chunked"] {
            let fields = format!("{field} {encoded}\r\n");
            assert_eq!(with(&fields), Reject::Coding, "{encoded:?}");
        }
        for unframed in [
            "",
            "xchunked",
            "gzip",
            "identity",
            "chunked, gzip",
            "chunked, chunked",
            "gzip, chunked, chunked",
            "chunked,",
            ",chunked",
            "chunked;a=b",
            "chunked\r\nTransfer-Encoding: chunked",
            "chunked\r\nTransfer-Encoding: gzip",
            "gzip\r\nTransfer-Encoding: chunked",
        ] {
            let fields = format!("{field} {unframed}\r\n");
            assert_eq!(with(&fields), Reject::CodingUnframed, "{unframed:?}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(reject(old), Reject::CodingInHttp10);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for bad in [
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a b HTTP/2.0\r\nHost: x\r\n\r\n",
            "GET HTTP/1.1\r\nHost: x\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nno-colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
        ] {
            assert_eq!(reject(bad), Reject::Syntax, "{bad:?}");
        }
        assert_eq!(reject("GET / HTTP/1.1\nHost: x\n\n"), Reject::BareLf);
        assert_eq!(reject("GET / HTTP/1.1\r\nHost: x\n\r\n"), Reject::BareLf);
        assert_eq!(reject("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), Reject::Version);
        assert_eq!(reject("GET / HTTP/1.2\r\nHost: x\r\n\r\n"), Reject::Version);
    }

    #[test]
    fn host_is_needed_once_and_must_agree() {
        assert_eq!(reject("GET / HTTP/1.1\r\n\r\n"), Reject::HostMissing);
        assert_eq!(
            reject("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            Reject::HostRepeated
        );
        for bad in [
            "a b", "a,b", "a/b", "user@a", "a:b", "[::1", "[x]", "a:123456", ":80",
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n");
            assert_eq!(reject(&text), Reject::HostInvalid, "{bad:?}");
        }
        for good in ["a", "a.b:80", "[::1]:80", "[::1]", "127.0.0.1", "a_b", ""] {
            assert_eq!(
                parse(&format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n"))
                    .unwrap()
                    .1,
                good
            );
        }
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().3);
        assert!(
            parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                .unwrap()
                .3
        );
    }

    #[test]
    fn targets_are_validated_and_made_origin_form() {
        let target = |line: &str| parse(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(target("GET http://h/p?q").unwrap().0, "/p?q");
        assert_eq!(target("GET HTTP://H").unwrap().0, "/");
        assert_eq!(target("OPTIONS *").unwrap().0, "*");
        assert_eq!(target("OPTIONS http://h").unwrap().0, "*");
        for bad in [
            "GET *",
            "GET p",
            "GET ftp://h/",
            "GET http://u@h/",
            "GET http:///",
            "GET /a#b",
        ] {
            assert_eq!(target(bad).unwrap_err(), Reject::Target, "{bad}");
        }
        let at = |target: &str, host: &str| {
            parse(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|head| head.1)
        };
        for (target, host) in [
            ("http://h:80/", "h"),
            ("http://h/", "H:80"),
            ("http://h:/", "h"),
            ("https://h:443/", "h"),
            ("http://[::1]:80/", "[::1]"),
            ("http://h:8080/", "h:8080"),
        ] {
            assert_eq!(at(target, host).as_deref(), Ok(host), "{target}");
        }
        for (target, host) in [
            ("http://other/", "h"),
            ("http://h:8080/", "h"),
            ("http://h:8080/", "h:80"),
            ("http://h:443/", "h"),
            ("https://h/", "h:80"),
            ("http://h80/", "h"),
            ("http://[::1]/", "[::1]:81"),
            ("http://h/", ""),
        ] {
            assert_eq!(
                at(target, host),
                Err(Reject::HostInvalid),
                "{target} {host}"
            );
        }
        assert_eq!(target("CONNECT h:443").unwrap_err(), Reject::Connect);
    }

    #[test]
    fn connect_is_understood_where_it_is_enabled_and_names_host_and_port() {
        let limits = HeadLimits {
            connect: true,
            ..HeadLimits::default()
        };
        let target = |start: &str, fields: &str| {
            let text = format!("{start}\r\n{fields}\r\n");
            let mut slots = header_slots();
            let head = parse_request(text.as_bytes(), &mut slots, limits)?.unwrap();
            assert!(head.connect);
            Ok(head.target.to_owned())
        };
        let host = "Host: h:443\r\n";
        assert_eq!(target("CONNECT h:443 HTTP/1.1", host).unwrap(), "h:443");
        let v6 = target("CONNECT [::1]:1 HTTP/1.1", "Host: [::1]:1\r\n");
        assert_eq!(v6.unwrap(), "[::1]:1");
        for bad in [
            "h",
            "h:",
            "h:0",
            "h:65536",
            ":1",
            "/",
            "*",
            "http://h:1",
            "u@h:1",
            "[::1]",
            "h:1/",
        ] {
            let start = format!("CONNECT {bad} HTTP/1.1");
            let found = target(&start, &format!("Host: {bad}\r\n"));
            assert_eq!(found, Err(Reject::Target), "{bad}");
        }
        let cases = [
            ("CONNECT h:443 HTTP/1.1", "", Reject::HostMissing),
            ("CONNECT h:443 HTTP/1.1", "Host: h\r\n", Reject::HostInvalid),
            (
                "CONNECT h:443 HTTP/1.1",
                "Host: i:443\r\n",
                Reject::HostInvalid,
            ),
            ("CONNECT h:443 HTTP/1.0", host, Reject::Connect),
            ("connect h:443 HTTP/1.1", host, Reject::Target),
        ];
        for (start, fields, reject) in cases {
            assert_eq!(target(start, fields), Err(reject), "{start} {fields}");
        }
        for body in ["Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"] {
            let found = target("CONNECT h:443 HTTP/1.1", &format!("{host}{body}"));
            assert_eq!(found, Err(Reject::ConnectBody), "{body}");
        }
    }

    #[test]
    fn heads_over_the_limits_are_refused_whole_or_split() {
        let limits = HeadLimits {
            head_bytes_max: 64,
            headers_max: 2,
            connect: false,
        };
        let check = |text: &str| {
            parse_request(text.as_bytes(), &mut header_slots(), limits).map(|head| head.is_some())
        };
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(64));
        assert_eq!(check(&long), Err(Reject::HeadTooLarge));
        assert_eq!(check(&long[..64]), Err(Reject::HeadTooLarge));
        assert_eq!(check(&long[..63]), Ok(false));
        let many = "GET / HTTP/1.1\r\nHost: x\r\na:1\r\nb:2\r\n\r\n";
        assert_eq!(check(many), Err(Reject::HeadTooLarge));
    }

    #[test]
    fn nominated_fields_become_hop_by_hop_but_framing_does_not() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nConnection: x-a, host, close\r\n\r\n";
        let mut slots = header_slots();
        let head = parse_request(text.as_bytes(), &mut slots, HeadLimits::default())
            .unwrap()
            .unwrap();
        assert_eq!(head.kinds[0], Field::Host);
        assert_eq!(head.kinds[1], Field::HopByHop);
        assert!(!head.keep_alive);
        let many: String = (0..40).map(|n| format!("x{n},")).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {many}\r\n\r\n");
        assert_eq!(reject(&text), Reject::Nominated);
    }
}
