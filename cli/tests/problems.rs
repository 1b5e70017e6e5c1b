//! What is wrong, as `speedmimi problems` and `top --once` tell it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use common::{Collector, answering, report, speedmimi, stderr, stdout};
use serde_json::Value;

/// What `problems` prints, and its exit code.
fn problems(url: &str, more: &[&str]) -> (String, Option<i32>) {
    let mut arguments = vec!["problems", "--collector", url];
    arguments.extend(more);
    let output = speedmimi(&arguments).output().unwrap();
    (
        String::from_utf8(output.stdout).unwrap(),
        output.status.code(),
    )
}

/// Stores windows in which every answer has this status until the command ends with this
/// code; the number of the last one.
async fn answer_until(c: &Collector, from: u64, status: &str, code: i32) -> u64 {
    for n in from..from + 100 {
        let mut answering = report("web", n);
        let window = answering.endpoints[0].window.as_mut().unwrap();
        window.http.as_mut().unwrap().responses_by_code = [(status.to_owned(), 50)].into();
        c.store(vec![answering]).await;
        if problems(&c.url, &[]).1 == Some(code) {
            return n;
        }
    }
    panic!("a hundred windows of {status}, and `problems` never ended with {code}");
}

#[tokio::test]
async fn problems_are_told_and_the_exit_code_says_whether_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    let nobody = "no host has reported yet: nothing can be judged\n";
    assert_eq!(problems(&c.url, &[]), (nobody.to_owned(), Some(0)));
    c.store(vec![report("web", 1)]).await;
    let well = "nothing is wrong on 1 host\n";
    assert_eq!(problems(&c.url, &[]), (well.to_owned(), Some(0)));
    let once = stdout(&["top", "--once", "--collector", &c.url]);
    assert!(once.starts_with(well), "{once}");

    answer_until(&c, 2, "503", 1).await;
    let sentence = "critical  listener 127.0.0.1:8080 answers 100 % with 5xx\n";
    let (text, code) = problems(&c.url, &["--host", "web"]);
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.starts_with(sentence), "{text}");
    assert!(
        lines[1].starts_with("          web · since 2025-11-23 01:"),
        "{text}"
    );
    assert!(
        lines[1].ends_with("5xx_ratio 100 % · responses.5xx 50 responses · responses 50 responses"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("          next: a backend: its own log"),
        "{text}"
    );
    assert_eq!(
        problems(&c.url, &["--kind", "disk_full"]),
        (well.to_owned(), Some(0))
    );
    let once = stdout(&["top", "--once", "--collector", &c.url]);
    assert!(
        once.starts_with(sentence) && once.contains("ENDPOINT"),
        "{once}"
    );

    let (json, code) = problems(&c.url, &["--output", "json", "--severity", "critical"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["total"].as_u64(), code), (Some(1), Some(1)));
    assert_eq!(json["problems"][0]["kind"], "server_errors");
}

#[tokio::test]
async fn watching_tells_what_begins_and_what_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let c = Collector::start(dir.path());
    c.store(vec![report("web", 1)]).await;
    let arguments = [
        "problems",
        "--watch",
        "--output",
        "json",
        "--collector",
        &c.url,
    ];
    let mut child = speedmimi(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let last = answer_until(&c, 2, "503", 1).await;
    let begun = next();
    assert_eq!(
        (&begun["event"], &begun["problem"]["kind"]),
        (&"begin".into(), &"server_errors".into())
    );
    answer_until(&c, last + 1, "200", 0).await;
    let over = next();
    assert_eq!(over["event"], "end");
    assert_eq!(over["problem"]["subject"], begun["problem"]["subject"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_cannot_be_told_is_no_good_news() {
    let code = |arguments: &[&str]| {
        let output = speedmimi(arguments).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (unreachable, words) = code(&["problems", "--collector", "http://127.0.0.1:1"]);
    assert_eq!(unreachable, Some(2), "{words}");
    let (old, words) = code(&["problems", "--collector", &answering(&[])]);
    assert_eq!(old, Some(2), "{words}");
    const NOBODY: &[(&str, &str)] = &[
        (
            "/api/v1/problems?host=x",
            r#"{"problems":[],"total":0,"hosts":0}"#,
        ),
        ("/api/v1/hosts", r#"{"hosts":[]}"#),
    ];
    let url = answering(NOBODY);
    let (unknown, words) = code(&["problems", "--host", "x", "--collector", &url]);
    assert_eq!(unknown, Some(2), "{words}");
    assert!(
        words.contains("no host with the id or name \"x\""),
        "{words}"
    );
    let (usage, words) = code(&["problems", "--severity", "bad"]);
    assert_eq!(usage, Some(64), "{words}");
    assert!(words.contains("use info, warning or critical"), "{words}");
}

#[test]
fn hostile_words_of_a_problem_do_nothing_to_the_terminal() {
    const ANSWER: &str = r#"{"hosts":1,"total":1,"problems":[{"kind":"new_kind","severity":"warning","since":"\u001b[2J",
        "subject":{"type":"host","host":"\u001b]0;x\u0007","host_id":"i"},"summary":"a\u202eb",
        "evidence":[{"name":"\u001b","value":1.5,"unit":"\u001b"}],"details":["\u001b[31m"],"next":"\u001b"}]}"#;
    let url = answering(&[("/api/v1/problems", ANSWER)]);
    let (text, code) = problems(&url, &[]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("warning   a\u{fffd}b\n"), "{text:?}");
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
}
