//! Each question of docs/answers.md has a view of the page, which shows what it says.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use monitor_proto::v1;
use serde_json::Value;

use super::{Collector, fresh};

/// A view, and what it is said to have: headings, captions of tables and of charts.
struct View {
    question: &'static str,
    address: &'static str,
    names: Vec<&'static str>,
}

/// The lines that begin with "On the page:"; a question without one is told.
fn views() -> Vec<View> {
    let document = include_str!("../../../docs/answers.md");
    let mut views = Vec::new();
    for section in document.split("\n## ").skip(1) {
        let (question, text) = section.split_once('\n').unwrap();
        let before = views.len();
        for paragraph in text.split("\n\n") {
            let Some(said) = paragraph.strip_prefix("On the page: ") else {
                continue;
            };
            // Between two backticks stands an address, and what it has up to the next one.
            let mut parts = said.split('`').skip(1);
            while let (Some(address), Some(of)) = (parts.next(), parts.next()) {
                views.push(View {
                    question,
                    address,
                    names: of.split('*').skip(1).step_by(2).collect(),
                });
            }
        }
        assert!(views.len() > before, "{question}: has no view of the page");
    }
    views
}

/// The host of the document, with its sites and upstreams.
fn vm() -> v1::Report {
    let mut r = fresh("vm", 1);
    let [site, backend] = [0, 1].map(|n| r.endpoints[n].clone());
    let site = |n: u32, name: &str| v1::Endpoint {
        address: format!("127.0.0.1:80{n:02}"),
        name: name.into(),
        accept_queue: Some(v1::AcceptQueue {
            listener: format!("0.0.0.0:80{n:02}"),
            limit: 511,
            ..Default::default()
        }),
        ..site.clone()
    };
    let backend = |upstream: &str, address: &str| v1::Endpoint {
        address: address.into(),
        upstream: upstream.into(),
        backend: address.into(),
        ..backend.clone()
    };
    r.endpoints = vec![
        site(80, "shop.example"),
        site(81, "files.example"),
        backend("shop", "127.0.1.1:9000"),
        backend("shop", "127.0.1.2:9000"),
        backend("shop", "127.0.1.3:9000"),
        backend("files", "127.0.2.1:9000"),
        backend("files", "127.0.2.2:9000"),
        backend("pay", "127.0.3.1:9000"),
    ];
    r.clients = Some(v1::Clients {
        prefix_v4: 32,
        prefix_v6: 64,
        top: vec![v1::Client {
            address: "127.0.8.1".into(),
            bytes_sent: 4_096,
            ..Default::default()
        }],
    });
    r.losses_totals = [("samples_dropped".to_owned(), 5)].into();
    r
}

pub(crate) async fn the_answers(packages: &Path) {
    let views = views();
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    agent.export(vm()).await;
    let addresses: Vec<_> = views.iter().map(|view| view.address).collect();
    let answer = Command::new("node")
        .args(["answers.mjs", &collector.url("/"), "/usr/bin/chromium"])
        .arg(serde_json::to_string(&addresses).unwrap())
        .current_dir(packages)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(answer.status.success());
    let found: BTreeMap<String, Value> = serde_json::from_slice(&answer.stdout).unwrap();
    for View {
        question,
        address,
        names,
    } in views
    {
        let shown = &found[address];
        assert_eq!(shown["refused"], serde_json::json!([]), "{address}");
        assert_eq!(shown["unknown"], false, "{address}");
        assert!(
            !names.is_empty(),
            "{question}: {address} is said to have nothing"
        );
        let of = |key: &str| -> Vec<&str> {
            let all = shown[key].as_array().unwrap().iter();
            all.map(|one| one.as_str().unwrap()).collect()
        };
        let all = of("names");
        for name in names {
            let is_there = all.iter().any(|one| one.starts_with(name));
            assert!(is_there, "{question}: {address} has no {name}: {shown}");
        }
        // A range that has ended has no figures here.
        let is_drawn = !of("drawn").is_empty();
        assert!(
            is_drawn || !address.contains("range="),
            "{question}: {address} draws nothing"
        );
        if let Some((_, order)) = address.split_once("order=") {
            let by = format!(" {order}");
            let is_sorted = of("sorted").iter().any(|one| one.ends_with(&by));
            assert!(is_sorted, "{question}: {address}: {shown}");
        }
    }
}
