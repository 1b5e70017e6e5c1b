//! The HTTP/1.1 server and the bounds of one connection.

use std::{io, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::sync::mpsc;

use crate::listen::Connection;

/// The longest that a request's head may take; also how long a connection may
/// wait for its next request.
const HEAD_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
/// Of a request's head, and of what waits to be sent.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Serves until there is no connection to come, and then ends what is open.
pub(super) async fn serve(
    mut connections: mpsc::Receiver<Connection>,
    router: Router,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    while let Some(connection) = connections.recv().await {
        let service = router.clone().layer(Extension(connection.peer().clone()));
        let served =
            http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
        let served = graceful.watch(served);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "an HTTP connection failed");
            }
        });
    }
    graceful.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering::Relaxed};

    use axum::{body::Bytes, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::watch,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::{
        listen::{Bounds, Listener},
        self_stats::SelfStats,
        tls::Protocol,
    };

    #[tokio::test]
    async fn an_answer_that_is_not_taken_is_given_up() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let stats = Arc::new(SelfStats::new::<&str, &str>(&[], &[]));
        let listener = Listener {
            tcp,
            tls: None,
            protocol: Protocol::Http,
            connections_max: 1,
            bounds: Bounds {
                stall_max: Duration::from_millis(100),
                ..Bounds::default()
            },
            stats: Arc::clone(&stats),
        };
        // More than the buffers of both ends hold.
        let answer: Arc<[u8]> = vec![0; 64 << 20].into();
        let held = Arc::downgrade(&answer);
        let router = Router::new().route(
            "/",
            get(async move || Bytes::from_owner(Arc::clone(&answer))),
        );
        let (stop, stopping) = watch::channel(false);
        let server = tokio::spawn(serve(listener.connections(stopping), router));

        let mut reader = TcpStream::connect(address).await.unwrap();
        let question = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        reader.write_all(question).await.unwrap();
        let mut head = [0; 12];
        reader.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let given_up = async {
            while stats.http_connections.load(Relaxed) > 0 || held.strong_count() > 1 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), given_up).await.unwrap();
        stop.send_replace(true);
        server.await.unwrap().unwrap();
    }
}
