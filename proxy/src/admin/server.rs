//! Connections of the admin API.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::api;
use super::door::Sign;
use super::reply::{Reply, Request, split_target};
use crate::control::Control;
use crate::http::body::Body;
use crate::http::request::{RequestHead, header_slots, parse_request};
use crate::http::{Framing, HeadLimits};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The longest wait for a request, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the API until it is aborted; its connections end by the sign.
pub(super) async fn serve(listener: TcpListener, control: Arc<Control>, sign: Arc<Sign>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (control, sign) = (Arc::clone(&control), Arc::clone(&sign));
                tokio::spawn(async move {
                    converse(stream, &control, &sign).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, control: &Control, sign: &Sign) {
    let mut input = Vec::new();
    loop {
        let read = tokio::time::timeout(PATIENCE, read_request(&mut stream, &mut input)).await;
        if !sign.is_open() {
            return;
        }
        let (reply, keep_alive) = match read {
            Err(_) | Ok(Ok(None)) => return,
            Ok(Ok(Some((request, keep_alive)))) => {
                let handled = api::handle(control, sign.is_loopback, &request).await;
                let reply = handled.unwrap_or_else(|reply| reply);
                (reply, keep_alive && sign.is_open())
            }
            Ok(Err(reply)) => (reply, false),
        };
        let bytes = reply.bytes(keep_alive);
        let sent = tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await;
        if !matches!(sent, Ok(Ok(()))) || !keep_alive {
            drop(stream.shutdown().await);
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection. What follows it
/// stays in `input`.
async fn read_request(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
) -> Result<Option<(Request, bool)>, Reply> {
    loop {
        if let Some((request, keep_alive, used)) = take_request(input)? {
            input.drain(..used);
            return Ok(Some((request, keep_alive)));
        }
        match stream.read_buf(input).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

/// The first request of `input`, once it is whole: request, whether the
/// connection lives on, and its bytes.
fn take_request(input: &[u8]) -> Result<Option<(Request, bool, usize)>, Reply> {
    let mut slots = header_slots();
    let head = parse_request(input, &mut slots, HeadLimits::default())
        .map_err(|reject| Reply::error(reject.status(), reject.detail()))?;
    let Some(head) = head else { return Ok(None) };
    if !is_own_host(head.host) {
        return Err(Reply::error(
            403,
            "the Host field must name this server: use its address",
        ));
    }
    let too_large = || Reply::error(413, format!("a body may have {BODY_BYTES_MAX} bytes"));
    if matches!(head.framing, Framing::Length(bytes) if bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let rest = &input[head.head_bytes..];
    let mut body = Vec::new();
    let mut framing = Body::new(head.framing);
    let used = framing
        .decode(rest, &mut body)
        .map_err(|error| Reply::error(400, error.to_string()))?;
    if rest.len() > 2 * BODY_BYTES_MAX {
        return Err(too_large());
    }
    if !framing.is_done() {
        return Ok(None);
    }
    Ok(Some((
        request(&head, body),
        head.keep_alive,
        head.head_bytes + used,
    )))
}

fn request(head: &RequestHead<'_, '_>, body: Vec<u8>) -> Request {
    let value = |name: &str| {
        let header = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| header.value)
    };
    let (path, query) = split_target(head.target);
    let bearer = value("authorization").and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme
            .eq_ignore_ascii_case(b"bearer ")
            .then(|| token.trim_ascii().to_vec())
    });
    let content_type = value("content-type").unwrap_or_default();
    let content_type = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    Request {
        method: head.method.to_owned(),
        path,
        query,
        bearer,
        content_type: String::from_utf8_lossy(content_type)
            .trim()
            .to_ascii_lowercase(),
        body,
    }
}

/// Whether a request was addressed to an address rather than to a name that
/// anyone could point here: what keeps a web page from speaking to the API
/// through its visitor's browser.
fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_own_hosts() {
        for own in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9091",
            "[::1]:9091",
            "[::1]",
            "10.0.0.1",
        ] {
            assert!(is_own_host(own), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:9091",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_own_host(other), "{other}");
        }
    }

    #[test]
    fn a_request_is_taken_once_it_is_whole() {
        let text = b"PUT /a?b=c HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\n\
                     Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}GET";
        for end in 0..text.len() - 3 {
            assert!(take_request(&text[..end]).unwrap().is_none(), "{end}");
        }
        let (request, keep_alive, used) = take_request(text).unwrap().unwrap();
        assert!(keep_alive);
        assert_eq!(used, text.len() - 3);
        assert_eq!(request.bearer.as_deref(), Some(b"t".as_slice()));
        assert_eq!(
            (request.content_type.as_str(), request.body.as_slice()),
            ("application/json", b"{}".as_slice())
        );
    }

    #[test]
    fn endless_bodies_are_refused() {
        let text = format!(
            "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            2 << 20
        );
        assert_eq!(take_request(text.as_bytes()).unwrap_err().status, 413);
    }
}
