//! The protocol of spool, delivery, acknowledgement and epoch, simulated: the agent's
//! windows, spool, checkpoint and session and the collector's store, with a disk, a
//! network and clocks that fail at random; and the same on real file systems.
//!
//! A seed gives the same run each time: a failure names its own, and
//! `SPEEDMIMI_SIM_SEED=SEED` runs that one alone.  `SPEEDMIMI_SIM_RUNS=100000` runs so many.
//! What cannot be mounted here is counted as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collector;
mod disk;
mod file_system;
#[path = "../agent/disk.rs"]
mod tmpfs;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use libtest_mimic::{Arguments, Completion, Trial};

use collector::Collector;
use disk::{HostDisk, SimulatedDisk};
use file_system::FileSystem;
use spool::Spool;
use world::{Faults, World};

/// How many runs each test makes where nobody asks for more.
const RUNS: u64 = 1_000;

/// The same on a real file system.
const REAL_RUNS: u64 = 100;

/// A store has the hosts of so many runs.
const RUNS_OF_A_STORE: u64 = 500;

fn main() {
    let trial = |name, test: fn(), missing: fn() -> Option<String>| {
        Trial::ignorable_test(name, move || match missing() {
            Some(why) => Ok(Completion::ignored_with(why)),
            None => {
                test();
                Ok(Completion::Completed)
            }
        })
    };
    macro_rules! trials {
        ($($test:ident, $missing:expr;)*) => {
            vec![$(trial(stringify!($test), $test, $missing)),*]
        };
    }
    let trials = trials![
        windows_are_totals_are_the_truth_and_each_loss_is_told_once, || None;
        what_is_removed_or_restored_is_in_no_two_windows, || None;
        damage_loses_nothing_in_silence, || None;
        what_an_agent_finds_at_its_start_is_there_after_a_power_failure, || None;
        windows_add_up_whatever_happens_to_the_spool, || None;
        windows_add_up_on_a_disk_that_fills, tmpfs::Disk::missing;
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn simulate(faults: Faults) {
    run(faults, RUNS, SimulatedDisk::new);
}

fn run<D: HostDisk>(faults: Faults, runs: u64, disk: impl Fn(u64) -> D + Sync) {
    let given = |name| env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    if let Some(seed) = given("SPEEDMIMI_SIM_SEED") {
        return World::new(seed, faults, disk(seed), &Collector::start()).run();
    }
    let runs = given("SPEEDMIMI_SIM_RUNS").map_or(runs, |asked| asked / RUNS * runs);
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    thread::scope(|scope| {
        for first in 0..threads {
            let disk = &disk;
            scope.spawn(move || {
                let mut collector = Collector::start();
                for (n, seed) in (0u64..).zip((first..runs).step_by(threads as usize)) {
                    if n % RUNS_OF_A_STORE == RUNS_OF_A_STORE - 1 {
                        collector = Collector::start();
                    }
                    let run = || World::new(seed, faults, disk(seed), &collector).run();
                    let ran = catch_unwind(AssertUnwindSafe(run));
                    assert!(ran.is_ok(), "run again with SPEEDMIMI_SIM_SEED={seed}");
                }
            });
        }
    });
}

fn windows_are_totals_are_the_truth_and_each_loss_is_told_once() {
    simulate(Faults::None);
}

fn what_is_removed_or_restored_is_in_no_two_windows() {
    simulate(Faults::Replacement);
}

fn damage_loses_nothing_in_silence() {
    simulate(Faults::Damage);
}

fn windows_add_up_whatever_happens_to_the_spool() {
    run(Faults::Replacement, REAL_RUNS, FileSystem::new);
}

fn windows_add_up_on_a_disk_that_fills() {
    run(Faults::Replacement, REAL_RUNS, FileSystem::small);
}

/// A segment that an agent made just before it was killed is in its directory, and not
/// yet for certain.
fn what_an_agent_finds_at_its_start_is_there_after_a_power_failure() {
    for seed in 0..50 {
        for operations in 0..30 {
            let disk = SimulatedDisk::new(seed);
            let open = || Spool::open_on(disk.files(), "/spool".as_ref(), 1 << 20, 1);
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
