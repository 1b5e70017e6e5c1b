use proptest::prelude::*;

use super::*;

const ALL: [Algorithm; 6] = [
    Algorithm::IpHash,
    Algorithm::LeastConnections,
    Algorithm::LeastConnectionsWeight,
    Algorithm::Weight,
    Algorithm::PerformanceLeastConnectionsWeight,
    Algorithm::Adaptive,
];

fn candidate(name: usize, in_flight: u32, weight: u32) -> Candidate {
    Candidate {
        available: true,
        in_flight,
        in_flight_max: u32::MAX,
        weight,
        identity: identity(name.to_string().as_bytes()),
        utilisation: None,
        cost: None,
    }
}

fn draw(seed: u64) -> Draw {
    Draw {
        client: mix(seed),
        random: mix(seed ^ 1),
        ticket: seed,
    }
}

fn shares(algorithm: Algorithm, candidates: &[Candidate], draws: u64) -> Vec<u64> {
    let mut counts = vec![0; candidates.len()];
    for seed in 0..draws {
        if let Choice::Backend(index) = choose(algorithm, candidates, &draw(seed)) {
            counts[index] += 1;
        }
    }
    counts
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        any::<bool>(),
        0_u32..20,
        0_u32..20,
        1_u32..1000,
        proptest::option::of(0.0_f32..1.0),
        proptest::option::of(1e-5_f32..10.0),
    );
    proptest::collection::vec(one, 0..8).prop_map(|list| {
        let with_name =
            |(name, (available, in_flight, max, weight, utilisation, cost))| Candidate {
                available,
                in_flight_max: max,
                utilisation,
                cost,
                ..candidate(name, in_flight, weight)
            };
        list.into_iter().enumerate().map(with_name).collect()
    })
}

proptest! {
    #[test]
    fn only_those_with_room_are_chosen(list in any_candidates(), seed: u64) {
        for algorithm in ALL {
            match choose(algorithm, &list, &draw(seed)) {
                Choice::Backend(index) => {
                    prop_assert!(list[index].available);
                    prop_assert!(list[index].in_flight < list[index].in_flight_max);
                }
                Choice::Full => {
                    prop_assert!(list.iter().any(|one| one.available));
                    prop_assert!(list.iter().all(|one| !one.has_capacity()));
                }
                Choice::Unavailable => prop_assert!(list.iter().all(|one| !one.available)),
            }
        }
    }

    #[test]
    fn the_least_loaded_is_chosen(list in any_candidates(), seed: u64) {
        let score = |one: &Candidate| f64::from(one.in_flight) / f64::from(one.weight);
        let algorithm = Algorithm::LeastConnectionsWeight;
        if let Choice::Backend(index) = choose(algorithm, &list, &draw(seed)) {
            let chosen = score(&list[index]);
            prop_assert!(list.iter().filter(|one| one.has_capacity()).all(|one| chosen <= score(one)));
        }
    }

    #[test]
    fn clients_move_only_from_a_backend_that_left(list in any_candidates(), seed: u64, gone: usize) {
        prop_assume!(!list.is_empty());
        let gone = gone % list.len();
        let mut fewer = list.clone();
        fewer[gone].available = false;
        let before = choose(Algorithm::IpHash, &list, &draw(seed));
        let after = choose(Algorithm::IpHash, &fewer, &draw(seed));
        if matches!(before, Choice::Backend(index) if index != gone) {
            prop_assert_eq!(before, after);
        }
    }
}

#[test]
fn weights_are_proportions() {
    let list = [
        candidate(0, 0, 100),
        candidate(1, 0, 200),
        candidate(2, 0, 700),
    ];
    let counts = shares(Algorithm::Weight, &list, 1000);
    for (count, expected) in counts.iter().zip([100_i64, 200, 700]) {
        assert!(
            (i64::try_from(*count).unwrap() - expected).abs() <= 5,
            "{counts:?}"
        );
    }
}

#[test]
fn ties_are_broken_evenly() {
    let list: Vec<Candidate> = (0..4).map(|name| candidate(name, 3, 10)).collect();
    for algorithm in [
        Algorithm::LeastConnections,
        Algorithm::LeastConnectionsWeight,
    ] {
        let counts = shares(algorithm, &list, 40_000);
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
    }
}

#[test]
fn clients_are_spread_evenly_and_stay() {
    let list: Vec<Candidate> = (0..4).map(|name| candidate(name, 0, 1)).collect();
    let counts = shares(Algorithm::IpHash, &list, 40_000);
    assert!(
        counts.iter().all(|count| (9_500..10_500).contains(count)),
        "{counts:?}"
    );
    let busy: Vec<Candidate> = (0..4).map(|name| candidate(name, 50, 1)).collect();
    for seed in 0..100 {
        let choice = choose(Algorithm::IpHash, &list, &draw(seed));
        assert_eq!(choice, choose(Algorithm::IpHash, &busy, &draw(seed)));
    }
}

#[test]
fn a_loaded_host_is_avoided_and_an_unknown_one_is_average() {
    let with = |name, utilisation| Candidate {
        utilisation,
        ..candidate(name, 0, 1)
    };
    let algorithm = Algorithm::PerformanceLeastConnectionsWeight;
    let list = [with(0, Some(0.9)), with(1, Some(0.1)), with(2, None)];
    assert_eq!(choose(algorithm, &list, &draw(7)), Choice::Backend(1));
    let list = [with(0, Some(0.9)), with(1, None)];
    assert_eq!(
        shares(algorithm, &list, 100)
            .iter()
            .filter(|count| **count > 0)
            .count(),
        2
    );
    // 0.7 a connection against 30 for a full host: 43 connections outweigh it.
    let busy = Candidate {
        utilisation: Some(0.0),
        ..candidate(0, 43, 1)
    };
    assert_eq!(
        choose(algorithm, &[busy, with(1, Some(1.0))], &draw(1)),
        Choice::Backend(1)
    );
    let idle = Candidate {
        in_flight: 42,
        ..busy
    };
    assert_eq!(
        choose(algorithm, &[idle, with(1, Some(1.0))], &draw(1)),
        Choice::Backend(0)
    );
}

#[test]
fn utilisation_is_a_capped_share() {
    assert!((utilisation(0.5, 0.5, 0.5) - 0.5).abs() < 1e-6);
    assert!((utilisation(7.0, -1.0, 0.0) - 0.4).abs() < 1e-6);
    assert!((utilisation(f64::NAN, 0.0, 0.0) - 0.4).abs() < 1e-6);
}

#[test]
fn adaptive_takes_the_cheaper_of_two_that_are_drawn() {
    let with = |cost, in_flight, weight, name| Candidate {
        cost,
        ..candidate(name, in_flight, weight)
    };
    let two = |a: (Option<f32>, u32, u32), b: (Option<f32>, u32, u32)| {
        shares(
            Algorithm::Adaptive,
            &[with(a.0, a.1, a.2, 0), with(b.0, b.1, b.2, 1)],
            1_000,
        )
    };
    assert_eq!(two((Some(0.01), 0, 100), (Some(0.02), 0, 100)), [1_000, 0]);
    assert_eq!(two((Some(0.01), 2, 100), (Some(0.02), 0, 100)), [0, 1_000]);
    assert_eq!(two((Some(0.01), 2, 200), (Some(0.02), 0, 100)), [1_000, 0]);
    let unknown = two((None, 3, 100), (Some(0.5), 2, 100));
    assert_eq!(unknown, [0, 1_000], "in flight alone");
    let equal = two((None, 0, 100), (None, 0, 100));
    assert!(equal.iter().all(|n| *n > 400), "{equal:?}");
    let many: Vec<_> = (0..5)
        .map(|n| with(Some(0.01 * (n + 1) as f32), 0, 100, n))
        .collect();
    let counts = shares(Algorithm::Adaptive, &many, 10_000);
    assert_eq!(counts[4], 0, "the dearest one loses against each other");
    assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
}
