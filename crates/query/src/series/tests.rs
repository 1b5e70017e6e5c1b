//! Steps, gaps and figures.

use rollup::{EndpointRoll, GaugeRoll, HostRoll};

use super::{BadPlan, Metric, Plan, Samples, Tier, points};

fn plan(metric: &str, since_s: u64, until_s: u64, step_s: Option<u64>) -> Result<Plan, BadPlan> {
    Plan::try_new(Metric::find(metric).unwrap(), since_s, until_s, step_s)
}

#[test]
fn the_tier_follows_from_the_step() {
    let of = |range_s: u64, step_s| {
        let plan = plan("requests", 7200, 7200 + range_s, step_s).unwrap();
        (plan.tier, plan.step_s)
    };
    assert_eq!(of(300, None), (Tier::Raw, 10));
    assert_eq!(of(3600, None), (Tier::Raw, 15));
    assert_eq!(of(86_400, None), (Tier::Rolled(60), 600));
    assert_eq!(of(7 * 86_400, None), (Tier::Rolled(3600), 3600));
    assert_eq!(of(86_400, Some(90)), (Tier::Rolled(60), 120));
    assert_eq!(of(86_400, Some(50)), (Tier::Rolled(60), 60));
    assert_eq!(of(30 * 86_400, Some(3601)), (Tier::Rolled(3600), 7200));
}

#[test]
fn many_hosts_are_answered_from_roll_ups() {
    let of = |hosts, step_s| {
        let metric = Metric::find("cpu_usage").unwrap();
        let plan = Plan::of_hosts(hosts, metric, 7200, 7200 + 3600, step_s).unwrap();
        (plan.tier, plan.step_s)
    };
    assert_eq!(of(6, None), (Tier::Raw, 15));
    assert_eq!(of(7, None), (Tier::Rolled(60), 60));
    assert_eq!(of(1000, None), (Tier::Rolled(60), 300));
    assert_eq!(of(1000, Some(10)), (Tier::Rolled(60), 60));
    assert_eq!(of(1_000_000, None), (Tier::Rolled(3600), 3600));
}

#[test]
fn what_cannot_be_answered_is_refused() {
    assert_eq!(
        plan("requests", 10, 10, None).unwrap_err(),
        BadPlan::Reversed
    );
    assert_eq!(
        plan("requests", 0, 60, Some(1)).unwrap_err(),
        BadPlan::StepTooSmall(1)
    );
    assert!(matches!(
        plan("requests", 0, 86_400 * 30, Some(60)),
        Err(BadPlan::TooManySteps(_))
    ));
    assert!(plan("requests", 0, u64::MAX, None).is_ok_and(|p| p.tier == Tier::Rolled(3600)));
    assert!(Metric::find("nonsense").is_none());
}

#[test]
fn rates_divide_by_the_covered_time_and_gaps_stay_gaps() {
    let plan = plan("requests", 600, 660, Some(20)).unwrap();
    let roll = |requests, http_ns| EndpointRoll {
        covered_ns: 5_000_000_000,
        http_ns,
        requests,
        ..EndpointRoll::default()
    };
    let second = 5_000_000_000;
    let samples = Samples::Endpoint(vec![
        (604, roll(50, second)),
        (609, roll(100, second)),
        (641, roll(0, 0)),
    ]);
    let points = points(&plan, &samples);
    let values: Vec<_> = points.iter().map(|p| p.value).collect();
    assert_eq!(
        values,
        [Some(15.0), None, None],
        "the last was not measured"
    );
    assert!((points[0].coverage - 0.5).abs() < 1e-9);
    assert!((points[1].coverage).abs() < 1e-9);
    assert!(points[0].complete && !points[1].complete);
    assert_eq!(points[0].time, "1970-01-01T00:10:00Z");
}

#[test]
fn requests_that_cannot_be_seen_are_no_zero() {
    let values = |metric: &str, requests, ok, exchanges| {
        let roll = |requests, ok, exchanges| EndpointRoll {
            covered_ns: 10_000_000_000,
            http_ns: 10_000_000_000,
            requests,
            responses_2xx: ok,
            exchanges,
            ..EndpointRoll::default()
        };
        // An idle step, and the one that is looked at.
        let samples = vec![(604, roll(0, 0, 0)), (614, roll(requests, ok, exchanges))];
        let plan = plan(metric, 600, 620, Some(10)).unwrap();
        let points = points(&plan, &Samples::Endpoint(samples));
        [points[0].value, points[1].value]
    };
    for (requests, ok, exchanges, seen) in [
        (20, 10, 0, true),
        (0, 10, 0, true),
        (0, 0, 0, true),
        (0, 0, 30, false),
        (20, 0, 30, true),
        // The responses to requests of the step before.
        (0, 10, 30, true),
    ] {
        let of = |metric| values(metric, requests, ok, exchanges);
        let rate = |n: u64| Some(n as f64 / 10.0);
        for (metric, n) in [
            ("requests", requests),
            ("responses_2xx", ok),
            ("responses_5xx", 0),
        ] {
            let expected = [Some(0.0), rate(n).filter(|_| seen)];
            assert_eq!(of(metric), expected, "{metric} {requests} {ok} {exchanges}");
        }
        assert_eq!(of("exchanges"), [Some(0.0), rate(exchanges)]);
    }
}

#[test]
fn what_cannot_be_seen_in_a_long_window_is_not_taken_from_a_later_one() {
    let roll = |s: u64, requests, exchanges| EndpointRoll {
        covered_ns: s * 1_000_000_000,
        http_ns: s * 1_000_000_000,
        requests,
        exchanges,
        ..EndpointRoll::default()
    };
    let samples = vec![(625, roll(26, 0, 9)), (635, roll(10, 70, 0))];
    let plan = plan("requests", 600, 640, Some(10)).unwrap();
    let points = points(&plan, &Samples::Endpoint(samples));
    let values: Vec<_> = points.iter().map(|point| point.value).collect();
    assert_eq!(values, [None, None, None, Some(7.0)]);
}

#[test]
fn the_report_after_a_time_without_an_agent_ends_the_gap() {
    const S: u64 = 1_000_000_000;
    let roll = |s: u64| EndpointRoll {
        covered_ns: s * S,
        http_ns: s * S,
        incomplete: u64::from(s > 5),
        requests: 10 * s,
        active: GaugeRoll {
            mean: 3.0,
            measured_ns: s * S,
            ..GaugeRoll::default()
        },
        ..EndpointRoll::default()
    };
    // Reports until 620, then one of 86 s that ends at 706, and one more.
    let samples = Samples::Endpoint(vec![
        (614, roll(5)),
        (619, roll(5)),
        (705, roll(86)),
        (710, roll(5)),
    ]);
    let of = |metric| {
        let plan = plan(metric, 600, 720, Some(10)).unwrap();
        points(&plan, &samples)
    };
    let requests = of("requests");
    let coverage: f64 = requests.iter().map(|p| p.coverage).sum();
    assert!((coverage - 10.1).abs() < 1e-9, "{coverage}");
    for (i, point) in requests.iter().enumerate() {
        let covered = (1..=11).contains(&i);
        assert_eq!(point.value, covered.then_some(10.0), "{i}");
        assert_eq!(point.coverage > 0.0, covered, "{i}");
        assert_eq!(point.complete, matches!(i, 1 | 11), "{i}");
    }
    // Nobody looked at how many were open.
    let active = of("connections_active");
    assert!(active[5].value.is_none() && active[5].coverage > 0.0);
}

#[test]
fn gauges_have_a_range() {
    let plan = plan("cpu_usage", 600, 620, Some(20)).unwrap();
    let roll = |min, mean, max, incomplete| {
        let mut roll = HostRoll {
            covered_ns: 1,
            incomplete,
            ..HostRoll::default()
        };
        roll.gauges[0] = GaugeRoll {
            min,
            mean,
            max,
            measured_ns: 1,
        };
        roll
    };
    let samples = Samples::Host(vec![
        (601, roll(1.0, 2.0, 3.0, 0)),
        (611, roll(0.5, 4.0, 9.0, 1)),
    ]);
    let point = points(&plan, &samples).remove(0);
    assert_eq!(
        (point.min, point.value, point.max),
        (Some(0.5), Some(3.0), Some(9.0))
    );
    assert!(!point.complete);
}

#[test]
fn every_counter_has_a_series() {
    for counter in monitor_proto::figures::COUNTERS {
        let name = counter.figure.prometheus;
        let name = name.strip_prefix("speedmimi_").unwrap();
        let name = name.strip_suffix("_total").unwrap();
        assert!(Metric::find(name).is_some(), "{name}");
    }
}

#[test]
fn a_counter_that_was_not_summed_has_no_rate() {
    let rate =
        |name: &str, roll: &EndpointRoll| Metric::find(name).unwrap().of_endpoint(roll).value;
    let mut roll = EndpointRoll {
        covered_ns: 2_000_000_000,
        ..EndpointRoll::default()
    };
    assert_eq!(rate("packets_sent", &roll), None);
    roll.later.packets_sent = Some(8);
    roll.later.pipelined = Some(4);
    roll.later.requests_without_response = Some(0);
    assert_eq!(rate("packets_sent", &roll), Some(4.0));
    assert_eq!(rate("pipelined", &roll), None, "HTTP was not counted");
    roll.http_ns = 1_000_000_000;
    assert_eq!(rate("pipelined", &roll), Some(4.0));
    assert_eq!(rate("requests_without_response", &roll), Some(0.0));
    roll.exchanges = 1;
    assert_eq!(rate("requests_without_response", &roll), None, "not HTTP/1");
}
