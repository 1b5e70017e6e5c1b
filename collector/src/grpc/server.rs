//! The gRPC server and the bounds of one connection.

use std::{io, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Error, Server};

use super::{Ingest, Query, receive_timeout::ReceiveTimeout, stream_tracking::StreamTracking};
use crate::{
    listen::Connection,
    stop::{Stopping, stopped},
};

/// A peer that does not answer a ping within the timeout is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one connection at once: an agent has one, a reader a few.
const STREAMS_MAX: u32 = 256;
/// Ours have less than a tenth of it.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What a connection keeps of what nobody has asked for yet: a report of a thousand
/// endpoints.
const WINDOW_BYTES: u32 = 256 << 10;
/// Streams that were reset before they were looked at; more is an attack.
const RESETS_MAX: usize = 64;

/// Serves until the collector stops.
pub(crate) async fn serve(
    connections: mpsc::Receiver<Connection>,
    ingest: Ingest,
    query: Query,
    mut stopping: Stopping,
) -> Result<(), Error> {
    let budget = ingest.budget.clone();
    let reports = ReceiveTimeout::streams(ingest.into_server(), &budget);
    let questions = ReceiveTimeout::questions(query.into_server(), &budget);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_header_list_size(Some(HEADERS_BYTES_MAX))
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .initial_stream_window_size(Some(WINDOW_BYTES))
        .initial_connection_window_size(Some(WINDOW_BYTES))
        .add_service(StreamTracking::acknowledgements(reports))
        .add_service(StreamTracking::answers(questions, budget))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections).map(Ok::<_, io::Error>),
            async move { stopped(&mut stopping).await },
        )
        .await
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Arc, atomic::Ordering::Relaxed},
    };

    use budget::{Budget, Use};
    use daemon::token::{Side, Token};
    use monitor_proto::v1::{
        self, query_service_client::QueryServiceClient, report_service_client::ReportServiceClient,
    };
    use query::{Pool, QueryBackend, Readers};
    use store::{Fleet, Live, Published, Retention, Writer};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::{Semaphore, watch},
        time::{sleep, timeout},
    };
    use tonic::{Code, Request, Streaming, transport::Endpoint};

    use super::*;
    use crate::{
        auth::Access,
        listen::{Bounds, Listener},
        problems::Judgement,
        self_stats::SelfStats,
        tls::Protocol,
        tokens::Tokens,
    };

    const TOKEN: &str = "0123456789abcdef";
    const DEADLINE: Duration = Duration::from_secs(30);
    const IDLE_MAX: Duration = Duration::from_secs(1);
    /// What HTTP/2 begins with, and an empty SETTINGS frame.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

    /// A whole server that allows so much idleness; its address, figures and budget.
    async fn started(dir: &Path, stopping: Stopping) -> (String, Arc<SelfStats>, Budget) {
        let store = dir.join("collector.db");
        let budget = Budget::new(64 << 20);
        let stats = Arc::new(SelfStats::new::<&str, &str>(&[], &[]));
        let published = Published {
            fleet: Fleet::default(),
            live: Live::new(budget.clone()),
            stats: Arc::clone(&stats.store),
            budget: budget.clone(),
        };
        let retention = Retention {
            age: DEADLINE,
            bytes: 1 << 30,
            accept_clock: false,
        };
        let (writer, _) = Writer::start(&store, &published, 1, retention).unwrap();
        let general = Token::try_new(TOKEN, "a test", Side::Requires).unwrap();
        let ingest = Ingest {
            writer,
            access: Arc::new(Access::new(general, Tokens::open(dir).unwrap())),
            stats: Arc::clone(&stats),
            budget: budget.clone(),
            rates: Arc::default(),
            streams: Arc::default(),
            stopping: stopping.clone(),
        };
        let query = Query {
            judgement: Judgement::start(
                published.fleet.clone(),
                budget.clone(),
                problems::Thresholds::default(),
            )
            .unwrap(),
            query_backend: QueryBackend::Store(
                published.fleet,
                Readers::start(&store, Arc::default()).unwrap(),
            ),
            live: published.live,
            stats: Arc::clone(&stats),
            budget: budget.clone(),
            pool: Pool::start().unwrap(),
            stopping: stopping.clone(),
            access: None,
            looks: Arc::new(Semaphore::new(1)),
        };
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        let listener = Listener {
            tcp,
            tls: None,
            protocol: Protocol::Grpc,
            connections_max: 10,
            bounds: Bounds {
                idle_max: IDLE_MAX,
                ..Bounds::default()
            },
            stats: Arc::clone(&stats),
        };
        let connections = listener.connections(stopping.clone());
        tokio::spawn(serve(connections, ingest, query, stopping));
        (address, stats, budget)
    }

    /// Until it is closed.
    async fn only_pings(address: &str) {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(PREFACE).await.unwrap();
        let (mut from, mut to) = peer.split();
        let ping = async {
            while to.write_all(PING).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let read = async {
            let mut answers = [0; 1024];
            while from.read(&mut answers).await.is_ok_and(|n| n > 0) {}
        };
        tokio::join!(ping, read);
    }

    /// Asks with no room for an answer, until it is closed.
    async fn takes_nothing(endpoint: Endpoint) {
        let channel = endpoint.initial_stream_window_size(0).connect().await;
        let mut client = QueryServiceClient::new(channel.unwrap());
        let asked = client.list_hosts(v1::ListHostsRequest::default()).await;
        asked.unwrap_err();
    }

    /// An agent's stream, and its answers.
    async fn exporting(
        endpoint: &Endpoint,
    ) -> (
        mpsc::Sender<v1::ExportRequest>,
        Streaming<v1::ExportResponse>,
    ) {
        let mut client = ReportServiceClient::new(endpoint.connect().await.unwrap());
        let (reports, queue) = mpsc::channel(1);
        let mut export = Request::new(ReceiverStream::new(queue));
        let authorization = format!("Bearer {TOKEN}").parse().unwrap();
        export.metadata_mut().insert("authorization", authorization);
        (reports, client.export(export).await.unwrap().into_inner())
    }

    #[tokio::test]
    async fn connections_without_a_stream_that_waits_are_closed_and_a_quiet_agent_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let (address, stats, _) = started(dir.path(), stopping).await;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();

        let (reports, mut answers) = exporting(&endpoint).await;
        timeout(DEADLINE, only_pings(&address)).await.unwrap();
        timeout(DEADLINE, takes_nothing(endpoint)).await.unwrap();
        sleep(2 * IDLE_MAX).await;
        assert_eq!(stats.grpc_connections.load(Relaxed), 1, "the agent's");
        reports.send(v1::ExportRequest::default()).await.unwrap();
        let answer = timeout(DEADLINE, answers.message()).await.unwrap();
        assert!(answer.unwrap().is_some());
    }

    #[tokio::test]
    async fn agents_are_acknowledged_while_readers_have_all_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let (address, _, budget) = started(dir.path(), stopping).await;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        // The share is a quarter, of which each of two readers has one half.
        let half = budget.limit() / 8;
        let readers = ["127.0.0.2", "127.0.0.3"];
        let _held = readers.map(|peer| budget.take(Use::Answers, &peer.into(), half).unwrap());

        let mut reader = QueryServiceClient::new(endpoint.connect().await.unwrap());
        let refused = reader.list_hosts(v1::ListHostsRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
        let (reports, mut answers) = exporting(&endpoint).await;
        for _ in 0..2 {
            reports.send(v1::ExportRequest::default()).await.unwrap();
            let answer = timeout(DEADLINE, answers.message()).await.unwrap();
            assert!(answer.unwrap().is_some());
        }
        assert_eq!(budget.used(Use::Answers), 2 * half);
    }
}
