//! An agent without a collector.

use std::net::TcpListener;

use crate::kernel::FakeKernel;
use monitor_agent::{cli::RunArgs, control};

use crate::{
    Agent, End, args, eventually,
    receiver::{Receiver, Reply},
};

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Killed, restarted, without a receiver for a while: the newest sums are what
/// was counted, and every report between was taken.
#[allow(clippy::float_cmp, reason = "counts below 2^53 are exact in floats")]
fn whatever_is_restarted(scheme: &str, start: fn(u16) -> Receiver) {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let port = free_port();
    let args = || RunArgs {
        otlp: Some(format!("{scheme}://127.0.0.1:{port}")),
        ..args(dir.path())
    };
    let socket = dir.path().join("control.sock");
    let pending = || control::ask(&socket, "status").unwrap()["reports_pending"].as_u64();
    let agent = Agent::start_with(args(), &kernel);
    eventually("it answers", || control::ask(&socket, "status").is_ok());
    eventually("reports wait in the spool", || pending() > Some(3));
    // No report waits for ever, and none is taken twice with another body.
    agent.end(End::Killed);
    let receiver = start(port);
    let agent = Agent::start_with(args(), &kernel);
    let taken = || receiver.count("speedmimi.requests", "role=downstream");
    eventually("the spool is delivered", || taken() > 6);
    agent.end(End::Graceful);
    let agent = Agent::start_with(args(), &kernel);
    let before = taken();
    eventually("more are delivered", || taken() > before + 3);
    kernel.stop_counting();
    agent.end(End::Graceful);
    let (requests, bytes) = kernel.counted();
    assert_eq!(receiver.sum("speedmimi.requests"), Some(requests as f64));
    assert_eq!(receiver.sum("speedmimi.bytes.received"), Some(bytes as f64));
    let durations = receiver.sum("http.server.request.duration#count").unwrap()
        + receiver.sum("http.client.request.duration#count").unwrap();
    assert_eq!(durations, requests as f64);
    // Interfaces count since the boot, long before this agent.
    let since_boot = receiver.starts("system.network.io");
    assert!(since_boot.len() >= 2 && since_boot.iter().all(|s| *s > 1_000_000_000_000_000_000));
    assert!(receiver.sum("system.network.io") > Some(0.0));
}

pub(crate) fn over_http_the_newest_sums_are_what_was_counted() {
    whatever_is_restarted("http", Receiver::http);
}

pub(crate) fn over_grpc_the_newest_sums_are_what_was_counted() {
    whatever_is_restarted("grpc", Receiver::grpc);
}

pub(crate) fn what_a_receiver_never_takes_is_told_as_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let receiver = Receiver::http(0);
    receiver.answer([
        Reply::Http(400, None),
        Reply::Http(503, None),
        Reply::Partial(2),
    ]);
    let otlp = Some(format!("http://{}", receiver.address));
    let args = RunArgs {
        otlp,
        ..args(dir.path())
    };
    let agent = Agent::start_with(args, &kernel);
    let rejected = || {
        let points = receiver.points();
        let mut losses = points
            .iter()
            .filter(|((_, name, attributes), _)| {
                name == "speedmimi.losses" && attributes == "reason=reports_rejected"
            })
            .filter_map(|(_, points)| points.values().next_back().copied());
        losses.next()
    };
    eventually("both are told", || rejected() == Some(2.0));
    agent.end(End::Graceful);
}
