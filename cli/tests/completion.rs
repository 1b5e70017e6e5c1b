//! What a real shell completes, with a real collector.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{Collector, report};

/// What bash would offer at the end of `line`.
fn offered(line: &str) -> Vec<String> {
    const COMPLETE: &str = r#"
        set -u
        source <(speedmimi completions bash)
        COMP_LINE=$1 COMP_POINT=${#1}
        read -ra COMP_WORDS <<<"$1"
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        function=$(complete -p speedmimi | sed 's/.*-F \([^ ]*\).*/\1/')
        $function speedmimi "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let binary = Path::new(env!("CARGO_BIN_EXE_speedmimi"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", binary.parent().unwrap().display());
    let output = Command::new("bash")
        .args(["--norc", "-c", COMPLETE, "bash", line])
        .env("PATH", path)
        .env_remove("SPEEDMIMI_COLLECTOR")
        .env_remove("SPEEDMIMI_TOKEN")
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_offers_the_hosts_that_the_collector_knows_now() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    let stats = format!("speedmimi stats --collector {} ", c.url);
    let reports = format!("speedmimi reports --collector {} --host ", c.url);
    assert!(!offered(&stats).contains(&"web-1".to_owned()));
    let mut hostile = report("x", 1);
    hostile.host.as_mut().unwrap().name = "$(touch /tmp/$$)`id`;*".into();
    c.store(vec![
        report("web-1", 1),
        report("web-2", 1),
        report("db", 1),
        hostile,
    ])
    .await;
    let hostile_by_id = report("x", 1).host.unwrap().id;
    let mut all = vec![
        "db".to_owned(),
        "web-1".into(),
        "web-2".into(),
        hostile_by_id,
    ];
    all.sort();
    assert_eq!(offered(&stats), all);
    assert_eq!(offered(&reports), all);
    assert_eq!(offered(&format!("{reports}we")), ["web-1", "web-2"]);
    // Everything else is completed as ever.
    assert_eq!(offered("speedmimi stats --outp"), ["--output"]);
    assert_eq!(offered("speedmimi completions ba"), ["bash"]);
}

#[test]
fn a_collector_that_does_not_answer_costs_a_second_and_says_nothing() {
    // Connections are accepted by the kernel, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for url in [url.as_str(), "http://127.0.0.1:1", "no-url"] {
        let started = Instant::now();
        let line = format!("speedmimi reports --collector {url} --host ");
        assert!(!offered(&line).iter().any(|word| word.contains("web")));
        // The second, and starting a shell on a busy machine.
        assert!(started.elapsed() < Duration::from_secs(5), "{url}");
    }
}
