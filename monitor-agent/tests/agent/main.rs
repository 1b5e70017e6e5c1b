//! The whole agent but for the kernel, against a collector of the test's own.
//!
//! What a test lacks (a tool, a right) is counted as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collector;
mod disk;
mod kernel;
mod metrics;
mod otlp;
#[path = "../../../monitor-otlp/tests/receiver/mod.rs"]
mod receiver;
mod spool;

use std::{fs, net::SocketAddr, path::Path, thread::JoinHandle, time::Duration};

use kernel_sample::{Opened, Opener};
use libtest_mimic::{Arguments, Completion, Trial};
use monitor_agent::{
    cli::RunArgs,
    config::Config,
    control,
    run::{self, Signals},
    target::{Resolved, Roots},
};
use testkit::wait_until as eventually;
use tokio::sync::{mpsc, oneshot};

use self::{collector::Collector, disk::Disk, kernel::FakeKernel};

/// The tests, each with what it lacks here.
macro_rules! trials {
    ($($test:expr, $missing:expr;)*) => {
        vec![$(trial(stringify!($test), $test, $missing)),*]
    };
}

fn trial(name: &str, test: fn(), missing: fn() -> Option<String>) -> Trial {
    Trial::ignorable_test(name, move || match missing() {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => {
            test();
            Ok(Completion::Completed)
        }
    })
}

fn nothing() -> Option<String> {
    None
}

fn main() {
    let trials = trials![
        windows_sum_up_to_what_was_counted_whatever_is_restarted, nothing;
        the_running_agent_is_asked_over_its_socket, nothing;
        an_agent_whose_sampler_fails_ends, nothing;
        two_agents_share_neither_spool_nor_socket, nothing;
        reports_say_of_the_host_what_is_configured, nothing;
        metrics::the_agent_s_own_metrics_are_served, nothing;
        metrics::prometheus_own_tool_takes_them, metrics::missing_promtool;
        otlp::over_http_the_newest_sums_are_what_was_counted, nothing;
        otlp::over_grpc_the_newest_sums_are_what_was_counted, nothing;
        otlp::what_a_receiver_never_takes_is_told_as_a_loss, nothing;
        spool::a_volume_smaller_than_a_segment_is_enough, Disk::missing;
        spool::a_disk_that_fills_is_told_and_comes_back, Disk::missing;
        spool::a_spool_that_is_emptied_repeats_nothing, nothing;
        spool::a_spool_that_is_removed_under_the_agent_goes_on, nothing;
        spool::an_older_copy_of_the_spool_repeats_nothing, nothing;
        spool::a_conflict_begins_an_epoch, nothing;
        spool::what_nobody_knows_of_any_more_is_in_the_totals_alone, nothing;
        spool::a_directory_in_the_place_of_a_segment_stops_nobody, nothing;
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// How an agent is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// As SIGTERM does.
    Graceful,
    /// As SIGKILL does: nothing is finished.
    Killed,
}

/// An agent with a runtime of its own, as in a process of its own.
struct Agent {
    end: oneshot::Sender<End>,
    thread: JoinHandle<()>,
}

/// With everything in `dir`, and without a place for reports to go to.
fn args(dir: &Path) -> RunArgs {
    RunArgs {
        spool_dir: dir.join("spool"),
        control_socket: Some(dir.join("control.sock")),
        metrics_listen: Some(([127, 0, 0, 1], 0).into()),
        sample_interval: Duration::from_millis(10),
        report_interval: Duration::from_millis(100),
        ..RunArgs::default()
    }
}

impl Agent {
    fn start(dir: &Path, collector: SocketAddr, kernel: &FakeKernel) -> Self {
        let collector = format!("http://{collector}");
        let args = RunArgs {
            collector,
            ..args(dir)
        };
        Self::start_with(args, kernel)
    }

    fn start_with(args: RunArgs, kernel: &FakeKernel) -> Self {
        let mut config = Config::new(args, &[], None).unwrap();
        config.checkpoint = config.spool_dir.with_extension("checkpoint");
        let kernel = kernel.clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(Self::run(config, kernel, ended));
        });
        Self { end, thread }
    }

    async fn run(config: Config, kernel: FakeKernel, ended: oneshot::Receiver<End>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            stopped.await.unwrap();
            "the test"
        };
        let resolved = Resolved {
            targets: vec![kernel.target()],
            awaited: vec![],
            proxies: Vec::new(),
        };
        let roots = Roots {
            host: "/nonexistent".into(),
            proc: "/proc".into(),
            cgroup: "/nonexistent".into(),
        };
        let (_hangup, reload) = mpsc::channel(1);
        let signals = Signals {
            stop: stopped,
            reload,
        };
        let open: Opener = Box::new(move |_, level| {
            kernel.attach();
            let source = Box::new(kernel.clone());
            Ok(Opened { source, level })
        });
        let mut running = std::pin::pin!(run::run(config, (resolved, roots), None, signals, open));
        tokio::select! {
            ended_by_itself = &mut running => panic!("ended by itself: {ended_by_itself:?}"),
            end = ended => if end == Ok(End::Killed) { return },
        }
        stop.send(()).unwrap();
        running.await.unwrap();
    }

    fn end(self, end: End) {
        self.end.send(end).ok();
        self.thread.join().unwrap();
    }
}

fn reports_say_of_the_host_what_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    fs::write(&id, "copy-7\n").unwrap();
    let kernel = FakeKernel::start();
    let collector = Collector::default();
    let server = collector.serve(([127, 0, 0, 1], 0).into());
    let args = RunArgs {
        collector: format!("http://{}", server.address()),
        host_name: Some("edge".to_owned()),
        host_id_file: Some(id),
        label: vec![("region".to_owned(), "north".to_owned())],
        ..args(dir.path())
    };
    let agent = Agent::start_with(args, &kernel);
    eventually("a report arrives", || collector.reports() > 0);
    agent.end(End::Graceful);
    let hosts = collector.hosts();
    assert_eq!(hosts.len(), 1);
    assert_eq!((&*hosts[0].id, &*hosts[0].name), ("copy-7", "edge"));
    assert_eq!(
        hosts[0].labels,
        [("region".to_owned(), "north".to_owned())].into()
    );
}

/// Killed, restarted, without a collector for a while: every request is
/// reported exactly once, and no key ever has two bodies.
fn windows_sum_up_to_what_was_counted_whatever_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let collector = Collector::default();
    let server = collector.serve(([127, 0, 0, 1], 0).into());
    let address = server.address();
    for end in [End::Killed, End::Graceful, End::Killed] {
        let agent = Agent::start(dir.path(), address, &kernel);
        let before = collector.reports();
        eventually("reports arrive", || collector.reports() > before + 3);
        agent.end(end);
    }
    drop(server);
    let agent = Agent::start(dir.path(), address, &kernel);
    let spool = dir.path().join("control.sock");
    eventually("reports wait in the spool", || {
        let status = control::ask(&spool, "status");
        status.is_ok_and(|s| s["reports_pending"].as_u64() > Some(3) && !s["last_error"].is_null())
    });
    let _server = collector.serve(address);
    let before = collector.reports();
    eventually("the spool is delivered", || {
        collector.reports() > before + 3
    });
    kernel.stop_counting();
    agent.end(End::Graceful);
    assert_eq!(collector.conflicts(), 0);
    let (windows, totals) = collector.sums();
    assert_eq!(totals, kernel.counted());
    assert_eq!(windows, totals);
    assert_eq!(collector.missing(), 0, "no sequence is left out");
}

fn the_running_agent_is_asked_over_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let collector = Collector::default();
    let server = collector.serve(([127, 0, 0, 1], 0).into());
    let agent = Agent::start(dir.path(), server.address(), &kernel);
    let socket = dir.path().join("control.sock");
    eventually("a sample is there", || {
        let status = control::ask(&socket, "status");
        status.is_ok_and(|s| s["newest"]["endpoints"].as_u64() == Some(2))
    });
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&socket).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let level = |question: &str| control::ask(&socket, question).unwrap()["level"].clone();
    assert_eq!(level("level tcp"), "tcp");
    eventually("a sample at the new level", || level("level") == "tcp");
    for hostile in ["", "level udp", &"x".repeat(100_000)] {
        // The longest question is cut off, and its sender not waited for.
        let answer = control::ask(&socket, hostile);
        assert!(answer.is_err() || !answer.unwrap()["error"].is_null());
    }
    assert_eq!(level("level http"), "http");
    eventually("a report tells the change", || {
        collector.has_reason("the level was changed")
    });
    agent.end(End::Graceful);
}

/// Better ended, and started again by the service manager, than silent.
fn an_agent_whose_sampler_fails_ends() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let agent = Agent::start(dir.path(), ([127, 0, 0, 1], 9).into(), &kernel);
    let socket = dir.path().join("control.sock");
    eventually("it answers", || control::ask(&socket, "status").is_ok());
    kernel.break_down();
    let panicked = agent.thread.join().unwrap_err();
    let message = panicked.downcast_ref::<String>().unwrap();
    assert!(message.contains("Ended(\"sampler\")"), "{message}");
}

fn two_agents_share_neither_spool_nor_socket() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
    let agent = Agent::start(dir.path(), nobody, &kernel);
    let socket = dir.path().join("control.sock");
    eventually("it answers", || control::ask(&socket, "status").is_ok());
    let second = Agent::start(dir.path(), nobody, &kernel);
    let panicked = second.thread.join().unwrap_err();
    let message = panicked.downcast_ref::<String>().unwrap();
    assert!(message.contains("Locked"), "{message}");
    assert!(
        control::ask(&socket, "status").is_ok(),
        "the first one runs on"
    );
    agent.end(End::Graceful);
}
