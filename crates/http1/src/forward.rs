//! Writing heads anew: what a proxy drops, keeps and adds.

use super::fields::Field;
use super::request::RequestHead;
use super::response::ResponseHead;
use super::{Framing, Version};

/// What is known of the client when its request is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The address of the peer, as text.
    pub peer: &'a str,
    /// The address of the real client, as text; the peer's unless a trusted
    /// proxy said otherwise.
    pub real_ip: &'a str,
    /// Whether the peer is one of `trusted_proxies`: its word is kept.
    pub trusted: bool,
    /// Whether the client came by TLS.
    pub secure: bool,
    /// What `Host` says where the client gave none: HTTP/1.0 need not, but
    /// backends refuse an empty one.
    pub host: &'a str,
    /// Whether the backend may keep the connection for another request.
    pub keep_alive: bool,
    /// The field that carries the real address between trusted proxies.
    pub real_ip_header: &'a str,
}

/// Writes the head that goes to the backend.
///
/// Framing is restated from what was understood, never copied. What untrusted
/// peers say about themselves (`X-Forwarded-*`, `X-Real-IP`, `Forwarded`) is
/// dropped, and so is what a backend may take for it: names with a `_`.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_, '_>, client: &Client<'_>) {
    let lines: [&[u8]; 4] = [
        head.method.as_bytes(),
        b" ",
        head.target.as_bytes(),
        b" HTTP/1.1\r\nHost: ",
    ];
    for part in lines {
        out.extend_from_slice(part);
    }
    let host = if head.host.is_empty() {
        client.host
    } else {
        head.host
    };
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    let (mut proto, mut host) = (false, false);
    for (header, kind) in head.headers.iter().zip(head.kinds.iter()) {
        match kind {
            Field::HopByHop
            | Field::Ambiguous
            | Field::Connection
            | Field::KeepAlive
            | Field::Upgrade
            | Field::Host
            | Field::ContentLength
            | Field::TransferEncoding
            | Field::ForwardedFor
            | Field::RealIp => continue,
            Field::Forwarded
            | Field::ForwardedHost
            | Field::ForwardedProto
            | Field::ForwardedOther
                if !client.trusted =>
            {
                continue;
            }
            Field::ForwardedHost => host = true,
            Field::ForwardedProto => proto = true,
            _ if !client.trusted && header.name.eq_ignore_ascii_case(client.real_ip_header) => {
                continue;
            }
            _ => {}
        }
        line(out, header.name, header.value);
    }
    framing_line(out, head.framing);
    if head.websocket {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if !client.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    forwarded_lines(out, head, client, proto, host);
    out.extend_from_slice(b"\r\n");
}

fn forwarded_lines(
    out: &mut Vec<u8>,
    head: &RequestHead<'_, '_>,
    client: &Client<'_>,
    proto_kept: bool,
    host_kept: bool,
) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    // Repeated lines are one list in their order (RFC 9110, section 5.3).
    let fields = head.headers.iter().zip(head.kinds.iter());
    for (header, _) in fields.filter(|(header, kind)| {
        client.trusted && **kind == Field::ForwardedFor && !header.value.is_empty()
    }) {
        out.extend_from_slice(header.value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(client.peer.as_bytes());
    out.extend_from_slice(b"\r\nX-Real-IP: ");
    out.extend_from_slice(client.real_ip.as_bytes());
    if !proto_kept {
        let line: &[u8] = if client.secure {
            b"\r\nX-Forwarded-Proto: https"
        } else {
            b"\r\nX-Forwarded-Proto: http"
        };
        out.extend_from_slice(line);
    }
    if !host_kept && !head.host.is_empty() {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(head.host.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What the proxy adds to a response's head.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The version that the client spoke.
    pub version: Version,
    /// Whether the client's connection lives on.
    pub keep_alive: bool,
    /// The date to add where the backend gave none.
    pub date: &'a [u8],
}

/// Writes the head that goes to the client.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead<'_, '_>, answer: &Answer<'_>) {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[
        digit(head.status / 100),
        digit(head.status / 10),
        digit(head.status),
        b' ',
    ]);
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (header, kind) in head.headers.iter().zip(head.kinds.iter()) {
        let kept = match kind {
            Field::HopByHop
            | Field::Connection
            | Field::KeepAlive
            | Field::Upgrade
            | Field::TransferEncoding => false,
            // A 1xx or 204 must not carry one; elsewhere it says what was
            // understood, for HEAD and 304 what a GET would have.
            Field::ContentLength => head.status >= 200 && head.status != 204,
            _ => true,
        };
        if kept {
            line(out, header.name, header.value);
        }
    }
    if head.framing == Framing::Chunked && answer.version == Version::Http11 {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.status == 101 {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if head.status >= 200 {
        if !head.dated {
            line(out, "Date", answer.date);
        }
        if !answer.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if answer.version == Version::Http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head that tells a client that its tunnel is open. It has no
/// framing: what follows is the tunnel (RFC 9110, section 9.3.6).
pub fn write_connected(out: &mut Vec<u8>, date: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    line(out, "Date", date);
    out.extend_from_slice(b"\r\n");
}

fn framing_line(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(bytes) => {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Empty | Framing::UntilClose => {}
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::super::HeadLimits;
    use super::super::request::{header_slots, parse_request};
    use super::super::response::{RequestContext, parse_response};
    use super::*;

    const STRANGER: Client<'_> = Client {
        peer: "192.0.2.1",
        real_ip: "192.0.2.1",
        trusted: false,
        secure: false,
        host: "backend",
        keep_alive: true,
        real_ip_header: "CF-Connecting-IP",
    };

    fn rewrite(text: &str, client: &Client<'_>) -> String {
        let mut slots = header_slots();
        let head = parse_request(text.as_bytes(), &mut slots, HeadLimits::default());
        let mut out = Vec::new();
        write_request(&mut out, &head.unwrap().unwrap(), client);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_strangers_say_about_themselves_is_dropped() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n\
                    Forwarded: for=x\r\nX-Forwarded-Proto: https\r\ncf-connecting-ip: 1.1.1.1\r\nA: b\r\n\
                    X_Real_IP: 1.1.1.1\r\nX-Forwarded_For: 1.1.1.1\r\nContent_Length: 7\r\n\
                    X-Forwarded-Port: 1\r\nx-forwarded-prefix: /a\r\nX-Forwarded-Server: x\r\n\
                    X-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\nX-Forwarded-Of-Tomorrow: 1\r\n\r\n";
        let out = rewrite(text, &STRANGER);
        assert_eq!(
            out,
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nX-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\r\n"
        );
    }

    #[test]
    fn trusted_peers_are_appended_to() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: public\r\nX-Forwarded-Port: 444\r\n\r\n";
        let client = Client {
            trusted: true,
            real_ip: "1.1.1.1",
            ..STRANGER
        };
        let out = rewrite(text, &client);
        assert!(
            out.contains("X-Forwarded-For: 1.1.1.1, 192.0.2.1\r\n"),
            "{out}"
        );
        assert!(out.contains("X-Real-IP: 1.1.1.1\r\n"), "{out}");
        assert!(out.contains("X-Forwarded-Proto: https\r\n"), "{out}");
        assert!(!out.contains("X-Forwarded-Proto: http\r\n"), "{out}");
        assert!(out.contains("X-Forwarded-Host: public\r\n"), "{out}");
        assert!(out.contains("X-Forwarded-Port: 444\r\n"), "{out}");
    }

    #[test]
    fn all_lines_of_a_trusted_list_are_kept_in_their_order() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nA: b\r\n\
                    X-Forwarded-For:\r\nx-forwarded-for: 3.3.3.3\r\n\r\n";
        let client = Client {
            trusted: true,
            ..STRANGER
        };
        let line = |out: &str| {
            let mut lines = out
                .lines()
                .filter(|line| line.starts_with("X-Forwarded-For"));
            (lines.next().unwrap_or_default().to_owned(), lines.count())
        };
        let all = "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1".to_owned();
        assert_eq!(line(&rewrite(text, &client)), (all, 0));
        let own = "X-Forwarded-For: 192.0.2.1".to_owned();
        assert_eq!(line(&rewrite(text, &STRANGER)), (own, 0));
    }

    #[test]
    fn hop_by_hop_fields_stay_behind() {
        let text = "POST / HTTP/1.1\r\nHost: h\r\nConnection: x-secret\r\nX-Secret: 1\r\nTE: trailers\r\n\
                    Upgrade: h2c\r\nKeep-Alive: 5\r\nContent-Length: 0012\r\n\r\n";
        let out = rewrite(text, &STRANGER);
        for gone in ["Secret", "TE:", "Upgrade", "Keep-Alive", "Connection"] {
            assert!(!out.contains(gone), "{gone} in {out}");
        }
        assert!(out.contains("Content-Length: 12\r\n"), "{out}");
    }

    #[test]
    fn responses_are_framed_for_the_client() {
        let text = "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\nB: c\r\n\r\n";
        let mut slots = header_slots();
        let head = parse_response(
            text.as_bytes(),
            &mut slots,
            HeadLimits::default(),
            RequestContext::default(),
        );
        let head = head.unwrap().unwrap();
        let mut out = Vec::new();
        let answer = Answer {
            version: Version::Http11,
            keep_alive: true,
            date: b"D",
        };
        write_response(&mut out, &head, &answer);
        let expected = "HTTP/1.1 200 Fine\r\nB: c\r\nTransfer-Encoding: chunked\r\nDate: D\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
        out.clear();
        let answer = Answer {
            version: Version::Http10,
            keep_alive: false,
            date: b"D",
        };
        write_response(&mut out, &head, &answer);
        let expected = "HTTP/1.1 200 Fine\r\nB: c\r\nDate: D\r\nConnection: close\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }
}
