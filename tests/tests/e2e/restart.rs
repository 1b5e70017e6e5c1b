//! An agent that dies stops neither the traffic nor the counting.

use std::time::Duration;

use testkit::{
    eventually,
    fixtures::Level,
    traffic::{Load, LoadErrors, Origin},
};

use super::{
    Case,
    scene::{REPORTS, Scene, assert_endpoint, downstream, origin_on, upstream},
};

pub(crate) const CASES: &[Case] = &[
    (
        "an_agent_killed_under_load_fails_no_request_and_misses_none",
        killed_under_load,
    ),
    (
        "an_agent_that_is_stopped_and_started_continues_its_totals",
        stopped_and_started,
    ),
];

fn killed_under_load() {
    let origin = origin_on("127.0.0.1");
    let mut scene = Scene::watched_at(Level::Http);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let load = Load::on(address)
        .connections(8)
        .duration(Duration::from_secs(300))
        .pause(Duration::from_millis(1));
    let running = load.start();
    for _ in 0..3 {
        let reports_before = scene.collector.reports().unwrap().len();
        eventually("report under load", REPORTS, || {
            (scene.collector.reports().ok()?.len() > reports_before).then_some(())
        });
        let dead = scene.agent.kill().unwrap();
        wait_for_more_requests(&origin, 500);
        scene.agent = dead.start().unwrap();
    }
    let outcome = running.stop().unwrap();
    assert_eq!(
        outcome.errors,
        LoadErrors::default(),
        "the traffic saw nothing of it"
    );

    proxy.stop().unwrap();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(
        &sums,
        "upstream",
        origin.address(),
        &upstream(&origin.counts()),
    );
}

fn stopped_and_started() {
    let origin = origin_on("127.0.0.1");
    let mut scene = Scene::watched_at(Level::Http);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let running = Load::on(address)
        .connections(4)
        .duration(Duration::from_secs(300))
        .pause(Duration::from_millis(1))
        .start();
    wait_for_more_requests(&origin, 500);
    let stopped = scene.agent.stop().unwrap();
    wait_for_more_requests(&origin, 500);
    scene.agent = stopped.start().unwrap();
    let outcome = running.stop().unwrap();
    assert_eq!(outcome.errors, LoadErrors::default());

    proxy.stop().unwrap();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(
        &sums,
        "upstream",
        origin.address(),
        &upstream(&origin.counts()),
    );
}

fn wait_for_more_requests(origin: &Origin, more: u64) {
    let goal = origin.counts().requests + more;
    eventually("requests", REPORTS, || {
        (origin.counts().requests >= goal).then_some(())
    });
}
