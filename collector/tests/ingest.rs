//! Reports come in, are durable, and are told apart.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, Collector, DEADLINE, report};
use jiff::Timestamp;
use monitor_proto::v1::{self, ExportOutcome};
use prost::Message as _;

#[tokio::test]
async fn a_report_is_read_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);

    let answer = collector.json("/api/v1/reports?host=web");
    let expected = monitor_proto::json::Report::from(&report("web", 1));
    assert_eq!(
        answer["reports"][0],
        serde_json::to_value(expected).unwrap()
    );
    assert!(answer["next_cursor"].is_null());

    let hosts = collector.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"][0]["host"]["id"], "id-web");
    assert_eq!(hosts["hosts"][0]["host"]["labels"]["region"], "north");
    assert_eq!(hosts["hosts"][0]["reports"], 1);
    let stats = collector.json("/api/v1/hosts/id-web/stats");
    assert_eq!(stats["stats"]["cpu_usage"], 12.5);
    assert_eq!(stats["stats"]["timestamp"], 1_763_860_010);
    assert_eq!(collector.json("/api/v1/hosts/web/stats"), stats);
}

/// How many times to kill: `SPEEDMIMI_KILL_ROUNDS`, or what fits into 20 s.
fn kill_rounds() -> impl Iterator<Item = u64> {
    let asked: Option<u64> = std::env::var("SPEEDMIMI_KILL_ROUNDS")
        .ok()
        .map(|text| text.parse().unwrap());
    let begun = Instant::now();
    (0..).take_while(move |&round| match asked {
        Some(rounds) => round < rounds,
        None => round < 5 || begun.elapsed() < Duration::from_secs(20),
    })
}

#[tokio::test]
async fn every_acked_report_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut acked, mut rounds) = (0u64, 0);
    let mut token = String::new();
    for round in kill_rounds() {
        let collector = Collector::start(dir.path());
        let mut stored = 0;
        if round > 0 {
            assert_eq!(collector.token, token, "the token stays the same");
            let host = &collector.json("/api/v1/hosts")["hosts"][0];
            stored = host["reports"].as_u64().unwrap();
            assert!(
                stored >= acked,
                "round {round}: {stored} of {acked} acked reports are there"
            );
            assert_eq!(host["missing_reports"], 0, "round {round}");
            // Those of the round before, one by one.
            let since = report("web", stored.saturating_sub(100)).window_end_unix_ns;
            let since = Timestamp::from_nanosecond(since.into()).unwrap();
            let recent = collector.all_reports(&format!("host=web&limit=1000&since={since}"));
            let sequences: Vec<_> = recent
                .iter()
                .map(|report| report["sequence"].as_u64().unwrap())
                .collect();
            let first = stored.saturating_sub(100).max(1);
            assert_eq!(sequences, (first..=stored).collect::<Vec<_>>());
        }
        token.clone_from(&collector.token);
        let mut agent = collector.agent().await;
        // More are sent than answers are awaited: the kill falls among them, at
        // another place in each round.
        for sequence in stored + 1..=stored + 60 {
            agent.send(report("web", sequence)).await;
        }
        for _ in 0..=round % 50 {
            acked = agent.answer().await.unwrap().sequence;
        }
        collector.kill_9();
        rounds += 1;
    }
    eprintln!("{rounds} rounds of kill -9, {acked} reports acknowledged");
    let collector = Collector::start(dir.path());
    let all = collector.all_reports("host=web&limit=1000");
    assert!(all.len() as u64 >= acked);
    for (report, sequence) in all.iter().zip(1u64..) {
        assert_eq!(report["sequence"], sequence);
    }
}

#[tokio::test]
async fn duplicates_conflicts_and_late_reports_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in [5, 2, 9] {
        assert_eq!(
            agent.export(report("web", sequence)).await,
            ExportOutcome::Stored
        );
    }
    assert_eq!(
        agent.export(report("web", 5)).await,
        ExportOutcome::Duplicate
    );
    let mut other = report("web", 5);
    other.endpoints[0].connections_active = 77;
    assert_eq!(agent.export(other.clone()).await, ExportOutcome::Conflict);
    assert_eq!(agent.export(other).await, ExportOutcome::Conflict);
    // The same sequence of another epoch is another report.
    let mut later = report("web", 5);
    later.agent.as_mut().unwrap().epoch += 1;
    later.window_end_unix_ns = report("web", 10).window_end_unix_ns;
    assert_eq!(agent.export(later).await, ExportOutcome::Stored);

    let reports = collector.all_reports("");
    let order: Vec<_> = reports
        .iter()
        .map(|r| r["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [2, 5, 9, 5]);
    assert_eq!(
        reports[1]["endpoints"][0]["connections_active"], 3,
        "the first body is kept"
    );
    let host = &collector.json("/api/v1/hosts")["hosts"][0];
    assert_eq!(host["conflicts"], 2);
    assert_eq!(host["reports"], 4);
    assert_eq!(host["agent"]["epoch"], 1_763_860_000_124u64);
    assert_eq!(host["missing_reports"], 0);
    let metrics = collector.get("/metrics").body;
    assert!(metrics.contains("speedmimi_collector_reports_total{outcome=\"conflict\"} 2\n"));
    assert!(metrics.contains("speedmimi_collector_reports_total{outcome=\"duplicate\"} 1\n"));
}

#[tokio::test]
async fn gaps_are_counted_and_filled() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let missing = |c: &Collector| c.json("/api/v1/hosts")["hosts"][0]["missing_reports"].clone();
    for sequence in [1, 2, 6] {
        agent.export(report("web", sequence)).await;
    }
    assert_eq!(missing(&collector), 3);
    agent.export(report("web", 4)).await;
    assert_eq!(missing(&collector), 2);
}

#[tokio::test]
async fn without_the_token_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for authorization in ["", "Bearer wrong", "Bearer ", &collector.token.clone()] {
        let refused = Agent::connect(&collector, authorization).await;
        let code = refused.err().map(|status| status.code());
        assert_eq!(
            code,
            Some(tonic::Code::Unauthenticated),
            "{authorization:?}"
        );
    }
    assert!(collector.all_reports("").is_empty());
    let metrics = collector.get("/metrics").body;
    assert!(metrics.contains("speedmimi_collector_refused_total{reason=\"unauthenticated\"} 4\n"));
}

#[tokio::test]
async fn a_report_that_breaks_a_rule_is_rejected_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut no_host = report("web", 1);
    no_host.host = None;
    let mut long = report("web", 2);
    long.endpoints[0].address = "x".repeat(5000);
    let mut overflow = report("web", 3);
    let window = overflow.endpoints[0].window.as_mut().unwrap();
    window.connect_duration = Some(v1::Histogram {
        buckets: vec![u64::MAX, u64::MAX],
        ..Default::default()
    });
    for (bad, why) in [
        (no_host, "host is missing"),
        (long, "5000 bytes"),
        (overflow, "63 bits"),
    ] {
        agent.send(bad).await;
        let answer = agent.answer().await.unwrap();
        assert_eq!(answer.outcome(), ExportOutcome::Rejected);
        assert!(answer.message.contains(why), "{}", answer.message);
    }
    assert_eq!(agent.export(report("web", 4)).await, ExportOutcome::Stored);
    assert_eq!(collector.all_reports("").len(), 1);
}

#[tokio::test]
async fn an_oversized_report_ends_its_stream_alone() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut good = collector.agent().await;
    let mut bad = collector.agent().await;
    let mut huge = report("web", 1);
    huge.incomplete_reasons = vec!["x".repeat(1000); 5000];
    bad.send(huge).await;
    let status = bad.answer().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    assert_eq!(good.export(report("web", 1)).await, ExportOutcome::Stored);
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for garbage in [
        &b"\0\xff\xfe garbage \r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut socket = tokio::net::TcpStream::connect(&collector.grpc)
            .await
            .unwrap();
        socket.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection is ended");
    }
    // A message that is no protobuf, over a sound connection.
    // Here a `Host` whose id is not UTF-8.
    let hostile = vec![0x0a, 0x04, 0x0a, 0x02, 0xff, 0xff];
    let ended = export_bytes(&collector, hostile).await.unwrap_err();
    // By this agents look whether it is one.
    assert_eq!(ended.code(), tonic::Code::InvalidArgument, "{ended}");
    let mut agent = collector.agent().await;
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
}

#[tokio::test]
async fn another_order_of_map_entries_is_no_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let with = |losses: &[(&str, u64)]| {
        let losses = losses.iter().map(|(name, n)| ((*name).to_owned(), *n));
        let mut report = report("web", 1);
        report.losses = losses.collect();
        report.encode_to_vec()
    };
    let losses = [("reports_dropped", 1), ("ring_full", 4)];
    let mut other = with(&[]);
    for loss in losses.into_iter().rev() {
        let losses = [(loss.0.to_owned(), loss.1)].into();
        let entry = v1::Report {
            losses,
            ..v1::Report::default()
        };
        other.extend(entry.encode_to_vec());
    }
    let sent = with(&losses);
    assert_eq!(other.len(), sent.len());
    let first = export_bytes(&collector, other).await.unwrap();
    assert_eq!(first, ExportOutcome::Stored);
    let again = export_bytes(&collector, sent).await.unwrap();
    assert_eq!(again, ExportOutcome::Duplicate);
}

/// Sends these bytes where a report is due.
async fn export_bytes(
    collector: &Collector,
    inner: Vec<u8>,
) -> Result<ExportOutcome, tonic::Status> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Bytes {
        #[prost(bytes, tag = "1")]
        inner: Vec<u8>,
    }
    let mut client = tonic::client::Grpc::new(collector.channel().await);
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::once(Bytes { inner }));
    let value = format!("Bearer {}", collector.token).parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let codec = tonic_prost::ProstCodec::<Bytes, v1::ExportResponse>::default();
    let path = "/speedmimi.v1.ReportService/Export".parse().unwrap();
    let mut answers = client.streaming(request, path, codec).await?.into_inner();
    Ok(answers.message().await?.unwrap().outcome())
}

#[tokio::test]
async fn hosts_with_one_name_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for id in ["one", "two"] {
        let mut r = report("web", 1);
        r.host.as_mut().unwrap().id = id.into();
        agent.export(r).await;
    }
    assert_eq!(
        collector.json("/api/v1/hosts")["hosts"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(collector.all_reports("host=web").len(), 2);
    assert_eq!(collector.all_reports("host=two").len(), 1);
    assert_eq!(collector.get("/api/v1/hosts/web/stats").status, 400);
    assert_eq!(collector.get("/api/v1/hosts/one/stats").status, 200);
}

#[tokio::test]
async fn many_agents_at_once_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agents = Vec::new();
    for n in 0..50 {
        let agent = collector.agent().await;
        for sequence in 1..=20 {
            agent.send(report(&format!("host-{n}"), sequence)).await;
        }
        agents.push(agent);
    }
    for agent in &mut agents {
        for sequence in 1..=20 {
            let answer = agent.answer().await.unwrap();
            assert_eq!(
                (answer.sequence, answer.outcome()),
                (sequence, ExportOutcome::Stored)
            );
        }
    }
    assert_eq!(collector.all_reports("limit=1000").len(), 1000);
    let hosts = collector.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 50);
}
