//! Parsing and judging a backend's response head.

use httparse::{Header, Status};

use super::fields::{self, ConnectionOptions, Field, classify, content_length};
use super::reject::Reject;
use super::request::HeaderSlots;
use super::{Framing, HEADERS_MAX, HeadLimits, Version, lines_end_in_crlf};

/// What of the request decides how its response is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The request was HEAD.
    pub head: bool,
    /// The request offered a WebSocket upgrade.
    pub upgrade: bool,
}

/// A response's head, checked.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The reason phrase, possibly empty.
    pub reason: &'b str,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the backend lets the connection live on.
    pub keep_alive: bool,
    /// How long the backend keeps the connection, in seconds, where it says so.
    pub idle_seconds: Option<u64>,
    /// Whether the backend sent a `Date`.
    pub dated: bool,
    /// Whether this is a stream of server-sent events.
    pub event_stream: bool,
    /// Every field in its order.
    pub headers: &'h [Header<'b>],
    /// What each of `headers` means.
    pub kinds: [Field; HEADERS_MAX],
    /// Bytes of the head in the input, the empty line included.
    pub head_bytes: usize,
}

impl ResponseHead<'_, '_> {
    /// Whether another head follows (1xx other than 101).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Parses a head from the beginning of `input`; `None` while it is incomplete.
///
/// # Errors
/// A [`Reject`] with the 502 to answer; the backend's connection must be closed.
pub fn parse_response<'h, 'b>(
    input: &'b [u8],
    slots: &'h mut HeaderSlots<'b>,
    limits: HeadLimits,
    context: RequestContext,
) -> Result<Option<ResponseHead<'h, 'b>>, Reject> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let mut response = httparse::Response::new(&mut []);
    let slots = &mut slots[..limits.headers_max.min(HEADERS_MAX)];
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, window, slots);
    let head_bytes = match parsed {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) if window.len() == limits.head_bytes_max => {
            return Err(Reject::ResponseHeadTooLarge);
        }
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::ResponseHeadTooLarge),
        Err(_) => return Err(Reject::ResponseInvalid),
    };
    if !lines_end_in_crlf(&window[..head_bytes]) {
        return Err(Reject::ResponseInvalid);
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(Reject::ResponseInvalid);
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let reason = response.reason.unwrap_or("");
    validate(
        status,
        reason,
        version,
        response.headers,
        context,
        head_bytes,
    )
    .map(Some)
}

fn validate<'h, 'b>(
    status: u16,
    reason: &'b str,
    version: Version,
    headers: &'h [Header<'b>],
    context: RequestContext,
    head_bytes: usize,
) -> Result<ResponseHead<'h, 'b>, Reject> {
    if status < 100 {
        return Err(Reject::ResponseInvalid);
    }
    if status == 101 && !context.upgrade {
        return Err(Reject::UpgradeUnasked);
    }
    let mut kinds = [Field::EndToEnd; HEADERS_MAX];
    for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
        *kind = classify(header.name);
    }
    let mut options = ConnectionOptions::default();
    let (mut length, mut coding, mut dated, mut event_stream) = (None, false, false, false);
    let mut idle_seconds = None;
    for (index, header) in headers.iter().enumerate() {
        match kinds[index] {
            Field::ContentLength if length.is_some() => return Err(Reject::ResponseInvalid),
            Field::ContentLength => {
                length = Some(content_length(header.value).ok_or(Reject::ResponseInvalid)?);
            }
            Field::TransferEncoding => {
                let known = !coding && header.value.eq_ignore_ascii_case(b"chunked");
                if !known || version == Version::Http10 {
                    return Err(Reject::ResponseInvalid);
                }
                coding = true;
            }
            Field::Connection => options
                .read(header.value, headers, &mut kinds)
                .ok_or(Reject::ResponseInvalid)?,
            Field::KeepAlive => idle_seconds = fields::idle_seconds(header.value),
            Field::Date => dated = true,
            Field::ContentType => event_stream = is_event_stream(header.value),
            _ => {}
        }
    }
    if coding && length.is_some() {
        return Err(Reject::ResponseInvalid);
    }
    let framing = framing(status, context, length, coding);
    let keep_alive = framing != Framing::UntilClose
        && !options.close
        && (version == Version::Http11 || options.keep_alive);
    Ok(ResponseHead {
        status,
        reason,
        framing,
        keep_alive,
        idle_seconds,
        dated,
        event_stream,
        headers,
        kinds,
        head_bytes,
    })
}

/// RFC 9112, section 6.3, in its order.
fn framing(status: u16, context: RequestContext, length: Option<u64>, coding: bool) -> Framing {
    if context.head || status < 200 || status == 204 || status == 304 {
        Framing::Empty
    } else if coding {
        Framing::Chunked
    } else {
        length.map_or(Framing::UntilClose, Framing::Length)
    }
}

fn is_event_stream(content_type: &[u8]) -> bool {
    let kind = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::super::request::header_slots;
    use super::*;

    fn parse(text: &str, context: RequestContext) -> Result<(u16, Framing, bool), Reject> {
        let mut slots = header_slots();
        let head = parse_response(text.as_bytes(), &mut slots, HeadLimits::default(), context)?
            .expect("the head is complete");
        Ok((head.status, head.framing, head.keep_alive))
    }

    fn plain(text: &str) -> Result<(u16, Framing, bool), Reject> {
        parse(text, RequestContext::default())
    }

    #[test]
    fn framing_follows_status_and_method() {
        let head = RequestContext {
            head: true,
            upgrade: false,
        };
        let five = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(plain(five), Ok((200, Framing::Length(5), true)));
        assert_eq!(parse(five, head), Ok((200, Framing::Empty, true)));
        for status in [204, 304] {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(plain(&text), Ok((status, Framing::Empty, true)));
        }
        assert_eq!(
            plain("HTTP/1.1 200 OK\r\n\r\n"),
            Ok((200, Framing::UntilClose, false))
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(plain(chunked), Ok((200, Framing::Chunked, true)));
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(plain(old), Ok((200, Framing::Length(5), false)));
    }

    #[test]
    fn ambiguous_answers_are_a_bad_gateway() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: x\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "A : b\r\n",
            "A: b\r\n c\r\n",
            "A: b\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(plain(&text), Err(Reject::ResponseInvalid), "{fields:?}");
        }
        assert_eq!(
            plain("HTTP/1.1 099 X\r\n\r\n"),
            Err(Reject::ResponseInvalid)
        );
        assert_eq!(plain("SSH-2.0-x\r\n\r\n"), Err(Reject::ResponseInvalid));
        assert_eq!(plain("HTTP/1.1 101 S\r\n\r\n"), Err(Reject::UpgradeUnasked));
    }
}
