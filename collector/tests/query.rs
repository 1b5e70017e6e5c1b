//! What is read over gRPC.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Collector, DEADLINE, report};
use monitor_proto::{
    json,
    v1::{self, query_service_client::QueryServiceClient},
};
use tonic::{Streaming, transport::Channel};

async fn client(collector: &Collector) -> QueryServiceClient<Channel> {
    QueryServiceClient::new(collector.channel().await).max_decoding_message_size(64 << 20)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    let next = tokio::time::timeout(DEADLINE, stream.message()).await;
    next.expect("an answer in time")
        .unwrap()
        .expect("not the end")
}

#[tokio::test]
async fn hosts_and_reports_are_those_that_were_sent() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=5 {
        agent.export(report("a", sequence)).await;
        agent.export(report("b", sequence)).await;
    }
    let mut client = client(&collector).await;
    let hosts = client.list_hosts(v1::ListHostsRequest {}).await.unwrap();
    let hosts = hosts.into_inner().hosts;
    assert_eq!(hosts.len(), 2);
    assert_eq!((hosts[0].reports, hosts[0].last_sequence), (5, 5));

    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = v1::GetReportsRequest {
            host: "a".into(),
            limit: 2,
            cursor,
            ..Default::default()
        };
        let page = client.get_reports(request).await.unwrap().into_inner();
        all.extend(page.reports);
        if page.next_cursor.is_empty() {
            break;
        }
        cursor = page.next_cursor;
    }
    let sent: Vec<_> = (1..=5).map(|n| report("a", n)).collect();
    assert_eq!(all, sent);

    for bad in [
        v1::GetReportsRequest {
            limit: 1001,
            ..Default::default()
        },
        v1::GetReportsRequest {
            cursor: "x".into(),
            ..Default::default()
        },
    ] {
        let refused = client.get_reports(bad).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test]
async fn pages_are_bounded_by_what_their_reports_decode_to() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    // A few hundred bytes as they are kept; the last is larger than a page.
    let large = |sequence, lines| {
        let mut large = report("a", sequence);
        large.incomplete_reasons = vec!["x".repeat(4000); lines];
        large
    };
    let mut sent: Vec<_> = (1..=11).map(|n| large(n, 250)).collect();
    sent.push(large(12, 1000));
    for report in &sent {
        agent.export(report.clone()).await;
    }
    // As a client is that sets no bound of its own.
    let mut client = QueryServiceClient::new(collector.channel().await);
    let mut request = v1::GetReportsRequest {
        limit: 1000,
        ..Default::default()
    };
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = client.get_reports(request.clone()).await.unwrap();
        let page = page.into_inner();
        sizes.push(page.reports.len());
        all.extend(page.reports);
        if page.next_cursor.is_empty() {
            break;
        }
        request.cursor = page.next_cursor;
    }
    assert_eq!(all, sent);
    assert_eq!(sizes, [3, 3, 3, 2, 1]);
    let page = collector.json("/api/v1/reports?limit=1000");
    assert_eq!(page["reports"].as_array().unwrap().len(), 4);
    assert_eq!(collector.all_reports("limit=1000").len(), sent.len());
}

#[tokio::test]
async fn the_link_to_the_next_lines_asks_for_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let name = "a&limit=1#ü +";
    for sequence in 1..=9 {
        agent.export(report(name, sequence)).await;
        agent.export(report("other", sequence)).await;
    }
    let time = |sequence| json::rfc3339(report(name, sequence).window_end_unix_ns);
    let mut query = format!(
        "host=id-a%26limit%3D1%23%C3%BC%20%2B&since={}&until=0s&limit=3",
        time(2)
    );
    let mut lines = Vec::new();
    loop {
        let url = collector.url(&format!("/api/v1/reports?{query}"));
        let answer = common::get(&url, &[("accept", "text/csv")]);
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        lines.extend(answer.body.lines().skip(1).map(str::to_owned));
        let link = answer.header("link");
        if link.is_empty() {
            break;
        }
        let next = link.strip_prefix("<?").unwrap();
        next.strip_suffix(">; rel=\"next\"")
            .unwrap()
            .clone_into(&mut query);
        assert!(
            !query.contains("0s"),
            "an age counts from one time: {query}"
        );
    }
    // Two endpoints each.
    assert_eq!(lines.len(), 2 * 8);
    assert!(lines.iter().all(|line| line.contains(name)), "{lines:?}");
}

#[tokio::test]
async fn a_watcher_sees_what_comes_and_one_that_sleeps_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut client = client(&collector).await;
    let request = v1::WatchRequest {
        host: "id-a".into(),
    };
    let mut reports = client.watch(request).await.unwrap().into_inner();
    agent.export(report("b", 1)).await;
    agent.export(report("a", 1)).await;
    let first = next(&mut reports).await;
    assert_eq!((first.report, first.skipped), (Some(report("a", 1)), 0));

    // Larger than all that the connection buffers.
    for sequence in 2..=600 {
        let mut large = report("a", sequence);
        large.incomplete_reasons = vec!["x".repeat(4000); 4];
        agent.export(large).await;
    }
    let mut seen = 1u64;
    let mut skipped = 0;
    let mut last = 1;
    while last < 600 {
        let answer = next(&mut reports).await;
        let sequence = answer.report.unwrap().sequence;
        assert!(sequence > last, "never back in time");
        last = sequence;
        seen += 1;
        skipped += answer.skipped;
    }
    assert!(skipped > 0, "it slept through some: {seen} seen");
    assert_eq!(seen + skipped, 600, "and was told how many");
}

#[tokio::test]
async fn loads_are_shares_and_are_sent_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    let mut client = client(&collector).await;
    let request = v1::WatchBackendLoadsRequest {
        hosts: vec!["a".into(), "10.0.0.7:8080".into()],
    };
    let mut loads = client
        .watch_backend_loads(request)
        .await
        .unwrap()
        .into_inner();
    assert!(
        next(&mut loads).await.loads.is_empty(),
        "nothing is known yet"
    );

    agent.export(report("a", 1)).await;
    let first = next(&mut loads).await.loads;
    assert_eq!(first.len(), 1);
    let load = &first[0];
    assert_eq!(load.host_id, "id-a");
    for (is, wanted) in [
        (load.cpu_ratio, 0.125),
        (load.memory_ratio, 0.25),
        (load.load1_ratio, 0.25),
    ] {
        assert!((is - wanted).abs() < 1e-9, "{is} is not {wanted}");
    }
    // One that nobody asked for, then one that is asked for by its address.
    agent.export(report("other", 1)).await;
    let mut by_address = report("backend", 1);
    by_address.endpoints[0].address = "10.0.0.7:8080".into();
    agent.export(by_address).await;
    let second = next(&mut loads).await.loads;
    assert_eq!(
        second
            .iter()
            .map(|l| l.host_id.as_str())
            .collect::<Vec<_>>(),
        ["id-backend"]
    );

    let get = |hosts: &[&str]| v1::GetBackendLoadsRequest {
        hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
    };
    let mut count = async |hosts: &[&str]| {
        let answer = client.get_backend_loads(get(hosts)).await.unwrap();
        answer.into_inner().loads.len()
    };
    assert_eq!(count(&[]).await, 3);
    assert_eq!(count(&["10.0.0.7", "id-backend"]).await, 1);
    assert_eq!(
        count(&["127.0.0.1:8080"]).await,
        0,
        "a loopback address that two hosts have"
    );
    assert_eq!(count(&["nobody"]).await, 0);
    let many = vec![String::from("nobody"); 1001];
    let many = v1::GetBackendLoadsRequest { hosts: many };
    let mut second = QueryServiceClient::new(collector.channel().await);
    let refused = second.get_backend_loads(many).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let mut unmeasured = report("c", 1);
    unmeasured.host_metrics = None;
    agent.export(unmeasured).await;
    assert_eq!(count(&["c"]).await, 0, "an unknown load is not an idle one");
    let large = v1::GetBackendLoadsRequest {
        hosts: vec!["x".repeat(1 << 20)],
    };
    let refused = second.get_backend_loads(large).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
}

#[tokio::test]
async fn a_host_that_sends_without_end_is_slowed_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut greedy = collector.agent().await;
    let mut sequence = 0;
    let refusal = loop {
        sequence += 1;
        assert!(sequence < 100, "it is never slowed");
        let mut large = report("greedy", sequence);
        large.incomplete_reasons = vec!["x".repeat(4000); 900];
        greedy.send(large).await;
        if let Err(status) = greedy.answer().await {
            break status;
        }
    };
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted, "{refusal}");
    let mut modest = collector.agent().await;
    assert_eq!(
        modest.export(report("modest", 1)).await,
        v1::ExportOutcome::Stored
    );
    let metrics = collector.get("/metrics").body;
    assert!(metrics.contains("speedmimi_collector_refused_total{reason=\"rate\"} 1\n"));
}
