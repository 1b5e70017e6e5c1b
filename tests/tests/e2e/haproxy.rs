//! The same with an unmodified `HAProxy` in place of our proxy, and its own
//! statistics as a third witness.

use testkit::{
    fixtures::{Haproxy, HaproxyStatistics, Level},
    reports::Counts,
    traffic::Load,
};

use super::{
    Case,
    nginx::mix,
    scene::{Scene, assert_endpoint, downstream, origin_on, send, upstream},
};

pub(crate) const CASES: &[Case] = &[
    ("haproxy_agrees_with_its_own_statistics_ipv4", || {
        agrees("127.0.0.1");
    }),
    ("haproxy_agrees_with_its_own_statistics_ipv6", || {
        agrees("::1");
    }),
];

fn agrees(ip: &str) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let haproxy = Haproxy::start(&scene.cgroup, origin.address()).unwrap();
    let address = haproxy.address();
    let outcome = send(Load::on(address).connections(8).requests(800).mix(mix()));
    let (frontend, backend) = haproxy.statistics().unwrap();
    haproxy.stop().unwrap();
    let served = origin.ended();
    let sums = scene.end();

    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));

    let of = |role: &str, at: String| &sums[&(role.to_owned(), at)];
    let clients = of("downstream", address.to_string());
    assert_eq!(clients["connections_opened"], frontend["conn_tot"]);
    assert_same(clients, &frontend, ["h1_bytes_in", "h1_bytes_out"]);
    let origins = of("upstream", origin.address().to_string());
    assert_eq!(origins["connections_opened"], backend["connect"]);
    assert_same(origins, &backend, ["h1_bytes_in", "h1_bytes_out"]);
}

/// Compares what the kernel counted with what `HAProxy` did, whose bytes are
/// those of its sockets.
#[track_caller]
fn assert_same(counted: &Counts, own: &HaproxyStatistics, [received, sent]: [&str; 2]) {
    assert_eq!(counted["requests"], own["req_tot"]);
    assert_eq!(counted["bytes_received"], own[received]);
    assert_eq!(counted["bytes_sent"], own[sent]);
    for class in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
        assert_eq!(
            counted[&format!("responses.{class}")],
            own[&format!("hrsp_{class}")],
            "{class}"
        );
    }
}
