//! `GET /metrics` over HTTP/1.1, for a scraper or two.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::Source;

/// Connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 16;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last; scrapers open another one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// The largest head, and what waits to be sent.
const BUFFER_BYTES: usize = 16 << 10;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, source: Source) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the metrics' socket fails");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let source = source.clone();
        tokio::spawn(async move {
            timeout(CONNECTION_TIMEOUT, connection(stream, source))
                .await
                .ok();
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, source: Source) {
    let service = service_fn(|request| {
        let response = answer(&request, &source);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES);
    let served = http.serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

fn answer(request: &Request<Incoming>, source: &Source) -> Response<String> {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, body) = match request.uri().path() {
        "/metrics" if get => (StatusCode::OK, source.text()),
        "/metrics" => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD");
        headers.insert(ALLOW, allowed);
    }
    response
}
