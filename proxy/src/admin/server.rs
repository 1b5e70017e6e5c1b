//! Connections of the admin API.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::api;
use super::message::{Reply, Request};
use crate::control::{AdminSocket, Control};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Bytes and fields of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 100;
/// Bytes that a connection buffers.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What is read behind a request that ends its connection: in all, at once, and for
/// how long.
const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
const DISCARDED_AT_ONCE: usize = 16 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
struct Timeouts {
    /// To send a head, and to send a body.
    read: Duration,
    /// To take all of an answer.
    write: Duration,
}

const TIMEOUTS: Timeouts = Timeouts {
    read: Duration::from_secs(10),
    write: Duration::from_secs(10),
};

/// Serves the API on `socket` until that closes. Must be called within a runtime.
pub fn spawn(control: Arc<Control>, socket: AdminSocket) {
    drop(tokio::spawn(async move {
        let AdminSocket {
            listener,
            is_loopback,
            mut closing,
        } = socket;
        let api = Api {
            control,
            is_loopback,
            closing: closing.clone(),
        };
        tokio::select! {
            () = accept(listener, api) => {}
            _ = closing.changed() => {}
        }
    }));
}

/// What a connection needs to answer requests.
#[derive(Clone)]
struct Api {
    control: Arc<Control>,
    is_loopback: bool,
    closing: watch::Receiver<()>,
}

async fn accept(listener: TcpListener, api: Api) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let api = api.clone();
                tokio::spawn(async move {
                    serve(stream, |request| api.answer(request), TIMEOUTS).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until it ends.
async fn serve<F, A, E>(mut stream: TcpStream, answer: F, timeouts: Timeouts)
where
    F: Fn(hyper::Request<Incoming>) -> A,
    A: Future<Output = Result<hyper::Response<Full<Bytes>>, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Until when the latest answer has to be taken; `None` while a request is handled.
    let (deadline, deadlines) = watch::channel(None);
    let service = service_fn(|request| {
        let answering = answer(request);
        async {
            deadline.send_replace(None);
            let answer = answering.await;
            // The next head has its own time from the end of this answer on.
            deadline.send_replace(Some(Instant::now() + timeouts.write + timeouts.read));
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.read)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(&mut stream), service);
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection failed");
            }
        }
        () = overdue(deadlines) => {
            tracing::debug!("an admin connection's client takes its answer too slowly");
        }
    }
    discard(&mut stream).await;
}

/// Ends once a deadline has passed. A client that takes an answer byte by byte
/// would hold its connection, one of few, for as long as it likes.
async fn overdue(mut deadlines: watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *deadlines.borrow_and_update();
        let changed = deadlines.changed();
        let changed = match deadline {
            None => Ok(changed.await),
            Some(deadline) => timeout_at(deadline, changed).await,
        };
        let Ok(Ok(())) = changed else { return };
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
    drop(tokio::time::timeout(DISCARD_TIMEOUT, reading).await);
}

impl Api {
    /// Answers one request; `Err` ends the connection without an answer.
    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
    ) -> io::Result<hyper::Response<Full<Bytes>>> {
        let read = self.read(request).await;
        if self.is_closing() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(match read {
            // The rest of the request is not read, so nothing can follow it.
            Err(refusal) => refusal.into_response(true),
            Ok(request) => {
                let reply = api::handle(&self.control, &request).await;
                let reply = reply.unwrap_or_else(|reply| reply);
                reply.into_response(self.is_closing())
            }
        })
    }

    fn is_closing(&self) -> bool {
        self.closing.has_changed().is_err()
    }

    /// Reads a request. Its body is read only once its head was admitted.
    async fn read(&self, request: hyper::Request<Incoming>) -> Result<Request, Reply> {
        let (head, body) = request.into_parts();
        let mut request = Request::new(&head)?;
        api::admit(&self.control, self.is_loopback, &request)?;
        request.body = read_body(body, TIMEOUTS.read).await?;
        Ok(request)
    }
}

async fn read_body(body: Incoming, within: Duration) -> Result<Bytes, Reply> {
    let too_large = || {
        Reply::error(
            413,
            format!("the body is larger than {BODY_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(within, reading).await {
        Err(_) => Err(Reply::error(
            408,
            format!("the body did not arrive within {within:?}"),
        )),
        Ok(Err(error)) if error.is::<hyper::Error>() => Err(Reply::error(
            400,
            format!("the body cannot be read: {error}"),
        )),
        Ok(Err(_)) => Err(too_large()),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const SHORT: Timeouts = Timeouts {
        read: Duration::from_millis(100),
        write: Duration::from_millis(100),
    };
    /// Only a test that fails waits for so long.
    const WAIT: Duration = Duration::from_secs(20);
    const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    /// More than the kernel buffers for both sides, and far more than is read slowly
    /// before the test fails.
    const ANSWER_BYTES: usize = 64 << 20;

    /// Serves one connection with answers of so many bytes, until it ends, while
    /// its client sends `request` and reads as `reading` does.
    fn serves_until_the_end(
        request: &'static str,
        answer_bytes: usize,
        reading: impl AsyncFnOnce(TcpStream),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let answer = |_| async move {
                let body = Full::from(vec![b'x'; answer_bytes]);
                Ok::<_, Infallible>(hyper::Response::new(body))
            };
            let serving = tokio::time::timeout(WAIT, serve(stream, answer, SHORT));
            tokio::select! {
                ended = serving => assert!(ended.is_ok(), "the connection is served for ever"),
                () = reading(client) => panic!("the client came to its end first"),
            }
        });
    }

    async fn read_nothing(_client: TcpStream) {
        std::future::pending::<()>().await;
    }

    /// Takes a little again and again: each time the kernel acknowledges something.
    async fn read_slowly(mut client: TcpStream) {
        let mut input = vec![0; 64 << 10];
        while let Ok(1..) = client.read(&mut input).await {
            tokio::time::sleep(SHORT.write / 2).await;
        }
        std::future::pending::<()>().await;
    }

    #[test]
    fn a_client_that_takes_no_answer_is_given_up() {
        serves_until_the_end(GET, ANSWER_BYTES, read_nothing);
    }

    #[test]
    fn a_client_that_takes_its_answer_slowly_is_given_up() {
        serves_until_the_end(GET, ANSWER_BYTES, read_slowly);
    }

    #[test]
    fn a_head_that_does_not_end_is_given_up() {
        serves_until_the_end("GET / HTTP/1.1\r\nHost: loc", 0, read_nothing);
    }

    #[test]
    fn a_client_without_a_further_request_is_given_up() {
        serves_until_the_end(GET, 1, read_nothing);
    }
}
