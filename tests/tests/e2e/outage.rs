//! A collector that is gone loses nothing and disturbs nobody.

use std::{thread, time::Duration};

use testkit::{
    eventually,
    fixtures::Level,
    traffic::{Load, LoadErrors},
};

use super::{
    Case,
    scene::{REPORTS, Scene, assert_endpoint, downstream, origin_on, upstream},
};

pub(crate) const CASES: &[Case] = &[(
    "a_collector_killed_for_20_seconds_under_load_loses_nothing",
    killed_for_20_seconds,
)];

fn killed_for_20_seconds() {
    let origin = origin_on("127.0.0.1");
    let scene = Scene::watched_at(Level::Http);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let load = Load::on(address)
        .connections(8)
        .duration(Duration::from_secs(300))
        .pause(Duration::from_millis(5));
    let running = load.start();
    let Scene {
        agent,
        collector,
        cgroup,
    } = scene;
    eventually("report before the outage", REPORTS, || {
        let reports = collector.reports().ok()?;
        (reports.len() >= 2).then_some(())
    });

    let killed = collector.kill().unwrap();
    let requests_before = origin.counts().requests;
    // The length of the outage is what is tested.
    thread::sleep(Duration::from_secs(20));
    let requests_meanwhile = origin.counts().requests - requests_before;
    let collector = killed.start().unwrap();

    let outcome = running.stop().unwrap();
    assert_eq!(
        outcome.errors,
        LoadErrors::default(),
        "the traffic saw nothing of it"
    );
    assert!(requests_meanwhile > 0, "there was load during the outage");
    eventually("stored requests", REPORTS, || {
        let sums = collector.sums().ok()?;
        let counted = sums.get(&("downstream".to_owned(), address.to_string()))?;
        (counted["requests"] == outcome.requests).then_some(())
    });
    assert_without_gaps(&collector.reports().unwrap());

    proxy.stop().unwrap();
    let scene = Scene {
        agent,
        collector,
        cgroup,
    };
    let served = origin.ended();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
}

/// Every sequence number of the agent's epoch is there once.
fn assert_without_gaps(reports: &[serde_json::Value]) {
    let sequences: Vec<u64> = reports
        .iter()
        .map(|report| report["sequence"].as_u64().unwrap())
        .collect();
    let first = sequences[0];
    let expected: Vec<u64> = (first..first + sequences.len() as u64).collect();
    assert_eq!(sequences, expected);
}
