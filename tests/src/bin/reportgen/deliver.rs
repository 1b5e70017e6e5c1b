//! Delivering by gRPC.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use monitor_proto::{
    AUTHORIZATION,
    v1::{self, ExportOutcome, report_service_client::ReportServiceClient},
};
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, transport::Endpoint};

use super::{
    Cli,
    fleet::{Host, Windows},
    pace::Pace,
    samples,
};

/// Reports that one connection sends ahead of their acknowledgements.
const IN_FLIGHT_MAX: usize = 16;

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
struct Delivered {
    reports: u64,
    samples: u64,
    /// From sending each report to its acknowledgement.
    acks: Vec<Duration>,
}

/// Delivers everything; returns a line of JSON.
pub(super) async fn all(cli: &Cli, token: &str) -> Result<serde_json::Value> {
    let windows = Windows::until_now(cli.reports, Duration::from_secs(cli.window));
    let streams = cli.streams.min(cli.hosts);
    let mut hosts: Vec<Vec<Host>> = (0..streams).map(|_| Vec::new()).collect();
    for n in 0..cli.hosts {
        hosts[n % streams].push(Host::new(&cli.prefix, n, cli.endpoints, windows));
    }
    let started = Instant::now();
    let mut first = started;
    let mut tasks = JoinSet::new();
    for hosts in hosts {
        tasks.spawn(stream(cli.clone(), token.to_owned(), hosts, windows, first));
        // Agents do not begin their windows together.
        first += Duration::from_secs(cli.window) / u32::try_from(streams).unwrap_or(1);
    }
    let mut sum = Delivered::default();
    while let Some(done) = tasks.join_next().await {
        let done = done??;
        sum.reports += done.reports;
        sum.samples += done.samples;
        sum.acks.extend(done.acks);
    }
    sum.acks.sort_unstable();
    let last_percent = sum.acks.len() * 99 / 100;
    let p99 = sum.acks.get(last_percent).or(sum.acks.last());
    Ok(serde_json::json!({
        "reports": sum.reports,
        "samples": sum.samples,
        "seconds": started.elapsed().as_secs_f64(),
        "ack_ms_p99": p99.map_or(0.0, |ack| ack.as_secs_f64() * 1e3),
    }))
}

/// One connection: the reports of its hosts, window by window.
async fn stream(
    cli: Cli,
    token: String,
    mut hosts: Vec<Host>,
    windows: Windows,
    first: Instant,
) -> Result<Delivered> {
    let channel = Endpoint::from_shared(format!("http://{}", cli.grpc))?
        .connect()
        .await
        .with_context(|| format!("connecting to {}", cli.grpc))?;
    let (reports, queue) = mpsc::channel(IN_FLIGHT_MAX);
    let mut request = Request::new(ReceiverStream::new(queue));
    let value = format!("Bearer {token}").parse()?;
    request.metadata_mut().insert(AUTHORIZATION, value);
    let mut client = ReportServiceClient::new(channel);
    let expected = cli.reports * hosts.len() as u64;
    let (sent, mut sent_at) = mpsc::unbounded_channel();
    let making = tokio::spawn(async move {
        let mut samples = 0;
        let mut paces: Vec<Pace> = hosts.iter().map(|_| Pace::new(Instant::now())).collect();
        let mut window = first;
        for _ in 0..cli.reports {
            if cli.paced {
                tokio::time::sleep_until(window.into()).await;
                window += Duration::from_secs(cli.window);
            }
            for (host, pace) in hosts.iter_mut().zip(&mut paces) {
                let report = host.next(windows);
                samples += samples::of(&report);
                tokio::time::sleep(pace.wait(report.encoded_len(), Instant::now())).await;
                // A thousand connections share a thread: none may be silent
                // until all reports of the others are made.
                tokio::task::yield_now().await;
                let request = v1::ExportRequest {
                    report: Some(report),
                };
                let now = Instant::now();
                if sent.send(now).is_err() || reports.send(request).await.is_err() {
                    bail!("the collector ended the stream");
                }
            }
        }
        Ok(samples)
    });
    let mut answers = client.export(request).await?.into_inner();
    let mut acknowledged = 0;
    let mut acks = Vec::new();
    while let Some(answer) = answers.message().await? {
        ensure!(
            answer.outcome() == ExportOutcome::Stored,
            "a report was not stored: {answer:?}"
        );
        acknowledged += 1;
        let sent: Option<Instant> = sent_at.recv().await;
        acks.extend(sent.map(|sent| sent.elapsed()));
    }
    let samples = making.await??;
    ensure!(
        acknowledged == expected,
        "{acknowledged} of {expected} reports were acknowledged"
    );
    Ok(Delivered {
        reports: acknowledged,
        samples,
        acks,
    })
}
