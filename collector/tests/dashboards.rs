//! What `dist/` ships, against real programs: every query of the dashboards and
//! the rules has an answer from a real Prometheus that scraped a real collector.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod engines;
mod full;

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use common::{Collector, eventually, get, now_ns, trial};
use engines::{Engine, Kind, free_port, missing};
use full::full;
use libtest_mimic::Arguments;
use serde_json::Value;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let promtool = || missing("promtool", "prometheus");
    let trials = vec![
        trial("dashboards_are_whole", None, async || {
            dashboards_are_whole();
        }),
        trial("rules_are_sound", promtool(), async || rules_are_sound()),
        trial(
            "every_query_has_an_answer",
            Kind::Prometheus.missing(),
            every_query_has_an_answer,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn dist(path: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    repository.join("dist").join(path)
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let files = fs::read_dir(dist("grafana")).unwrap();
    let mut all: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text);
            (path, json.unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all.len(), 3, "fleet, host, upstream");
    all
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = value[key].as_str();
    found.unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Panels with queries; rows have none.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = array(&dashboard["panels"]).iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

fn queries(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard)
        .into_iter()
        .flat_map(|p| array(&p["targets"]));
    let mut all: Vec<String> = targets.map(|t| text(t, "expr").to_owned()).collect();
    for variable in array(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            let query = text(&variable["query"], "query");
            let inner = query.strip_prefix("label_values(").unwrap();
            let (selector, _label) = inner.rsplit_once(',').unwrap();
            all.push(selector.to_owned());
        }
    }
    all
}

fn dashboards_are_whole() {
    let mut uids = HashSet::new();
    let all = dashboards();
    for (path, dashboard) in &all {
        let place = path.display();
        assert!(uids.insert(text(dashboard, "uid")), "{place}");
        assert!(!text(dashboard, "title").is_empty() && !text(dashboard, "description").is_empty());
        assert_eq!(dashboard["schemaVersion"], 39, "{place}");
        let variables = array(&dashboard["templating"]["list"]);
        assert_eq!(variables[0]["type"], "datasource", "{place}");
        assert_eq!(variables[0]["query"], "prometheus", "{place}");
        let known: HashSet<&str> = variables.iter().map(|v| text(v, "name")).collect();
        let (mut ids, mut cells) = (HashSet::new(), HashSet::new());
        for panel in array(&dashboard["panels"]) {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place} {title}");
            let grid = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(grid("x") + grid("w") <= 24, "{place} {title} is too wide");
            for x in grid("x")..grid("x") + grid("w") {
                for y in grid("y")..grid("y") + grid("h") {
                    assert!(cells.insert((x, y)), "{place} {title} covers another one");
                }
            }
        }
        for panel in panels(dashboard) {
            let title = text(panel, "title");
            assert!(text(panel, "description").ends_with('.'), "{place} {title}");
            let kind = text(panel, "type");
            assert!(["stat", "timeseries", "heatmap"].contains(&kind), "{kind}");
            let unit = text(&panel["fieldConfig"]["defaults"], "unit");
            let units = [
                "none",
                "reqps",
                "cps",
                "ops",
                "percentunit",
                "s",
                "bytes",
                "Bps",
            ];
            assert!(units.contains(&unit), "{place} {title}: {unit}");
            let mut refs = HashSet::new();
            for target in array(&panel["targets"]) {
                assert_eq!(
                    target["datasource"]["uid"], "${datasource}",
                    "{place} {title}"
                );
                assert!(refs.insert(text(target, "refId")), "{place} {title}");
            }
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{place} {title}"
            );
        }
        // Every variable is one that is there.
        for query in queries(dashboard) {
            for used in query.split('$').skip(1) {
                let end = used.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &used[..end.unwrap_or(used.len())];
                assert!(known.contains(name) || name == "__rate_interval", "{query}");
            }
        }
    }
    for (_, dashboard) in &all {
        for link in array(&dashboard["links"]) {
            let uid = text(link, "url").strip_prefix("/d/").unwrap();
            assert!(uids.contains(uid.split('?').next().unwrap()), "{link}");
        }
    }
}

fn promtool(args: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(dist("prometheus"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn rules_are_sound() {
    let checked = promtool(&["check", "rules", "alerts.yml", "recording.yml"]);
    assert_eq!(checked.matches("SUCCESS").count(), 2, "{checked}");
    promtool(&["test", "rules", "tests.yml"]);
    // Every alert is tried by a test.
    let alerts = fs::read_to_string(dist("prometheus/alerts.yml")).unwrap();
    let tests = fs::read_to_string(dist("prometheus/tests.yml")).unwrap();
    let named = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in named {
        assert!(tests.contains(alert), "no test has {alert}");
    }
}

/// An alert's expression without its thresholds: in good health it has no
/// result, and what it compares must have one all the same.
fn without_thresholds(expression: &str) -> String {
    let mut out = String::new();
    let mut words = expression.split(' ').peekable();
    while let Some(word) = words.next() {
        let compares = [">", "<", "==", ">=", "<="].contains(&word);
        let number = words
            .peek()
            .map_or("", |next| next.trim_end_matches([')', '\n']));
        if compares && number.parse::<f64>().is_ok() {
            let rest = &words.next().unwrap()[number.len()..];
            out.truncate(out.trim_end().len());
            out.push_str(rest);
            out.push(' ');
            continue;
        }
        out.push_str(word);
        out.push(' ');
    }
    out.trim_end().to_owned()
}

async fn every_query_has_an_answer() {
    assert_eq!(without_thresholds("rate(a[5m]) > 0.05"), "rate(a[5m])");
    assert_eq!(without_thresholds("(a > 5) and (b < 1)"), "(a) and (b)");
    let dir = tempfile::tempdir().unwrap();
    let nobody = [
        ["--remote-write", "http://127.0.0.1:1/"],
        ["--otlp", "http://127.0.0.1:1"],
    ];
    let collector = Collector::start_with(dir.path(), nobody.as_flattened());
    let mut agent = collector.agent().await;
    // Five reports a second, whose totals grow.
    let reporting = tokio::spawn(async move {
        for sequence in 1.. {
            let mut report = full("web", sequence);
            report.window_end_unix_ns = now_ns();
            report.window_start_unix_ns = report.window_end_unix_ns - 5_000_000_000;
            report.endpoints[1].upstream = "app".into();
            let dropped = ("reports_dropped".to_owned(), sequence);
            report.losses_totals.extend([dropped]);
            // A problem that is critical; the errors below are a warning.
            report.network_namespaces[0].listen_overflows = 9;
            agent.export(report).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let engine_dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs: [{{job_name: c, static_configs: [{{targets: ['{}']}}]}}]\n",
        dist("prometheus/[ar]*.yml").display(),
        collector.http
    );
    let engine = Engine::start_with(Kind::Prometheus, engine_dir.path(), port, &config);
    let answers = |query: &str| {
        eventually(&format!("{query} has an answer"), || {
            !engine.series(query).is_empty()
        });
    };
    let mut asked = BTreeSet::new();
    for (_, dashboard) in dashboards() {
        for query in queries(&dashboard) {
            let mut query = query.replace("$__rate_interval", "30s");
            for variable in array(&dashboard["templating"]["list"]) {
                query = query.replace(&format!("${}", text(variable, "name")), ".*");
            }
            asked.insert(query);
        }
    }
    assert!(asked.len() > 60, "{}", asked.len());
    asked.iter().for_each(|query| answers(query));

    let rules = get(&format!("{}/api/v1/rules", engine.url), &[]).body;
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let groups = array(&rules["data"]["groups"]);
    let rules: Vec<&Value> = groups.iter().flat_map(|g| array(&g["rules"])).collect();
    assert_eq!(rules.len(), 33);
    for rule in rules {
        if rule["type"] == "recording" {
            answers(text(rule, "name"));
        } else {
            answers(&without_thresholds(text(rule, "query")));
        }
    }
    // What is ill is told: 20 % of the answers are 503, and more besides.
    answers("ALERTS{alertname=\"SpeedMimiServerErrors\"}");
    let silent = engine.series("ALERTS{alertname=\"SpeedMimiHostSilent\"}");
    assert!(silent.is_empty(), "{silent:?}");
    // It ends before its collector does, and has not failed until here.
    reporting.abort();
    assert!(reporting.await.unwrap_err().is_cancelled());
}
