//! The page in a real browser.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "page/answers.rs"]
mod answers;
mod common;
mod engines;

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use common::{Collector, now_ns, report, trial};
use libtest_mimic::Arguments;
use monitor_proto::v1;
use serde_json::Value;

/// A label that would run, break out, turn around and never end.
const HOSTILE: &str =
    "hostile \"><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}&amp;";

fn has(program: &str) -> bool {
    let mut version = Command::new(program);
    version
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// The test's own packages, below the build directory.
fn packages() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&dir).unwrap();
    for file in [
        "package.json",
        "package-lock.json",
        "page.mjs",
        "partial.mjs",
        "answers.mjs",
        "loading.mjs",
        "widths.mjs",
    ] {
        fs::copy(source.join(file), dir.join(file)).unwrap();
    }
    if !dir.join("node_modules/axe-core").exists() {
        let status = Command::new("npm")
            .arg("ci")
            .arg("--silent")
            .current_dir(&dir)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return None;
        }
    }
    Some(dir)
}

fn fresh(host: &str, sequence: u64) -> v1::Report {
    let mut r = report(host, sequence);
    r.window_end_unix_ns = now_ns();
    r.window_start_unix_ns = r.window_end_unix_ns - 5_000_000_000;
    r
}

/// What the page shows of a single host.
fn detail(r: &mut v1::Report) {
    let [listener, first] = &mut r.endpoints[..] else {
        panic!("a downstream and an upstream endpoint");
    };
    listener.accept_queue = Some(v1::AcceptQueue {
        listener: "0.0.0.0:8080".into(),
        connections: 3,
        connections_max: 60,
        limit: 128,
        drops: 10,
        drops_total: 17,
    });
    (first.upstream, first.backend) = ("api".into(), "api-1".into());
    let mut second = first.clone();
    (second.address, second.backend) = ("127.0.0.1:8082".into(), "api-2".into());
    let window = second.window.as_mut().unwrap();
    window.connections_failed = Some(v1::ConnectionsFailed {
        refused: 4,
        ..Default::default()
    });
    r.endpoints.push(second);
    r.top_sockets = [(1, 9000, 0), (2, 500, 7)]
        .map(|(cookie, bytes_sent, retransmits)| v1::SocketSummary {
            cookie,
            role: v1::Role::Downstream.into(),
            local: "127.0.0.1:8080".into(),
            remote: format!("127.0.0.1:{}", 40_000 + cookie),
            client: if cookie == 2 { "192.0.2.1:9" } else { "" }.into(),
            state: "ESTABLISHED".into(),
            // An adopted connection has no known age.
            age_ms: (cookie == 1).then_some(61_000),
            bytes_received: 100,
            bytes_sent,
            retransmits,
            srtt_us: 150,
            requests: 3,
            ..Default::default()
        })
        .into();
    r.clients = Some(v1::Clients {
        prefix_v4: 32,
        prefix_v6: 64,
        top: vec![v1::Client {
            address: "2001:db8:1:2::/64".into(),
            connections_opened: 1,
            bytes_received: 100,
            bytes_sent: 500,
            requests: Some(3),
            exchanges: Some(0),
            ..Default::default()
        }],
    });
    r.losses_totals = [("untracked_socket".to_owned(), 5)].into();
    r.network_namespaces = vec![v1::NetworkNamespace {
        id: 4_026_531_840,
        listen_overflows: 9,
        ..Default::default()
    }];
    let metrics = r.host_metrics.as_mut().unwrap();
    metrics.pressure = vec![v1::Pressure {
        resource: "cpu".into(),
        some_avg10: 12.5,
        ..Default::default()
    }];
}

struct Browser {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn open(packages: &Path, url: &str) -> Self {
        let shots = env::var("SPEEDMIMI_SCREENSHOTS").unwrap_or_default();
        let mut child = Command::new("node")
            .args(["page.mjs", url, "/usr/bin/chromium", &shots])
            .current_dir(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin,
            stdout,
        }
    }

    fn answer(&mut self) -> Value {
        let line = self.stdout.next().expect("the browser's answer").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

fn host<'a>(page: &'a Value, id: &str) -> &'a Value {
    let hosts = page["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["id"] == id).unwrap()
}

/// The test's packages, or why there is no browser to run them in.
fn browser_packages() -> Result<PathBuf, &'static str> {
    if !has("node") || !has("npm") || !Path::new("/usr/bin/chromium").exists() {
        return Err("node, npm and chromium are needed: apt-get install chromium npm");
    }
    packages().ok_or("playwright-core cannot be installed by npm ci")
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let (packages, missing) = match browser_packages() {
        Ok(packages) => (packages, None),
        Err(reason) => (PathBuf::new(), Some(reason.to_owned())),
    };
    let of_page = packages.clone();
    let no_node = (!has("node")).then(|| "node is needed: apt-get install nodejs".to_owned());
    let model = trial(
        "the_page_knows_what_its_reports_tell",
        no_node,
        async || {
            the_model();
        },
    );
    let page = trial(
        "the_page_shows_the_figures_follows_them_and_keeps_labels_text",
        missing.clone(),
        async move || the_page(&of_page).await,
    );
    let of_loading = packages.clone();
    let loading = trial(
        "the_page_says_that_no_host_has_reported_only_once_it_knows",
        missing.clone(),
        async move || the_loading_page(&of_loading),
    );
    let of_widths = packages.clone();
    let widths = trial(
        "the_page_cuts_nothing_off_and_draws_what_is_below_a_microsecond",
        missing.clone(),
        async move || the_page_at_every_width(&of_widths).await,
    );
    let of_answers = packages.clone();
    let answers = trial(
        "the_page_answers_each_question_of_the_document",
        missing.clone(),
        async move || answers::the_answers(&of_answers).await,
    );
    let partial = trial(
        "the_page_says_what_makes_an_answer_partial",
        missing,
        async move || the_partial_page(&packages),
    );
    libtest_mimic::run(
        &arguments,
        vec![model, page, loading, widths, answers, partial],
    )
    .exit_code()
}

/// What has no page in it needs no browser.
fn the_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new("node")
        .arg(root.join("tests/page/model.mjs"))
        .arg(root.join("web"))
        .status();
    assert!(status.unwrap().success());
}

/// Nothing is stored, and the answer that says so takes its time.
fn the_loading_page(packages: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let answer = Command::new("node")
        .args(["loading.mjs", &collector.url("/"), "/usr/bin/chromium"])
        .current_dir(packages)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(answer.status.success());
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let expected = serde_json::json!({
        "before": {"loading": true, "empty": false},
        "after": {"loading": false, "empty": true},
    });
    assert_eq!(answer, expected);
}

/// A host with figures as long as they come, and a bucket below 1 µs.
fn wide(sequence: u64) -> v1::Report {
    let mut r = fresh("wide", sequence);
    detail(&mut r);
    let mut backend = r.endpoints.pop().unwrap();
    backend.upstream = "payments-production".into();
    for (i, e) in r.endpoints.iter_mut().enumerate() {
        let window = e.window.as_mut().unwrap();
        // 2^-20 s: the bucket that holds 1 µs.
        let fastest = window.http.as_mut().unwrap();
        if let Some(durations) = fastest.exchange_duration.as_mut() {
            *durations = v1::Histogram {
                offset: -80,
                buckets: vec![1, 0, 0, 7],
                count: 8,
                sum_ns: 9_000,
                ..*durations
            };
        }
        e.connections_active = 123_456 + i as u64;
    }
    // A listener with TLS: all that is seen are the turns of its streams.
    let mut tls = r.endpoints[0].clone();
    tls.address = "127.0.0.1:8443".into();
    for counters in [tls.window.as_mut(), tls.totals.as_mut()] {
        let http = counters.unwrap().http.as_mut().unwrap();
        let exchange_duration = http.exchange_duration.take();
        *http = v1::HttpCounters {
            exchanges: 50,
            tls_handshakes: Some(40),
            tls_handshakes_completed: Some(33),
            tls_handshakes_failed_alert: Some(5),
            tls_handshakes_failed_end: Some(2),
            tls_handshakes_unknown: Some(0),
            tls_handshake_duration: exchange_duration.clone(),
            exchange_duration,
            ..Default::default()
        };
    }
    r.endpoints.push(tls);
    for i in 0..3_u64 {
        backend.address = format!("[2001:db8:85a3:8d3:1319:8a2e:370:734{i}]:58081");
        backend.backend = format!("checkout-{i}-eu-west-1b");
        let window = backend.window.as_mut().unwrap();
        window.bytes_received = 5_432_109_876_543;
        window.bytes_sent = 5_432_109_876_543;
        window.retransmits = 987_654;
        r.endpoints.push(backend.clone());
    }
    let cpu = r.host_metrics.as_mut().unwrap().cpu_usage.as_mut().unwrap();
    (cpu.last, cpu.mean) = (99.0, 42.0);
    r
}

async fn the_page_at_every_width(packages: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    agent.export(fresh("web-1", 1)).await;
    let mut sequence = 1;
    agent.export(wide(sequence)).await;
    let shots = env::var("SPEEDMIMI_SCREENSHOTS").unwrap_or_default();
    let mut node = Command::new("node");
    node.args(["widths.mjs", &collector.url("/"), "/usr/bin/chromium"])
        .arg(shots)
        .current_dir(packages)
        .stderr(Stdio::inherit());
    let looked = thread::spawn(move || node.output().unwrap());
    // However long it looks, the host reports.
    while !looked.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sequence += 1;
        agent.export(wide(sequence)).await;
    }
    let answer = looked.join().unwrap();
    assert!(answer.status.success());
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    for width in ["1400", "1024", "390"] {
        let at = &answer[width];
        assert_eq!(at["cut"], serde_json::json!([]), "at {width} px");
        assert_eq!(at["errors"], serde_json::json!([]), "at {width} px");
        assert!(at["figures"].as_u64().unwrap() > 50, "at {width} px: {at}");
    }
    let unseen = &answer["unseen"];
    let cell = |column: usize, part: usize| unseen[column][part].as_str().unwrap();
    assert_eq!(
        (cell(1, 0), cell(2, 0)),
        ("– (10/s turns)", "–"),
        "{unseen}"
    );
    assert!(cell(2, 1).starts_with("TLS: requests"), "{unseen}");
    assert!(cell(7, 0).ends_with(" *") && cell(7, 1).starts_with("TLS: time between turns"));
    // Of its handshakes, those that failed, and the times of the others.
    assert_eq!(cell(10, 0), "7", "{unseen}");
    assert_eq!(cell(12, 0), cell(7, 0).trim_end_matches(" *"), "{unseen}");
    assert!(!answer["labels"].as_array().unwrap().is_empty(), "{answer}");
    assert!(
        answer["cpu"].as_str().unwrap().contains("42.0 %"),
        "{answer}"
    );
    let found = serde_json::json!([{
        "caption": "Upstreams and backends that match",
        "names": [
            "payments-production 1 backend",
            "checkout-2-eu-west-1b ([2001:db8:85a3:8d3:1319:8a2e:370:7342]:58081)",
        ],
    }]);
    assert_eq!(answer["search"], found);
    assert_eq!(answer["asked"], answer["charts"], "asked once: {answer}");
    assert!(answer["nothing"].as_str().unwrap().contains("nowhere"));
    assert!(answer["unknown"]["text"].as_str().unwrap().contains("gone"));
    assert_eq!(answer["unknown"]["history"], false);
    assert_eq!(answer["unknown"]["back"], true);
}

/// One engine answers and one is gone.
fn the_partial_page(packages: &Path) {
    const ONE_HOST: &str = r#"{"status":"success","data":{"result":[
      {"metric":{"host":"web","host_id":"id-web"},"value":[1,"1763860000"]}]}}"#;
    let gone = format!("http://127.0.0.1:{}", engines::free_port());
    let flags = [
        "--query-url",
        &engines::saying(ONE_HOST),
        "--query-url",
        &gone,
    ];
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start_with(dir.path(), &flags);
    let answer = Command::new("node")
        .args(["partial.mjs", &collector.url("/"), "/usr/bin/chromium"])
        .current_dir(packages)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(answer.status.success());
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let problems = answer["problems"].as_str().unwrap();
    assert!(
        problems.starts_with("Nobody can tell: the query backend"),
        "{problems}"
    );
    assert_eq!(answer["role"], "status");
    assert_eq!(answer["hosts"], 1);
    let text = answer["text"].as_str().unwrap();
    assert!(
        text.starts_with("Incomplete: ") && text.contains(&gone),
        "{text}"
    );
}

async fn the_page(packages: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 900..=999 {
        let mut r = fresh("web-1", sequence);
        let ago_ns = (1000 - sequence) * 5_000_000_000;
        r.window_end_unix_ns -= ago_ns;
        r.window_start_unix_ns -= ago_ns;
        // A gap, and a rise after it.
        if !(940..960).contains(&sequence) {
            agent.export(r).await;
        }
    }
    let mut failing = fresh("web-2", 1);
    failing.complete = false;
    failing.incomplete_reasons = vec!["the agent was away for 12 s".into()];
    agent.export(failing).await;
    let mut hostile = fresh("hostile", 1);
    hostile.host.as_mut().unwrap().name = HOSTILE.into();
    hostile.endpoints[0].name = format!("{HOSTILE}{}", "x".repeat(3900));
    hostile.losses = [(HOSTILE.to_owned(), 3)].into();
    agent.export(hostile).await;

    let mut browser = Browser::open(packages, &collector.url("/"));
    let page = browser.answer();
    assert_eq!(page["connection"], "live");
    let web = host(&page, "id-web-1");
    assert_eq!(web["health"], "healthy");
    // Two hosts have a listener of this address, and the figures are of both.
    let listener = |page: &Value| {
        let rows = page["listeners"].as_array().unwrap().iter();
        let mut found = rows.filter(|row| row[0] == "127.0.0.1:8080 2 hosts");
        found.next().unwrap().as_array().unwrap().clone()
    };
    let expected = ["2/s", "20.0 %", "0", "0", "–"];
    assert_eq!(listener(&page)[1..6], expected);
    assert_eq!(listener(&page)[8..], ["6", "–", "48 B/s", "360 B/s"]);
    assert_eq!(host(&page, "id-web-2")["health"], "incomplete");
    let order: Vec<_> = page["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| &h["id"])
        .collect();
    assert_eq!(order, ["id-hostile", "id-web-2", "id-web-1"], "worst first");

    // A live report changes the figures without a reload.
    let mut live = fresh("web-1", 1000);
    live.endpoints[0].connections_active = 77;
    detail(&mut live);
    agent.export(live).await;
    agent.export(fresh("web-2", 2)).await;
    writeln!(browser.stdin, "live").unwrap();
    let page = browser.answer();
    assert_eq!(listener(&page)[8..10], ["80", "3 / 60 / 128"]);
    let map = page["map"].as_array().unwrap();
    for node in ["Clients", "web-1", "api", "api-2"] {
        assert!(map.contains(&node.into()), "{node}: {map:?}");
    }
    assert_eq!(page["first"], "What is wrong now");
    let problems = page["problems"].as_str().unwrap();
    for words in [
        "critical",
        "the accept queue of listener 127.0.0.1:8080 overflows: 10 packets of new connections dropped",
        "accept_queue.drops 10 packets",
        "Next: see whether the proxy's workers are busy",
    ] {
        assert!(problems.contains(words), "{words}: {problems}");
    }

    let charts = browser.answer();
    assert_eq!(charts["barriers"], serde_json::json!([]));
    assert!(charts["url"].as_str().unwrap().contains("host=id-web-1"));
    assert_eq!(
        charts["requests"],
        "Requests from clients, newest 127.0.0.1:8080: 1/s"
    );
    let backends = charts["backends"].as_str().unwrap();
    assert!(
        backends.starts_with("Requests to backends, newest ")
            && backends.contains("api/api-1 (127.0.0.1:8081): 1/s"),
        "{backends}"
    );
    let connections = charts["connections"].as_str().unwrap();
    assert!(
        connections.contains("Connections of clients, newest"),
        "{connections}"
    );

    let tables = &charts["tables"];
    let backend = |i: usize| {
        let row = tables["Upstreams and backends"][i].as_array().unwrap();
        [0, 1, 4].map(|column| row[column].as_str().unwrap().to_owned())
    };
    assert_eq!(
        [backend(0), backend(1), backend(2)],
        [
            ["api 2 backends", "2/s", "4"],
            ["api-2 (127.0.0.1:8082)", "1/s", "4"],
            ["api-1 (127.0.0.1:8081)", "1/s", "0"]
        ],
        "the worst first: {tables}"
    );
    let remotes = |rows: &Value| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row[2].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let clients = tables["Clients by bytes"].as_array().unwrap();
    let clients = clients.iter().map(|row| &row.as_array().unwrap()[..5]);
    assert_eq!(
        clients.collect::<Vec<_>>(),
        [
            ["2001:db8:1:2::/64", "20 B/s", "100 B/s", "1", "3"],
            ["~other", "4 B/s", "80 B/s", "1", "2"],
        ]
    );
    let sockets = &tables["Top sockets by bytes"];
    let client = "192.0.2.1:9";
    assert_eq!(remotes(sockets), ["127.0.0.1:40001", client]);
    assert_eq!(
        sockets[0].as_array().unwrap()[4..],
        ["100 B in, 8.8 KiB out", "0.15 ms", "0", "61 s", "3"]
    );
    assert_eq!(sockets[1][7], "–", "an age that is not known");
    let sorted = remotes(&charts["sorted"]);
    assert_eq!(sorted, [client, "127.0.0.1:40001"]);
    let losses = serde_json::json!([["untracked_socket", "0", "5"]]);
    assert_eq!(tables["Went uncounted"], losses);
    let pressure = &tables["Pressure: time in which tasks waited, last 10 s"];
    assert_eq!(*pressure, serde_json::json!([["cpu", "12.5 %", "0.0 %"]]));

    let upstream = &charts["upstream"];
    assert_eq!(upstream["title"], "Upstream api");
    let problems = upstream["problems"].as_str().unwrap();
    assert!(!problems.contains("accept queue"), "its own: {problems}");
    assert_eq!(upstream["barriers"], serde_json::json!([]));
    let queue = &charts["listener"]["Accept queue of 127.0.0.1:8080"];
    let figures = ["web-1", "0.0.0.0:8080", "3", "60", "128", "2/s", "17"];
    assert_eq!(queue[0], serde_json::json!(figures));
    let tables = &upstream["tables"];
    assert_eq!(tables["Backends of api"][0][1], "2/s");
    assert_eq!(tables["api by host"][1][0], "web-1");
    // Where reports are missing, the caption says so behind its title.
    let words = upstream["charts"].as_array().unwrap();
    let has = |title| words.iter().any(|w| w.as_str().unwrap().starts_with(title));
    assert!(has("Failed connections to backends"), "{words:?}");
    assert!(!has("CPU"), "{words:?}");
    let requests = upstream["requests"].as_str().unwrap();
    assert!(
        requests.contains("api/api-1") && !requests.contains("web-2"),
        "of it alone: {requests}"
    );

    assert_eq!(charts["ofMap"]["stays"], true);
    let nameless = charts["ofMap"]["nameless"].as_str().unwrap();
    assert!(
        nameless.contains("127.0.0.1:8081 on web-2"),
        "charts of what has no name: {nameless}"
    );

    // The heat map holds as many exchanges as the API says.
    let heat = collector.json("/api/v1/heatmap?host=web-1&role=downstream&since=1h");
    let columns = heat["columns"].as_array().unwrap().iter();
    let counts = columns.filter_map(|column| column["counts"].as_array());
    let all: u64 = counts.flatten().map(|n| n.as_u64().unwrap()).sum();
    assert!(all > 0, "{heat}");
    let words = charts["heat"].as_str().unwrap();
    let expected = format!("Time to answer clients, all: {all} in all, most between");
    assert!(words.starts_with(&expected), "{words}, not {expected}");

    let custom = browser.answer();
    let expected = serde_json::json!({"refused": true, "minutes": 8, "field": true, "current": 0});
    assert_eq!(custom, expected);

    // Reports come while a button is held down, and faster than they are drawn.
    assert_eq!(browser.answer()["held"], true);
    agent.export(fresh("web-1", 1001)).await;
    writeln!(browser.stdin, "released").unwrap();
    assert_eq!(browser.answer()["focused"], "host id-web-1");
    for sequence in 1002..=1041 {
        agent.export(fresh("web-1", sequence)).await;
    }
    writeln!(browser.stdin, "reported").unwrap();
    let held = browser.answer();
    assert_eq!(held["scrolled"], 600);
    let [drawn, ms] = ["drawn", "ms"].map(|key| held[key].as_u64().unwrap());
    assert!((1..=ms / 490 + 1).contains(&drawn), "{held}");

    // A fleet of a hundred, each with a listener and a backend.
    for i in 0..97 {
        agent.export(fresh(&format!("fleet-{i}"), 1)).await;
    }
    writeln!(browser.stdin, "fleet").unwrap();
    let fleet = browser.answer();
    eprintln!(
        "first paint after {} ms, a hundred hosts after {} ms",
        fleet["first"], fleet["ms"]
    );
    assert_eq!(fleet["hosts"], 100);

    let phone = browser.answer();
    assert_eq!(phone["wide"], false, "it fits 360 px");
    let hostile = host(&phone, "id-hostile");
    assert!(
        hostile["text"]
            .as_str()
            .unwrap()
            .contains("<script>alert(1)</script>")
    );
    assert_eq!(phone["scripts"], 2, "our own alone");
    assert_eq!(
        phone["foreign"].as_array().unwrap().len(),
        0,
        "nothing leaves the origin"
    );
    assert_eq!(
        phone["complaints"].as_array().unwrap().len(),
        0,
        "{}",
        phone["complaints"]
    );
    drop(browser.stdin);
    assert!(browser.child.wait().unwrap().success());
}
