//! The protocol of spool, delivery, acknowledgement and epoch, simulated: the agent's
//! windows, spool, checkpoint and session and the collector's store, with a disk, a
//! network and clocks that fail at random.
//!
//! A seed gives the same run each time: a failure names its own, and
//! `SPEEDMIMI_SIM_SEED=SEED` runs that one alone.  `SPEEDMIMI_SIM_RUNS=100000` runs so many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collector;
mod disk;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use collector::Collector;
use disk::SimulatedDisk;
use spool::Spool;
use world::{Faults, World};

/// How many runs each test makes where nobody asks for more.
const RUNS: u64 = 1_000;

/// A store has the hosts of so many runs.
const RUNS_OF_A_STORE: u64 = 500;

fn simulate(faults: Faults) {
    let given = |name| env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    if let Some(seed) = given("SPEEDMIMI_SIM_SEED") {
        return World::new(seed, faults, &Collector::start()).run();
    }
    let runs = given("SPEEDMIMI_SIM_RUNS").unwrap_or(RUNS);
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                let mut collector = Collector::start();
                for (n, seed) in (0u64..).zip((first..runs).step_by(threads as usize)) {
                    if n % RUNS_OF_A_STORE == RUNS_OF_A_STORE - 1 {
                        collector = Collector::start();
                    }
                    let run = || World::new(seed, faults, &collector).run();
                    let ran = catch_unwind(AssertUnwindSafe(run));
                    assert!(ran.is_ok(), "run again with SPEEDMIMI_SIM_SEED={seed}");
                }
            });
        }
    });
}

#[test]
fn windows_are_totals_are_the_truth_and_each_loss_is_told_once() {
    simulate(Faults::None);
}

#[test]
fn damage_loses_nothing_in_silence() {
    simulate(Faults::Damage);
}

/// A segment that an agent made just before it was killed is in its directory, and not
/// yet for certain.
#[test]
fn what_an_agent_finds_at_its_start_is_there_after_a_power_failure() {
    for seed in 0..50 {
        for operations in 0..30 {
            let disk = SimulatedDisk::new(seed);
            let open = || Spool::open_on(Arc::new(disk.clone()), "/spool".as_ref(), 1 << 20, 1);
            let (mut spool, _) = open().unwrap();
            disk.kill_in(operations);
            let _killed_amid_it = spool.append(b"report", b"baseline");
            drop(spool);
            disk.revive();
            let (_, found) = open().unwrap();
            disk.fail_power();
            let (_, left) = open().unwrap();
            assert_eq!(
                left.newest, found.newest,
                "seed {seed}, killed at {operations}"
            );
        }
    }
}
