//! What the programs may do.

use super::{
    Case,
    unit::{AGENT, ALL, COLLECTOR, PROXY, Unit, run},
};

pub(crate) const CASES: &[Case] = &[
    (
        "the_programs_keep_the_capabilities_that_they_need_alone",
        capabilities,
    ),
    ("the_exposure_of_every_unit_is_low", exposure),
];

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

fn capabilities() {
    let kept = [
        (AGENT, NET_ADMIN | PERFMON | BPF),
        (COLLECTOR, 0),
        (PROXY, NET_BIND_SERVICE),
    ];
    for (unit, kept) in kept {
        let status = unit.status();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(
                u64::from_str_radix(&status[set], 16).unwrap(),
                kept,
                "{unit:?} {set}"
            );
        }
        assert_eq!(status["NoNewPrivs"], "1");
        // Filtered.
        assert_eq!(status["Seccomp"], "2");
        let user = status["Uid"]
            .split_ascii_whitespace()
            .next()
            .unwrap()
            .to_owned();
        assert_ne!(user, "0");
        let name = unit.0.trim_end_matches(".service");
        assert_eq!(run("id", &["--user", name]).unwrap(), user);
    }
}

/// As systemd rates it, of 10; printed, for docs/install.md.
fn exposure() {
    let all: Vec<(Unit, f64)> = ALL
        .into_iter()
        .map(|unit| (unit, exposure_of(unit)))
        .collect();
    for (unit, exposure) in &all {
        println!("exposure of {}: {exposure}", unit.0);
    }
    assert!(all.iter().all(|(_, exposure)| *exposure <= 2.0), "{all:?}");
}

fn exposure_of(unit: Unit) -> f64 {
    let said = run("systemd-analyze", &["security", "--no-pager", unit.0]).unwrap();
    let last = said.lines().last().unwrap().to_owned();
    let (_, rated) = last.rsplit_once(": ").unwrap();
    rated.split(' ').next().unwrap().parse().unwrap()
}
