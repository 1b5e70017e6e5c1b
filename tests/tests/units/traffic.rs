//! The packages as they are configured: the agent's reports arrive, and what goes
//! through the proxy is in them.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::OnceLock};

use testkit::{
    eventually, http, reports,
    traffic::{Exchange, Load, LoadErrors, Origin, OriginCounts},
};

use super::{
    Case,
    unit::{AGENT, ALL, COLLECTOR, PATIENCE, PROXY, run},
};

pub(crate) const CASES: &[Case] = &[
    (
        "agent_and_collector_are_ready_after_the_boot",
        ready_after_the_boot,
    ),
    ("traffic_through_the_proxy_is_counted", traffic_is_counted),
    ("an_agent_that_is_killed_continues_its_totals", killed),
];

const PROXY_CONFIG: &str = "/etc/speedmimi/proxy.yaml";

pub(crate) fn http_of_the_collector() -> SocketAddr {
    "127.0.0.1:7601".parse().unwrap()
}

fn proxy() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

fn ready_after_the_boot() {
    for unit in [AGENT, COLLECTOR] {
        unit.is_ready();
        assert_eq!(unit.property("Type"), "notify");
    }
    assert_eq!(PROXY.property("ActiveState"), "inactive");
    assert_eq!(PROXY.property("UnitFileState"), "disabled");
    // Without a token copied by hand.
    eventually("the host's first report", PATIENCE, || {
        let hosts = http::get_json(http_of_the_collector(), "/api/v1/hosts").ok()?;
        (hosts["hosts"].as_array()?.len() == 1).then_some(())
    });
}

/// The proxy before an origin, and the totals of its listener when all is reported.
fn totals_after(requests: u64) -> BTreeMap<String, u64> {
    let total = || {
        let all = reports::fetch(http_of_the_collector()).ok()?;
        let endpoints = reports::totals(all.last()?);
        let of =
            |(role, address): &(String, String)| role == "downstream" && address.ends_with(":8080");
        let (_, counts) = endpoints.into_iter().find(|(key, _)| of(key))?;
        let done = counts.get("requests") == Some(&requests)
            && counts.get("connections_closed") == counts.get("connections_opened");
        done.then_some(counts)
    };
    testkit::try_eventually(PATIENCE, total).unwrap_or_else(|| {
        let all = reports::fetch(http_of_the_collector()).unwrap();
        panic!("{:#?}\n{}", all.last().map(reports::totals), AGENT.log())
    })
}

/// Of the packages' own configuration the port stays, and the backend is ours.
fn configure(origin: SocketAddr) {
    let config = format!(
        "server: {{ host: \"127.0.0.1\", port: 8080 }}\n\
         backends:\n  default:\n    - {{ id: \"origin\", host: \"127.0.0.1\", port: {}, scheme: \"http\" }}\n\
         routing:\n  default: {{ path: \"/\", upstream: \"default\", load_balancer: \"weight\" }}\n",
        origin.port()
    );
    fs::write(PROXY_CONFIG, config).unwrap();
}

fn send(requests: u64) {
    let mix = [
        Exchange::get(1_000),
        Exchange::post(5_000, 10),
        Exchange::status(404),
    ];
    let load = Load::on(proxy()).connections(4).requests(requests).mix(mix);
    let outcome = load.run().unwrap();
    assert_eq!(outcome.errors, LoadErrors::default());
    assert_eq!(outcome.requests, requests);
}

/// The one that the proxy has until the last test.
fn lasting_origin() -> &'static Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| Origin::on_loopback().unwrap())
}

/// A reload takes another origin, while the unit goes on.
fn traffic_is_counted() {
    let (one, other) = (Origin::on_loopback().unwrap(), lasting_origin());
    configure(one.address());
    PROXY.does("enable");
    PROXY.does("start");
    PROXY.is_ready();
    // The agent finds the unit by itself, and loads its programs.
    AGENT.says("a watched cgroup has come; it is counted from now on");
    send(300);
    assert_eq!(one.counts().requests, 300);

    let process = PROXY.property("MainPID");
    configure(other.address());
    PROXY.does("reload");
    eventually("a request at the other origin", PATIENCE, || {
        http::get(proxy(), "/b/0").ok()?;
        (other.counts().requests > 0).then_some(())
    });
    let moved = one.counts().requests + other.counts().requests;
    send(300);
    assert_eq!(PROXY.property("MainPID"), process);
    let all = one.counts().requests + other.counts().requests;
    assert_eq!(all, moved + 300);
    let counts = totals_after(all);
    assert_eq!(counts["responses.5xx"], 0);
    assert_eq!(
        sum(&[one.counts(), other.counts()]),
        counts["responses.2xx"] + counts["responses.4xx"]
    );
}

fn sum(counts: &[OriginCounts]) -> u64 {
    counts.iter().map(|c| c.responses.total_final()).sum()
}

fn killed() {
    let served = lasting_origin().counts().requests;
    let before = totals();
    let process = AGENT.property("MainPID");
    run("systemctl", &["kill", "--signal=KILL", AGENT.0]).unwrap();
    send(200);
    eventually("another process", PATIENCE, || {
        let now = AGENT.property("MainPID");
        (now != "0" && now != process).then_some(())
    });
    AGENT.is_ready();
    send(100);
    assert_eq!(lasting_origin().counts().requests, served + 300);
    let counts = totals_after(before + 300);
    assert_eq!(counts["connections_adopted"], 0);
    for unit in ALL {
        unit.is_ready();
    }
}

/// The requests that are reported of the listener.
fn totals() -> u64 {
    let all = reports::fetch(http_of_the_collector()).unwrap();
    let endpoints = reports::totals(all.last().unwrap());
    let listener = |key: &(String, String)| key.0 == "downstream" && key.1.ends_with(":8080");
    let (_, counts) = endpoints
        .into_iter()
        .find(|(key, _)| listener(key))
        .unwrap();
    counts["requests"]
}
