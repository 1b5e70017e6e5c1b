//! The same with an unmodified nginx in place of our proxy, and its own counts
//! as a third witness.

use testkit::{
    Cgroup,
    fixtures::{Level, Nginx},
    traffic::{Exchange, Load},
};

use super::{
    Case,
    scene::{Scene, assert_endpoint, downstream, origin_on, send, upstream},
};

pub(crate) const CASES: &[Case] = &[
    ("nginx_and_the_load_generator_count_alike", witnesses),
    ("nginx_agrees_with_its_own_counts_ipv4", || {
        agrees("127.0.0.1");
    }),
    ("nginx_agrees_with_its_own_counts_ipv6", || agrees("::1")),
    ("nginx_sends_segments_of_more_than_64_kib_ipv4", || {
        large_uploads("127.0.0.1");
    }),
    ("nginx_sends_segments_of_more_than_64_kib_ipv6", || {
        large_uploads("::1");
    }),
];

pub(crate) fn mix() -> [Exchange; 8] {
    [
        Exchange::get(100),
        Exchange::head(100),
        Exchange::post(500, 10),
        Exchange::status(404),
        Exchange::get(64 << 10),
        Exchange::post(64 << 10, 64 << 10),
        Exchange::get(5 << 20),
        Exchange::post(5 << 20, 0),
    ]
}

/// The third witness is worth something only if the first two agree with it.
fn witnesses() {
    let origin = origin_on("127.0.0.1");
    let cgroup = Cgroup::create("nginx").unwrap();
    let nginx = Nginx::start(&cgroup, origin.address()).unwrap();
    let outcome = send(
        Load::on(nginx.address())
            .connections(8)
            .requests(800)
            .mix(mix()),
    );
    let own = nginx.counts().unwrap();
    assert_eq!(outcome.connections, own.connections);
    assert_eq!(outcome.requests, own.requests);
    assert_eq!(outcome.bytes_sent, own.bytes_received);
    assert_eq!(outcome.bytes_received, own.bytes_sent);
    nginx.stop().unwrap();
}

fn agrees(ip: &str) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let nginx = Nginx::start(&scene.cgroup, origin.address()).unwrap();
    let address = nginx.address();
    let outcome = send(Load::on(address).connections(8).requests(800).mix(mix()));
    let own = nginx.counts().unwrap();
    nginx.stop().unwrap();
    let sums = scene.end();

    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(
        &sums,
        "upstream",
        origin.address(),
        &upstream(&origin.counts()),
    );
    let counted = &sums[&("downstream".to_owned(), address.to_string())];
    assert_eq!(counted["connections_opened"], own.connections);
    assert_eq!(counted["requests"], own.requests);
    assert_eq!(counted["requests"], own.logged);
    assert_eq!(counted["bytes_received"], own.bytes_received);
    assert_eq!(counted["bytes_sent"], own.bytes_sent);
}

/// Uploads that wait for the origin's window are sent in pieces of more than
/// 64 KiB; over IPv6 the kernel puts a jumbo option before each, and a request
/// begins behind it.
fn large_uploads(ip: &str) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let nginx = Nginx::start(&scene.cgroup, origin.address()).unwrap();
    let address = nginx.address();
    let mix = [Exchange::post(5 << 20, 0)];
    let outcome = send(Load::on(address).connections(8).requests(200).mix(mix));
    nginx.stop().unwrap();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(
        &sums,
        "upstream",
        origin.address(),
        &upstream(&origin.counts()),
    );
}
