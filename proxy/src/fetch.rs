//! A small HTTP client for what the proxy asks on its own: health checks and
//! the collector's statistics. One request a connection, everything bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use http1::body::Body;
use http1::request::header_slots;
use http1::response::{Asked, parse_response};
use http1::{Framing, HeadLimits};

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What came is not HTTP/1.
    #[error("{0}")]
    Invalid(#[from] http1::reject::Reject),
    /// The body is not in the chunked coding.
    #[error("{0}")]
    Chunk(#[from] http1::chunked::ChunkError),
    /// The answer is larger than is read.
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer ended early.
    #[error("the answer is cut off")]
    CutOff,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The value of `Host`.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// A bearer token to show; visible ASCII alone.
    pub token: Option<&'a str>,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Question")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Host and port as `Host` has them; an IPv6 address in brackets.
#[must_use]
pub fn authority(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Asks the first of `addresses` that takes a connection, by TLS where it is
/// given, and gives status and body.
///
/// # Errors
/// [`FetchError`] where there is no whole answer in time.
pub async fn get(
    addresses: &[SocketAddr],
    question: Question<'_>,
    timeout: Duration,
    tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
) -> Result<(u16, Vec<u8>), FetchError> {
    let fetching = async {
        let stream = TcpStream::connect(addresses).await?;
        match tls {
            None => exchange(stream, question).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                exchange(connector.connect(name.clone(), stream).await?, question).await
            }
        }
    };
    tokio::time::timeout(timeout, fetching)
        .await
        .map_err(|_| FetchError::Timeout(timeout))?
}

/// Asks over a connection that is open.
///
/// # Errors
/// [`FetchError`] where there is no whole answer.
pub async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Question<'_>,
) -> Result<(u16, Vec<u8>), FetchError> {
    let Question { host, path, token } = question;
    let authorization = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: speedmimi-proxy\r\nAccept: */*\r\n{authorization}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut input = Vec::new();
    let mut ended = false;
    loop {
        if let Some(answer) = complete(&input, ended)? {
            return Ok(answer);
        }
        if ended {
            return Err(FetchError::CutOff);
        }
        if input.len() > ANSWER_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        ended = stream.read_buf(&mut input).await? == 0;
    }
}

/// The answer, once all of it is in `input`.
fn complete(input: &[u8], ended: bool) -> Result<Option<(u16, Vec<u8>)>, FetchError> {
    let mut at = 0;
    loop {
        let mut slots = header_slots();
        let limits = HeadLimits::default();
        let Some(head) = parse_response(&input[at..], &mut slots, limits, Asked::default())? else {
            return Ok(None);
        };
        at += head.head_bytes;
        if head.is_interim() {
            continue;
        }
        let mut body = Body::new(head.framing);
        let mut decoded = Vec::new();
        body.decode(&input[at..], &mut decoded)?;
        let done = body.is_done() || (ended && head.framing == Framing::UntilClose);
        return Ok(done.then_some((head.status, decoded)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_once_its_framing_says_so() {
        let text = b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        for end in 0..text.len() {
            assert!(complete(&text[..end], false).unwrap().is_none(), "{end}");
        }
        assert_eq!(complete(text, false).unwrap(), Some((200, b"hi".to_vec())));
        let open = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert!(complete(open, false).unwrap().is_none());
        assert_eq!(complete(open, true).unwrap(), Some((200, b"abc".to_vec())));
    }
}
