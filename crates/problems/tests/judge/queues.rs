//! Accept queues: what is an overflow, whose it is, and when it is over.

use super::*;

#[test]
fn what_a_queue_drops_is_an_overflow_only_where_one_was_full() {
    let told = |overflows, max, drops| {
        let mut watched = Watched::new(1);
        let mut problems = Vec::new();
        for _ in 0..3 {
            problems = watched.next(|_, report| {
                report.network_namespaces[0].listen_overflows = overflows;
                let queue = queue(report);
                (queue.connections_max, queue.drops) = (max, drops);
            });
        }
        let kinds = problems.into_iter().map(|problem| problem.kind);
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(told(0, 3, 9), <[&str; 0]>::default(), "stray segments");
    assert_eq!(told(9, 3, 9), ["accept_queue_overflow"], "between samples");
    // Nobody sees the network namespace.
    assert_eq!(told(0, 101, 9), ["accept_queue_overflow"]);
    // Another listener drops most of them.
    assert_eq!(
        told(30, 101, 9),
        ["accept_queue_overflow", "listen_overflow"]
    );
    assert_eq!(told(30, 3, 0), ["listen_overflow"]);
}

#[test]
fn a_queue_that_stays_full_is_no_problem_of_another_kind() {
    let mut watched = Watched::new(1);
    let with = |connections, drops| {
        move |_: &mut Host, report: &mut v1::Report| {
            let queue = queue(report);
            queue.connections = connections;
            (queue.connections_max, queue.drops) = (connections, drops);
        }
    };
    // Clients try again ever less often.
    for drops in [40, 40, 0, 40, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0] {
        let problems = watched.next(with(101, drops));
        assert_eq!(kinds(&problems), ["accept_queue_overflow"], "{drops}");
    }
    for _ in 1..problems::CLOSE_AFTER {
        assert!(!watched.next(with(40, 0)).is_empty());
    }
    assert_eq!(watched.next(with(40, 0)), []);
}

#[test]
fn a_listener_that_ended_has_no_problem() {
    let mut watched = Watched::new(1);
    let mut other = |address: &str, queue: v1::AcceptQueue| {
        watched.next(|_, report| {
            let mut endpoint = report.endpoints[0].clone();
            endpoint.address = address.to_owned();
            endpoint.accept_queue = Some(queue);
            report.endpoints.push(endpoint);
        })
    };
    let queue = |listener: &str, drops| v1::AcceptQueue {
        listener: listener.to_owned(),
        connections: 101,
        connections_max: 101,
        limit: 100,
        drops,
        ..v1::AcceptQueue::default()
    };
    for _ in 0..3 {
        let problems = other("10.0.0.1:81", queue("10.0.0.1:81", 9));
        assert_eq!(kinds(&problems), ["accept_queue_overflow"]);
    }
    let mut after = Vec::new();
    for _ in 0..problems::CLOSE_AFTER {
        after = other("10.0.0.1:82", v1::AcceptQueue::default());
    }
    assert_eq!(after, []);
}

#[test]
fn one_queue_of_two_addresses_is_one_problem() {
    let mut watched = Watched::new(1);
    let mut problems = Vec::new();
    for _ in 0..3 {
        problems = watched.next(|_, report| {
            (queue(report).connections_max, queue(report).drops) = (101, 5);
            let mut other = report.endpoints[0].clone();
            other.address = "10.0.0.2:80".to_owned();
            report.endpoints.push(other);
        });
    }
    assert_eq!(kinds(&problems), ["accept_queue_overflow"]);
    let subject = &problems[0].subject;
    assert_eq!(
        (subject.endpoint.as_str(), subject.listener.as_str()),
        ("0.0.0.0:80", "www")
    );
}
