//! What the collector stored is what was sent, to the byte, through our proxy.

use testkit::{
    fixtures::Level,
    traffic::{Exchange, Load},
};

use super::{
    Case,
    scene::{Scene, assert_endpoint, downstream, origin_on, send, upstream},
};

pub(crate) const CASES: &[Case] = &[
    ("exact_small_bodies_ipv4", || small("127.0.0.1")),
    ("exact_small_bodies_ipv6", || small("::1")),
    ("exact_64_kib_bodies_ipv4", || {
        bodies("127.0.0.1", 64 << 10, 200);
    }),
    ("exact_64_kib_bodies_ipv6", || bodies("::1", 64 << 10, 200)),
    ("exact_5_mib_bodies_ipv4", || {
        bodies("127.0.0.1", 5 << 20, 12);
    }),
    ("exact_5_mib_bodies_ipv6", || bodies("::1", 5 << 20, 12)),
    (
        "level_tcp_counts_bytes_and_says_nothing_of_requests",
        level_tcp,
    ),
];

/// Sends the mix through the proxy and compares both of its sides.
fn exact(ip: &str, connections: usize, requests: u64, mix: Vec<Exchange>) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let load = Load::on(address)
        .connections(connections)
        .requests(requests)
        .mix(mix);
    let outcome = send(load);
    assert_eq!(
        outcome.connections, connections as u64,
        "connections are kept alive"
    );
    assert_eq!(outcome.requests, requests);
    // Its end closes what it keeps open to the origin.
    proxy.stop().unwrap();
    let served = origin.ended();
    let sums = scene.end();

    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
    assert_eq!(sums.len(), 2, "nothing else was counted: {sums:?}");
    assert_eq!(served.requests, requests);
}

fn small(ip: &str) {
    let mix = vec![
        Exchange::get(0),
        Exchange::get(100),
        Exchange::get_chunked(1_000),
        Exchange::head(100),
        Exchange::post(500, 10),
        Exchange::post_chunked(500, 10),
        Exchange::status(204),
        Exchange::status(304),
        Exchange::status(404),
        Exchange::status(503),
    ];
    exact(ip, 10, 2_000, mix);
}

fn bodies(ip: &str, bytes: u64, requests: u64) {
    let mix = vec![
        Exchange::get(bytes),
        Exchange::post(bytes, 0),
        Exchange::post(bytes, bytes),
        Exchange::get_chunked(bytes),
        Exchange::post_chunked(bytes, 1),
    ];
    exact(ip, 4, requests, mix);
}

fn level_tcp() {
    let origin = origin_on("127.0.0.1");
    let scene = Scene::watched_at(Level::Tcp);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let mix = [Exchange::get(100), Exchange::post(70_000, 70_000)];
    let outcome = send(Load::on(address).connections(5).requests(500).mix(mix));
    proxy.stop().unwrap();
    let served = origin.ended();
    let sums = scene.end();

    let is_of_http = |name: &str| name == "requests" || name.starts_with("responses");
    for (role, at, mut expected) in [
        ("downstream", address, downstream(&outcome)),
        ("upstream", origin.address(), upstream(&served)),
    ] {
        expected.retain(|name, _| !is_of_http(name));
        assert_endpoint(&sums, role, at, &expected);
        let counted = &sums[&(role.to_owned(), at.to_string())];
        assert!(
            !counted.keys().any(|name| is_of_http(name)),
            "what is not measured is null, never 0: {counted:?}"
        );
    }
}
