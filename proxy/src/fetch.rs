//! The HTTP client for what the proxy asks on its own: health checks and the
//! collector's statistics. One request a connection, everything bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of a body that are read at most.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes that are buffered at most; a head has to fit.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The request cannot be written.
    #[error("the request is not valid: {0}")]
    Request(#[from] hyper::http::Error),
    /// The answer is not HTTP/1, or is cut off.
    #[error("{}", daemon::error_chain(.0))]
    Http(#[from] hyper::Error),
    /// The answer is larger than is read.
    #[error("the body of the answer is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The value of `Host`.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// A bearer token to show; visible ASCII alone.
    pub token: Option<&'a str>,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Target")
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
    target: Target<'_>,
    timeout: Duration,
    tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
) -> Result<(u16, Vec<u8>), FetchError> {
    let fetching = async {
        let stream = TcpStream::connect(addresses).await?;
        match tls {
            None => exchange(stream, target).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                exchange(connector.connect(name.clone(), stream).await?, target).await
            }
        }
    };
    tokio::time::timeout(timeout, fetching)
        .await
        .map_err(|_| FetchError::Timeout(timeout))?
}

/// Asks over a connection that is open.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    target: Target<'_>,
) -> Result<(u16, Vec<u8>), FetchError> {
    let mut request = hyper::Request::get(target.path)
        .header(header::HOST, target.host)
        .header(header::USER_AGENT, "speedmimi-proxy")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    if let Some(token) = target.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut answering = std::pin::pin!(async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX);
        let body = body.collect().await.map_err(|error| {
            let error = error.downcast::<hyper::Error>();
            error.map_or(FetchError::TooLarge, |error| FetchError::Http(*error))
        })?;
        Ok((status, body.to_bytes().to_vec()))
    });
    // The connection has to be polled for the answer to come, and may end before
    // all of it was looked at.
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What is made of an answer that comes in pieces of so many bytes, and the
    /// request.
    fn ask_in(pieces: usize, answer: &[u8]) -> (Result<(u16, Vec<u8>), FetchError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = duplex(pieces);
            let target = Target {
                host: "h:1",
                path: "/a?b",
                token: Some("t"),
            };
            let serving = async {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(far.read_u8().await.unwrap());
                }
                // Who has read enough closes.
                drop(far.write_all(answer).await);
                drop(far);
                String::from_utf8(request).unwrap()
            };
            tokio::join!(exchange(near, target), serving)
        })
    }

    fn ask(answer: &[u8]) -> (Result<(u16, Vec<u8>), FetchError>, String) {
        ask_in(1, answer)
    }

    #[test]
    fn an_answer_is_whole_once_its_framing_says_so() {
        let (answer, request) = ask(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n\
            Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        assert_eq!(answer.unwrap(), (200, b"hi".to_vec()));
        let (line, fields) = request.split_once("\r\n").unwrap();
        assert_eq!(line, "GET /a?b HTTP/1.1");
        let fields = fields.to_ascii_lowercase();
        for field in ["host: h:1", "authorization: bearer t", "connection: close"] {
            assert!(fields.contains(field), "{request}");
        }
        let (answer, _) = ask(b"HTTP/1.1 404 N\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(answer.unwrap(), (404, b"abc".to_vec()));
        let (answer, _) = ask(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
        assert_eq!(answer.unwrap(), (200, b"until the end".to_vec()));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        for cut in [
            &b"HTTP/1.1 200 OK\r\nContent-Le"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            b"",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert!(matches!(ask(cut).0, Err(FetchError::Http(_))), "{cut:?}");
        }
    }

    #[test]
    fn endless_answers_are_given_up() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let body = [head, vec![b'x'; BODY_BYTES_MAX + 1]].concat();
        assert!(matches!(ask_in(4096, &body).0, Err(FetchError::TooLarge)));
        let head = [
            b"HTTP/1.1 200 OK\r\nA: ".to_vec(),
            vec![b'x'; 2 * BUFFER_BYTES_MAX],
        ];
        assert!(matches!(
            ask_in(4096, &head.concat()).0,
            Err(FetchError::Http(_))
        ));
    }
}
