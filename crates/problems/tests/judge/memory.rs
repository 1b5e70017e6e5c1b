//! What the judgement takes.

use super::*;

#[test]
fn many_endpoints_take_bounded_memory() {
    let mut judge = HostJudge::default();
    let mut host = Host::new(1);
    let mut report = host.report();
    let template = report.endpoints[1].clone();
    let endpoints = (0..2 * problems::ENDPOINTS_MAX).map(|n| v1::Endpoint {
        address: format!("10.1.{}.{}:80", n / 250, n % 250),
        ..template.clone()
    });
    report.endpoints = endpoints.collect();
    for window in 0..6 {
        report.window_start_unix_ns = START_NS + window * WINDOW_NS;
        report.window_end_unix_ns = START_NS + (window + 1) * WINDOW_NS;
        judge.observe(&report, None, &Thresholds::default());
    }
    assert!(judge.bytes() < 8 << 20, "{}", judge.bytes());
    report.endpoints.truncate(45);
    for window in 6..12 {
        report.window_start_unix_ns = START_NS + window * WINDOW_NS;
        report.window_end_unix_ns = START_NS + (window + 1) * WINDOW_NS;
        judge.observe(&report, None, &Thresholds::default());
    }
    assert!(judge.bytes() < 2 << 20, "45 endpoints: {}", judge.bytes());
    // What docs/problems.md states, once the room of many is gone.
    let mut judge = HostJudge::default();
    for _ in 0..6 {
        judge.observe(&report, None, &Thresholds::default());
    }
    assert!(judge.bytes() < 64 << 10, "45 endpoints: {}", judge.bytes());
}
