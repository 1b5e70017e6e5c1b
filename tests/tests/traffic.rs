//! The load generator and the origin agree to the byte, with nothing between
//! them: what they say of a proxy can be believed.

use std::{net::SocketAddr, time::Duration};

use testkit::traffic::{Exchange, Load, Origin, Outcome};

fn everything() -> Vec<Exchange> {
    vec![
        Exchange::get(0),
        Exchange::get(100),
        Exchange::get_chunked(100_000),
        Exchange::head(5_000),
        Exchange::post(65_536, 10),
        Exchange::post_chunked(70_000, 65_536),
        Exchange::status(204),
        Exchange::status(304),
        Exchange::status(404),
        Exchange::status(503),
        Exchange::post(5 << 20, 5 << 20),
    ]
}

fn assert_agree(origin: &Origin, outcome: &Outcome) {
    assert_eq!(outcome.errors, testkit::traffic::LoadErrors::default());
    let counts = origin.counts();
    assert_eq!(counts.errors, 0);
    assert_eq!(counts.connections, outcome.connections);
    assert_eq!(counts.requests, outcome.requests);
    assert_eq!(counts.responses, outcome.responses);
    assert_eq!(counts.bytes_received, outcome.bytes_sent);
    assert_eq!(counts.bytes_sent, outcome.bytes_received);
}

#[test]
fn both_ends_count_the_same_bytes_for_every_kind_of_exchange() {
    let origin = Origin::on_loopback().unwrap();
    let outcome = Load::on(origin.address())
        .connections(7)
        .requests(110)
        .mix(everything())
        .run()
        .unwrap();
    assert_eq!(outcome.connections, 7);
    assert_eq!(outcome.requests, 110);
    assert_eq!(outcome.responses.total_final(), 110);
    assert_agree(&origin, &outcome);
}

#[test]
fn both_families_are_spoken() {
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    let origin = Origin::start(&[SocketAddr::from(([127, 0, 0, 1], 0)), v6]).unwrap();
    let mut requests = 0;
    for &address in origin.addresses() {
        requests += Load::on(address).requests(3).run().unwrap().requests;
    }
    assert_eq!(requests, 6);
    assert_eq!(origin.counts().requests, 6);
}

#[test]
fn a_connection_that_the_origin_closes_is_opened_again() {
    let origin = Origin::on_loopback().unwrap();
    let outcome = Load::on(origin.address())
        .requests(4)
        .mix([Exchange::get_closed(70_000)])
        .run()
        .unwrap();
    assert_eq!(outcome.connections, 4);
    assert_agree(&origin, &outcome);
}

#[test]
fn a_connection_is_closed_where_a_request_asks_for_it() {
    let origin = Origin::on_loopback().unwrap();
    let outcome = Load::on(origin.address())
        .requests(4)
        .mix([Exchange::get(100).closing(true)])
        .run()
        .unwrap();
    assert_eq!(outcome.connections, 4);
    assert_agree(&origin, &outcome);
}

#[test]
fn interim_responses_are_counted_and_end_nothing() {
    let origin = Origin::on_loopback().unwrap();
    let early = Exchange {
        path: "/early/10".to_owned(),
        ..Exchange::get(10)
    };
    let outcome = Load::on(origin.address())
        .requests(5)
        .mix([early])
        .run()
        .unwrap();
    assert_eq!(outcome.responses.informational, 5);
    assert_eq!(outcome.responses.successful, 5);
    assert_agree(&origin, &outcome);
}

#[test]
fn a_load_by_time_ends_and_loses_nothing() {
    let origin = Origin::on_loopback().unwrap();
    let load = Load::on(origin.address())
        .connections(4)
        .duration(Duration::from_secs(60));
    let running = load.start();
    testkit::eventually("requests", Duration::from_secs(10), || {
        (origin.counts().requests > 100).then_some(())
    });
    let outcome = running.stop().unwrap();
    assert!(outcome.requests > 100);
    assert_agree(&origin, &outcome);
}

#[test]
fn what_goes_wrong_is_counted_by_kind() {
    let origin = Origin::on_loopback().unwrap();
    let wrong_status = Exchange {
        status: 201,
        ..Exchange::get(10)
    };
    let wrong_length = Exchange {
        answer: Some(11),
        ..Exchange::get(10)
    };
    let mix = [wrong_status, wrong_length];
    let outcome = Load::on(origin.address())
        .requests(2)
        .mix(mix)
        .run()
        .unwrap();
    assert_eq!(outcome.errors.status, 1);
    assert_eq!(outcome.errors.content, 1);

    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let outcome = Load::on(nobody).requests(3).run().unwrap();
    assert_eq!(outcome.errors.connect, 3);
    assert_eq!(outcome.connections, 0);
}
