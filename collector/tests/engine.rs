//! The same questions to a collector's own store and to an engine that holds
//! what it passed on: Prometheus, `VictoriaMetrics`, and the engine that
//! `SPEEDMIMI_TEST_ENGINE_WRITE_URL` and `SPEEDMIMI_TEST_ENGINE_QUERY_URL` name,
//! which must be empty.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod engines;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
};

use common::{Collector, DEADLINE, eventually, get, now_ns, report, trial};
use engines::{Engine, Kind, free_port, saying};
use libtest_mimic::Arguments;
use monitor_proto::v1::{self, ExportOutcome, query_service_client::QueryServiceClient};
use serde_json::Value;
use tonic::Code;

const WINDOW_NS: u64 = 5_000_000_000;
/// A name that would end a string of `PromQL` and begin another expression.
const HOSTILE: &str = "x\"} or vector(1) or {a=\"\\ \u{202e}<script>";

/// The report whose window ends so many windows before `base_ns`.
fn ago(host: &str, base_ns: u64, sequence: u64, windows: u64) -> v1::Report {
    let mut r = report(host, sequence);
    r.window_end_unix_ns = base_ns - windows * WINDOW_NS;
    r.window_start_unix_ns = r.window_end_unix_ns - WINDOW_NS;
    // Gauges that are the same throughout a window: the engine has one sample.
    let metrics = r.host_metrics.as_mut().unwrap();
    for gauge in [&mut metrics.cpu_usage, &mut metrics.memory_usage] {
        let value = 10.0 + sequence as f64;
        *gauge = Some(v1::Gauge {
            last: value,
            min: value,
            mean: value,
            max: value,
        });
    }
    r.endpoints[0].srtt = Some(v1::RoundTripTime {
        samples: sequence,
        min_us: 90,
        mean_us: 100 + sequence,
        max_us: 2_000_001,
    });
    let address = r.endpoints[0].address.clone();
    r.endpoints[0].accept_queue = Some(v1::AcceptQueue {
        listener: address,
        connections: 3,
        connections_max: 100 + sequence,
        limit: 128,
        drops: 1,
        drops_total: sequence,
    });
    r.endpoints[0].name = "public".into();
    (r.endpoints[1].upstream, r.endpoints[1].backend) = ("api".into(), "api-1".into());
    r.complete = sequence != 20;
    r
}

/// What both collectors say must be equal, but for what the engine does not
/// have.
fn compare(store: &Collector, engine: &Collector, name: &str, range: &str) {
    let of = |collector: &Collector, path: &str| collector.json(path);
    // Hosts.
    let hosts = |c: &Collector| -> Vec<(String, String, u64, u64, String)> {
        let all = of(c, "/api/v1/hosts");
        assert!(all["partial"].is_null(), "{all}");
        let all = all["hosts"].as_array().unwrap().clone();
        all.iter()
            .map(|h| {
                (
                    h["host"]["name"].as_str().unwrap().to_owned(),
                    h["host"]["id"].as_str().unwrap().to_owned(),
                    h["host"]["cores"].as_u64().unwrap(),
                    h["last_sequence"].as_u64().unwrap(),
                    h["last_window_end"].as_str().unwrap()[..19].to_owned(),
                )
            })
            .collect()
    };
    assert_eq!(hosts(store), hosts(engine), "{name}");

    // Counters and gauges of the newest report are equal.
    let latest =
        |c: &Collector| of(c, "/api/v1/reports?latest=true&host=id-web")["reports"][0].clone();
    let (s, e) = (latest(store), latest(engine));
    for key in ["cpu_usage", "memory_usage", "load_avg_1"] {
        let last = |r: &Value| r["host_metrics"][key]["last"].as_f64().unwrap();
        assert!((last(&s) - last(&e)).abs() < 1e-9, "{name}: {key}");
    }
    for key in ["window_duration_ns", "complete", "sequence"] {
        assert_eq!(s[key], e[key], "{name}: {key}");
    }
    let endpoints = |r: &Value| -> BTreeMap<String, Value> {
        let all = r["endpoints"].as_array().unwrap();
        all.iter()
            .map(|e| (e["role"].as_str().unwrap().to_owned(), e.clone()))
            .collect()
    };
    let (s, e) = (endpoints(&s), endpoints(&e));
    assert_eq!(s.len(), 2);
    for (role, s) in &s {
        let e = &e[role];
        for key in [
            "address",
            "target",
            "connections_active",
            "connections_opened",
            "connections_closed",
            "bytes_received",
            "bytes_sent",
            "requests",
            "requests_by_method",
            "responses",
            "connections_failed",
            "srtt",
            "accept_queue",
        ] {
            assert_eq!(s[key], e[key], "{name}: {role} {key}");
        }
        for key in ["connections_opened", "bytes_sent", "requests", "responses"] {
            assert_eq!(s["totals"][key], e["totals"][key], "{name}: totals {key}");
        }
    }
    let stats = |c: &Collector| of(c, "/api/v1/hosts/web/stats")["stats"].clone();
    for key in [
        "cpu_usage",
        "memory_usage",
        "load_avg_1",
        "cores",
        "timestamp",
    ] {
        let value = |stats: &Value| stats[key].as_f64().unwrap();
        assert!(
            (value(&stats(store)) - value(&stats(engine))).abs() < 1e-9,
            "{name}: {key}"
        );
    }

    // Rates, from the second step on; quantiles within the stated error.
    for metric in [
        "requests",
        "bytes_sent",
        "connections_opened",
        "responses_5xx",
        "connections_active",
        "cpu_usage",
        "exchange_duration_p99",
    ] {
        let path = format!("/api/v1/series?host=web&metric={metric}&step=1m&{range}");
        let (s, e) = (of(store, &path), of(engine, &path));
        assert_eq!(e["tier"], "engine");
        assert_eq!((&s["unit"], &s["since"]), (&e["unit"], &e["since"]));
        let error = e["error_ratio"].as_f64().unwrap_or(1e-9);
        let series = |answer: &Value| answer["series"].as_array().unwrap().clone();
        let (s, e) = (series(&s), series(&e));
        assert_eq!(s.len(), e.len(), "{name}: {metric}: {e:?}");
        let mut compared = 0;
        for (s, e) in s.iter().zip(&e) {
            for key in [
                "host", "role", "endpoint", "target", "name", "upstream", "backend",
            ] {
                assert_eq!(s[key], e[key], "{name}: {metric} {key}");
            }
            let points = |of: &Value| of["points"].as_array().unwrap().clone();
            let mut is_first = true;
            for (s, e) in points(s).iter().zip(&points(e)) {
                assert_eq!(s["time"], e["time"]);
                let Some(wanted) = s["value"].as_f64() else {
                    assert!(
                        e["value"].is_null(),
                        "{name}: {metric}: a gap stays one: {e}"
                    );
                    continue;
                };
                let is_total = !["connections_active", "cpu_usage"].contains(&metric);
                if std::mem::take(&mut is_first) && is_total {
                    continue;
                }
                let value = e["value"].as_f64().unwrap_or(f64::NAN);
                assert!(
                    (value - wanted).abs() <= error * wanted.max(1e-9),
                    "{name}: {metric}: {s} {e}"
                );
                for key in ["coverage", "complete", "min", "max"] {
                    let close = match (s[key].as_f64(), e[key].as_f64()) {
                        (Some(s), Some(e)) => (s - e).abs() < 1e-6,
                        _ => s[key] == e[key],
                    };
                    assert!(close, "{name}: {metric} {key}: {s} {e}");
                }
                compared += 1;
            }
        }
        assert!(compared >= 2, "{name}: {metric}: {compared} points");
    }
}

/// What has a name is found by it, in a store as in an engine.
fn compare_by_name(store: &Collector, engine: &Collector, name: &str, range: &str) {
    for (filter, count) in [
        ("listener=public", 1),
        ("upstream=api", 1),
        ("upstream=api&backend=api-1", 1),
        ("upstream=gone", 0),
        ("backend=127.0.0.1:8080", 0),
    ] {
        let path = format!("/api/v1/series?host=web&metric=requests&step=1m&{range}&{filter}");
        let found = [store, engine].map(|collector| {
            let answer = collector.json(&path);
            let all = answer["series"].as_array().unwrap().iter();
            all.map(|one| one["endpoint"].clone()).collect::<Vec<_>>()
        });
        assert_eq!(found[0].len(), count, "{name}: {filter}");
        assert_eq!(found[0], found[1], "{name}: {filter}");
    }
}

/// How many series there are, and how many samples each has at least: an engine
/// may show what it took only later, and some series before others.
fn visible(query_url: &str) -> (usize, u64) {
    let query = "{__name__=~\"speedmimi_.+\",host_id!=\"\"}[1h]";
    let encoded: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
    let answer = get(&format!("{query_url}/api/v1/query?query={encoded}"), &[]);
    let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let series = answer["data"]["result"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let samples = series
        .iter()
        .map(|one| one["values"].as_array().map_or(0, Vec::len));
    (series.len(), samples.min().unwrap_or(0) as u64)
}

async fn conforms(name: &str, write_url: &str, query_url: &str) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let store = Collector::start_with(dirs[0].path(), &["--remote-write", write_url]);
    let stateless = Collector::start_with(dirs[1].path(), &["--query-url", query_url]);
    assert_eq!(stateless.get("/readyz").status, 200);
    // Four minutes, the third of which is lost, ending on a minute: totals go on.
    let base_ns = now_ns() / 60_000_000_000 * 60_000_000_000;
    let mut agent = store.agent().await;
    let mut exported = 0;
    for host in ["web", HOSTILE] {
        let mut sequence = 0;
        exported = 0;
        for windows in (0..48u64).rev() {
            sequence += 1;
            if (12..24).contains(&windows) {
                continue;
            }
            exported += 1;
            let outcome = agent.export(ago(host, base_ns, sequence, windows)).await;
            assert_eq!(outcome, ExportOutcome::Stored);
        }
    }
    let passed_on = format!("{{url=\"{write_url}\"}} {}\n", 2 * exported);
    eventually("every report is passed on and rolled up", || {
        let sent = "speedmimi_collector_remote_write_sent_total";
        let metrics = store.get("/metrics").body;
        let series = metrics
            .lines()
            // Problems are judged where they are asked for, and not passed on.
            .filter(|line| !line.starts_with("speedmimi_problem"))
            .filter(|line| line.contains("host_id=\""))
            .count();
        let rolled = store.json("/api/v1/series?host=web&metric=cpu_usage&since=10m&step=1m");
        let covered = rolled["series"][0]["points"]
            .as_array()
            .map_or(0, |points| {
                points.iter().filter(|p| p["coverage"] == 1.0).count()
            });
        metrics.contains(&format!("{sent}{passed_on}"))
            && visible(query_url) == (series, exported)
            && covered == 3
    });
    let minute = base_ns / 60_000_000_000 * 60;
    let at = |s: u64| common_time(s);
    let range = format!("since={}&until={}", at(minute - 300), at(minute));
    compare(&store, &stateless, name, &range);
    compare_by_name(&store, &stateless, name, &range);

    // A label is a value, whatever it holds: by name, by id, and as endpoint.
    let encoded: String = HOSTILE.bytes().map(|b| format!("%{b:02X}")).collect();
    for host in [encoded.clone(), format!("id-{encoded}")] {
        let stats = stateless.json(&format!("/api/v1/hosts/{host}/stats"));
        assert_eq!(stats["stats"]["cores"], 2, "{name}");
        let path = format!("/api/v1/series?host={host}&metric=requests&{range}&step=1m");
        assert_eq!(stateless.json(&path)["series"].as_array().unwrap().len(), 2);
    }
    let path = format!("/api/v1/series?endpoint={encoded}&metric=requests&{range}&step=1m");
    assert!(
        stateless.json(&path)["series"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(stateless.get("/api/v1/hosts/nobody/stats").status, 404);

    // What the engine does not have is said.
    let raw = stateless.get("/api/v1/reports");
    assert_eq!(raw.status, 501);
    assert!(raw.body.contains("--query-url"), "{}", raw.body);
    conforms_by_grpc(&store, &stateless).await;
    let scraped = stateless.get("/metrics").body;
    assert!(!scraped.contains("host_id="), "the engine has them already");
    assert!(scraped.contains("speedmimi_collector_"), "{scraped}");
    // Live values come from it too.
    let mut live = TcpStream::connect(&stateless.http).unwrap();
    live.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        live,
        "GET /api/v1/live?host=web HTTP/1.1\r\nHost: {}\r\n\r\n",
        stateless.http
    )
    .unwrap();
    let lines = BufReader::new(live).lines().map_while(Result::ok);
    let data = lines.filter_map(|line| Some(line.strip_prefix("data:")?.trim().to_owned()));
    let first: Value = serde_json::from_str(&data.take(1).collect::<String>()).unwrap();
    assert_eq!(first["host"]["id"], "id-web");
    assert_eq!(first["endpoints"][0]["requests"], 5);
}

/// Samples of a scrape are later than the report that they are of.
async fn scraped() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let store = Collector::start(dirs[0].path());
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs: [{{job_name: c, static_configs: [{{targets: ['{}']}}]}}]\n",
        store.http
    );
    let engine = Engine::start_with(Kind::Prometheus, dirs[1].path(), free_port(), &config);
    let stateless = Collector::start_with(dirs[2].path(), &["--query-url", &engine.url]);
    let mut agent = store.agent().await;
    for sequence in [7, 9] {
        agent.export(report("web", sequence)).await;
        eventually("the report is scraped", || {
            let scraped = format!("speedmimi_host_report_sequence == {sequence}");
            !engine.series(&scraped).is_empty()
        });
    }
    for host in ["", "&host=web"] {
        let reports = stateless.json(&format!("/api/v1/reports?latest=true{host}"));
        let newest = &reports["reports"][0];
        assert_eq!(newest["sequence"], 9);
        let endpoint = &newest["endpoints"][0];
        assert_eq!(endpoint["totals"]["requests"], 45, "{newest}");
        assert_eq!(endpoint["requests"], 10, "of two reports: {newest}");
        assert_ne!(newest["window_duration_ns"], WINDOW_NS, "{newest}");
    }
    let stats = stateless.json("/api/v1/hosts/web/stats");
    assert_eq!(stats["stats"]["cpu_usage"], 12.5, "{stats}");
    assert!(stats["stats"]["disk_usage"].is_null(), "{stats}");
}

/// Hosts and loads are those of the store; what an engine does not have is said.
async fn conforms_by_grpc(store: &Collector, stateless: &Collector) {
    let mut clients = Vec::new();
    for collector in [store, stateless] {
        clients.push(QueryServiceClient::new(collector.channel().await));
    }
    let mut hosts = Vec::new();
    let mut loads = Vec::new();
    for client in &mut clients {
        let listed = client.list_hosts(v1::ListHostsRequest {}).await.unwrap();
        let listed = listed.into_inner().hosts;
        let ids = listed.into_iter().map(|one| one.host.unwrap().id);
        hosts.push(ids.collect::<Vec<_>>());
        for asked in [vec![], vec!["web".to_owned()], vec!["nobody".to_owned()]] {
            let request = v1::GetBackendLoadsRequest { hosts: asked };
            let answer = client.get_backend_loads(request).await.unwrap();
            let of = |load: v1::BackendLoad| (load.host_id, (load.cpu_ratio * 1e9).round());
            let all = answer.into_inner().loads.into_iter().map(of);
            loads.push(all.collect::<Vec<_>>());
        }
    }
    assert_eq!(hosts[0].len(), 2);
    assert_eq!(hosts[0], hosts[1]);
    assert_eq!(loads[..3], loads[3..]);
    let numbers: Vec<_> = loads[3..].iter().map(Vec::len).collect();
    assert_eq!(numbers, [2, 1, 0]);
    let stateless = &mut clients[1];
    let refusals = [
        stateless
            .get_reports(v1::GetReportsRequest::default())
            .await
            .unwrap_err(),
        stateless
            .watch(v1::WatchRequest::default())
            .await
            .unwrap_err(),
        stateless
            .watch_backend_loads(v1::WatchBackendLoadsRequest::default())
            .await
            .unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::Unimplemented);
        assert!(refusal.message().contains("--query-url"), "{refusal}");
    }
}

/// RFC 3339 of unix seconds.
fn common_time(s: u64) -> String {
    monitor_proto::json::rfc3339(s * 1_000_000_000)
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let name = format!("{}_answers_as_the_store_does", kind.program());
            trial(&name, kind.missing(), async move || {
                let dir = tempfile::tempdir().unwrap();
                let engine = Engine::start(kind, dir.path(), free_port());
                let write_url = format!("{}/api/v1/write", engine.url);
                conforms(kind.program(), &write_url, &engine.url).await;
            })
        })
        .collect();
    trials.push(trial(
        "what_an_engine_scraped_has_the_newest_figures",
        Kind::Prometheus.missing(),
        scraped,
    ));
    let url = |of: &str| std::env::var(format!("SPEEDMIMI_TEST_ENGINE_{of}_URL"));
    // Nobody who gives none expects it to be tried.
    if let (Ok(write), Ok(query)) = (url("WRITE"), url("QUERY")) {
        let run = async move || conforms("the given engine", &write, &query).await;
        trials.push(trial(
            "the_given_engine_answers_as_the_store_does",
            None,
            run,
        ));
    }
    trials.extend([
        trial(
            "partial_answers_are_told_and_failures_are_problems",
            None,
            async || {
                partial_answers_are_told_and_failures_are_problems();
            },
        ),
        trial(
            "a_url_with_a_password_is_refused_and_not_repeated",
            None,
            async || {
                a_url_with_a_password_is_refused_and_not_repeated();
            },
        ),
    ]);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One host, seen now, whatever is asked.
const ONE_HOST: &str = r#"{"status":"success","isPartial":false,"data":{"result":[
  {"metric":{"host":"web","host_id":"id-web"},"value":[1,"1763860000"]}]}}"#;
const PARTIAL: &str = r#"{"status":"success","isPartial":true,"data":{"result":[
  {"metric":{"host":"web","host_id":"id-web"},"value":[1,"1763860000"]}]}}"#;

fn partial_answers_are_told_and_failures_are_problems() {
    let dir = tempfile::tempdir().unwrap();
    let with = |urls: &[&str]| {
        let flags: Vec<&str> = urls.iter().flat_map(|url| ["--query-url", *url]).collect();
        Collector::start_with(dir.path(), &flags)
    };
    let (whole, partial, nonsense) = (saying(ONE_HOST), saying(PARTIAL), saying("<html>"));
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let collector = with(&[&whole]);
    let hosts = collector.json("/api/v1/hosts");
    assert!(
        hosts["partial"].is_null() && hosts["hosts"][0]["host"]["name"] == "web",
        "{hosts}"
    );
    drop(collector);

    let collector = with(&[&partial]);
    let hosts = collector.json("/api/v1/hosts");
    assert_eq!(hosts["partial"].as_array().unwrap().len(), 1, "{hosts}");
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1);
    let series = collector.json("/api/v1/series?metric=cpu_usage&since=1h");
    assert_eq!(series["partial"].as_array().unwrap().len(), 1, "{series}");
    drop(collector);

    // One of two fails: the other's answer, and that it is partial.
    let collector = with(&[&whole, &gone]);
    let hosts = collector.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1);
    let why = hosts["partial"][0].as_str().unwrap();
    assert!(why.contains(&gone), "{why}");
    drop(collector);

    for broken in [&gone, &nonsense] {
        let collector = with(&[broken]);
        for path in [
            "/api/v1/hosts",
            "/api/v1/hosts/web/stats",
            "/api/v1/reports?latest=true",
            "/api/v1/series?metric=requests",
            "/readyz",
        ] {
            let answer = get(&collector.url(path), &[]);
            assert_eq!(answer.status, 502, "{path}: {}", answer.body);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.body.contains(broken.as_str()), "{}", answer.body);
        }
    }
}

fn a_url_with_a_password_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let output = common::command()
        .args([
            "run",
            "--query-url",
            "http://me:secret@engine:9090",
            "--data-dir",
        ])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--query-url") && !said.contains("secret"),
        "{said}"
    );
}
