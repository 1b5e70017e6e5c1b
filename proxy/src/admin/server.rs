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
use http1::body::Body;
use http1::request::{RequestHead, header_slots, parse_request};
use http1::{Framing, HeadLimits};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The longest wait for a request, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read behind a request that ends its connection: in all, at once, and for
/// how long.
const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
const DISCARDED_AT_ONCE: usize = 16 << 10;
const DISCARD_PATIENCE: Duration = Duration::from_secs(2);

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
        let admit = |request: &Request| api::admit(control, sign.is_loopback, request);
        let reading = read_request(&mut stream, &mut input, admit);
        let read = tokio::time::timeout(PATIENCE, reading).await;
        if !sign.is_open() {
            return;
        }
        let (reply, keep_alive) = match read {
            Err(_) | Ok(Ok(None)) => return,
            Ok(Ok(Some((request, keep_alive)))) => {
                let handled = api::handle(control, &request).await;
                let reply = handled.unwrap_or_else(|reply| reply);
                (reply, keep_alive && sign.is_open())
            }
            Ok(Err(reply)) => (reply, false),
        };
        let bytes = reply.bytes(keep_alive);
        let sent = tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await;
        if !matches!(sent, Ok(Ok(()))) || !keep_alive {
            drop(stream.shutdown().await);
            discard(&mut stream).await;
            return;
        }
    }
}

/// Reads what still comes, without a look at it: the answer to a request whose
/// body was not read would be lost to a reset.
async fn discard(stream: &mut TcpStream) {
    let reading = async {
        let mut input = vec![0; DISCARDED_AT_ONCE];
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(bytes @ 1..) = stream.read(&mut input).await
            && left > bytes
        {
            left -= bytes;
        }
    };
    // Whether it came to its end makes no difference.
    drop(tokio::time::timeout(DISCARD_PATIENCE, reading).await);
}

/// Reads one request; `None` at the end of the connection. What follows it
/// stays in `input`. Its body is read only once `admit` has seen its head.
async fn read_request(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    admit: impl Fn(&Request) -> Result<(), Reply>,
) -> Result<Option<(Request, bool)>, Reply> {
    let (mut request, mut framing, keep_alive) = loop {
        if let Some(head) = take_head(input)? {
            break head;
        }
        if !read_more(stream, input).await {
            return Ok(None);
        }
    };
    admit(&request)?;
    let mut wire_bytes = 0;
    loop {
        wire_bytes += take_body(input, &mut framing, &mut request.body)?;
        if request.body.len() > BODY_BYTES_MAX || wire_bytes > 2 * BODY_BYTES_MAX {
            return Err(too_large());
        }
        if framing.is_done() {
            return Ok(Some((request, keep_alive)));
        }
        if !read_more(stream, input).await {
            return Ok(None);
        }
    }
}

/// Whether there was more.
async fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(input).await, Ok(1..))
}

fn too_large() -> Reply {
    Reply::error(413, format!("a body may have {BODY_BYTES_MAX} bytes"))
}

/// Takes the head at the beginning of `input`, once it is whole: a request
/// without its body, where that ends, and whether the connection lives on.
fn take_head(input: &mut Vec<u8>) -> Result<Option<(Request, Body, bool)>, Reply> {
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
    if matches!(head.framing, Framing::Length(bytes) if bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let taken = (request(&head), Body::new(head.framing), head.keep_alive);
    let head_bytes = head.head_bytes;
    input.drain(..head_bytes);
    Ok(Some(taken))
}

/// Takes what `input` begins with of a body; gives how many bytes of the wire.
fn take_body(input: &mut Vec<u8>, framing: &mut Body, body: &mut Vec<u8>) -> Result<usize, Reply> {
    let used = framing
        .decode(input, body)
        .map_err(|error| Reply::error(400, error.to_string()))?;
    input.drain(..used);
    Ok(used)
}

/// What the API looks at of a head.
fn request(head: &RequestHead<'_, '_>) -> Request {
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
        body: Vec::new(),
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
        let head = "PUT /a?b=c HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\n\
                     Content-Type: application/json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
        for end in 0..head.len() {
            let mut input = head.as_bytes()[..end].to_vec();
            assert!(take_head(&mut input).unwrap().is_none(), "{end}");
        }
        let mut input = head.as_bytes().to_vec();
        let (mut request, mut framing, keep_alive) = take_head(&mut input).unwrap().unwrap();
        assert!(keep_alive && input.is_empty());
        assert_eq!(request.bearer.as_deref(), Some(b"t".as_slice()));
        assert_eq!(request.content_type, "application/json");
        let mut wire = 0;
        for byte in *b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n" {
            assert!(!framing.is_done());
            input.push(byte);
            wire += take_body(&mut input, &mut framing, &mut request.body).unwrap();
        }
        assert!(framing.is_done() && input.is_empty());
        assert_eq!((request.body.as_slice(), wire), (b"{}".as_slice(), 17));
    }

    #[test]
    fn endless_bodies_are_refused() {
        let text = format!(
            "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            2 << 20
        );
        let refused = take_head(&mut text.into_bytes()).err();
        assert_eq!(refused.map(|reply| reply.status), Some(413));
    }
}
