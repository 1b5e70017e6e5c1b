//! An agent that dies stops neither the traffic nor the counting.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustix::io::ioctl_fionread;
use testkit::{
    eventually,
    fixtures::{Agent, Level},
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
    (
        "connections_that_outlive_a_restarted_service_are_counted_to_their_end",
        orphans_of_a_service,
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
    let served = origin.ended();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
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
    let served = origin.ended();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
}

/// A service that is killed leaves connections to the kernel, which still has
/// something to send; the next one has a cgroup of its own in the same place.
fn orphans_of_a_service() {
    const LARGE: usize = 64 << 20;
    let origin = origin_on("127.0.0.1");
    let mut scene = Scene::watched_at(Level::Http);
    let mut proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let mut client = TcpStream::connect(address).unwrap();
    let request = format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    // Nothing more fits: the proxy has something left to send.
    let mut waits = 0;
    eventually("the client's buffer is full", REPORTS, || {
        std::thread::sleep(Duration::from_millis(300));
        let waited = std::mem::replace(&mut waits, ioctl_fionread(&client).ok()?);
        (waits > 0 && waits == waited).then_some(())
    });
    proxy.process().kill().unwrap();
    let cgroup = scene.cgroup.path().to_owned();
    eventually("the cgroup is empty", REPORTS, || {
        fs::remove_dir(&cgroup).ok()
    });
    fs::create_dir(&cgroup).unwrap();
    eventually("the agent's attention", REPORTS, || {
        let log = scene.agent.process().log();
        log.contains("has come; it is counted").then_some(())
    });
    let next = scene.proxy_to(origin.address());
    let counted = |agent: &Agent, of: SocketAddr| -> [u64; 3] {
        let report = agent.snapshot().unwrap();
        let endpoints = report["endpoints"].as_array().unwrap();
        let endpoint = endpoints.iter().find(|e| e["address"] == of.to_string());
        let totals = &endpoint.unwrap()["totals"];
        let difference = &report["reconciliation"]["connection_difference"];
        [
            totals["connections_opened"].as_u64().unwrap(),
            totals["connections_closed"].as_u64().unwrap(),
            difference.as_u64().unwrap(),
        ]
    };
    assert_eq!(counted(&scene.agent, address), [1, 0, 0]);
    // What it has not read makes its end a reset.
    drop(client);
    eventually("the connection's end", REPORTS, || {
        (counted(&scene.agent, address) == [1, 1, 0]).then_some(())
    });
    next.stop().unwrap();
    scene.end();
}

fn wait_for_more_requests(origin: &Origin, more: u64) {
    let goal = origin.counts().requests + more;
    eventually("requests", REPORTS, || {
        (origin.counts().requests >= goal).then_some(())
    });
}
