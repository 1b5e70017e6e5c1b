//! What becomes of the reports when something becomes of the spool.

use std::{fs, path::Path};

use crate::kernel::FakeKernel;
use monitor_agent::control;
use serde_json::Value;

use crate::{Agent, End, collector::Collector, disk::Disk, eventually};

fn status(dir: &Path) -> Value {
    control::ask(&dir.join("control.sock"), "status").unwrap_or_default()
}

fn last_error(dir: &Path) -> String {
    let status = status(dir);
    status["last_error"].as_str().unwrap_or_default().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A kernel, a collector, and a place for all files of the agent between them.
struct Scene {
    dir: tempfile::TempDir,
    kernel: FakeKernel,
    collector: Collector,
}

impl Scene {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: FakeKernel::start(),
            collector: Collector::default(),
        }
    }

    /// Runs an agent until the collector has some more reports.
    fn run(&self, end: End) {
        let server = self.collector.serve(([127, 0, 0, 1], 0).into());
        let agent = Agent::start(self.dir.path(), server.address(), &self.kernel);
        self.more_reports();
        agent.end(end);
    }

    fn more_reports(&self) {
        let before = self.collector.reports();
        eventually("reports arrive", || self.collector.reports() > before + 3);
    }

    fn spool(&self) -> std::path::PathBuf {
        self.dir.path().join("spool")
    }

    fn forget_checkpoint(&self) {
        fs::remove_file(self.spool().with_extension("checkpoint")).unwrap();
    }

    /// Ends with everything counted and delivered.
    fn finish(&self) {
        let server = self.collector.serve(([127, 0, 0, 1], 0).into());
        let agent = Agent::start(self.dir.path(), server.address(), &self.kernel);
        self.more_reports();
        self.kernel.stop_counting();
        agent.end(End::Graceful);
    }

    fn adds_up(&self) {
        let (windows, totals) = self.collector.sums();
        assert_eq!(totals, self.kernel.counted());
        assert_eq!(windows, totals);
        assert_eq!(self.collector.conflicts(), 0);
    }
}

/// The volume is smaller than a segment, and is filled by the spool itself.
pub(crate) fn a_volume_smaller_than_a_segment_is_enough() {
    let disk = Disk::mount("64k").unwrap();
    let scene = Scene::new();
    let dir = scene.dir.path();
    std::os::unix::fs::symlink(disk.path(), scene.spool()).unwrap();
    let server = scene.collector.serve(([127, 0, 0, 1], 0).into());
    let address = server.address();
    drop(server);
    let agent = Agent::start(dir, address, &scene.kernel);
    eventually("it is full, and that is told", || {
        last_error(dir).contains("make room")
    });
    // After a restart it is as full as before.
    agent.end(End::Killed);
    let agent = Agent::start(dir, address, &scene.kernel);
    eventually("it is full again", || last_error(dir).contains("make room"));
    let server = scene.collector.serve(address);
    eventually("it comes back", || {
        let status = status(dir);
        status["connected"] == true && status["last_error"].is_null()
    });
    // Another volume's worth goes through it.
    for _ in 0..15 {
        scene.more_reports();
    }
    agent.end(End::Killed);
    drop(server);
    scene.finish();
    scene.adds_up();
    assert!(scene.collector.has_reason("lost: reports_held_back"));
}

pub(crate) fn a_disk_that_fills_is_told_and_comes_back() {
    let disk = Disk::mount("1m").unwrap();
    let scene = Scene::new();
    let dir = scene.dir.path();
    std::os::unix::fs::symlink(disk.path(), scene.spool()).unwrap();
    let server = scene.collector.serve(([127, 0, 0, 1], 0).into());
    let address = server.address();
    let agent = Agent::start(dir, address, &scene.kernel);
    scene.more_reports();
    // While reports wait, nothing makes room for others.
    drop(server);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
    eventually("that is told", || last_error(dir).contains("make room"));
    fs::remove_file(&ballast).unwrap();
    let _server = scene.collector.serve(address);
    scene.more_reports();
    eventually("nothing is wrong any more", || {
        status(dir)["last_error"].is_null()
    });
    scene.kernel.stop_counting();
    agent.end(End::Graceful);
    scene.adds_up();
}

pub(crate) fn a_spool_that_is_emptied_repeats_nothing() {
    let scene = Scene::new();
    for end in [End::Graceful, End::Killed] {
        scene.run(end);
        fs::remove_dir_all(scene.spool()).unwrap();
    }
    scene.finish();
    let (windows, totals) = scene.collector.sums();
    assert_eq!(totals, scene.kernel.counted());
    // A report may have waited when the agent was killed; nothing is there twice.
    assert!(windows.0 <= totals.0 && scene.collector.conflicts() == 0);
    assert!(
        scene
            .collector
            .has_reason("the spool was emptied or replaced: reports that waited in it are lost")
    );
}

pub(crate) fn a_spool_that_is_removed_under_the_agent_goes_on() {
    let scene = Scene::new();
    let server = scene.collector.serve(([127, 0, 0, 1], 0).into());
    let agent = Agent::start(scene.dir.path(), server.address(), &scene.kernel);
    scene.more_reports();
    fs::remove_dir_all(scene.spool()).unwrap();
    scene.more_reports();
    assert!(scene.spool().join("state").exists());
    agent.end(End::Killed);
    drop(server);
    scene.finish();
    scene.adds_up();
}

pub(crate) fn an_older_copy_of_the_spool_repeats_nothing() {
    let scene = Scene::new();
    scene.run(End::Graceful);
    let copied = scene.dir.path().join("copy");
    copy(&scene.spool(), &copied);
    scene.run(End::Graceful);
    fs::remove_dir_all(scene.spool()).unwrap();
    copy(&copied, &scene.spool());
    scene.finish();
    scene.adds_up();
}

/// Without the checkpoint the collector tells, and from then on all is new.
pub(crate) fn a_conflict_begins_an_epoch() {
    let scene = Scene::new();
    scene.run(End::Graceful);
    let copied = scene.dir.path().join("copy");
    copy(&scene.spool(), &copied);
    scene.run(End::Graceful);
    fs::remove_dir_all(scene.spool()).unwrap();
    copy(&copied, &scene.spool());
    scene.forget_checkpoint();
    scene.finish();
    assert!(scene.collector.conflicts() > 0);
    assert!(scene.collector.has_reason("lost: reports_conflicting"));
    let (windows, totals) = scene.collector.sums();
    assert_eq!(totals, scene.kernel.counted());
    assert!(
        windows.0 < totals.0,
        "what was dropped is dropped, and nothing is there twice"
    );
}

pub(crate) fn what_nobody_knows_of_any_more_is_in_the_totals_alone() {
    let scene = Scene::new();
    scene.run(End::Graceful);
    let before = scene.kernel.counted();
    fs::remove_dir_all(scene.spool()).unwrap();
    scene.forget_checkpoint();
    scene.finish();
    let (windows, totals) = scene.collector.sums();
    assert_eq!(totals, scene.kernel.counted());
    assert!(windows.0 <= totals.0 && totals.0 > before.0);
    assert!(scene.collector.has_reason(
        "what was reported last is not known any more: what was counted until now is in the totals \
         alone"
    ));
}

pub(crate) fn a_directory_in_the_place_of_a_segment_stops_nobody() {
    let scene = Scene::new();
    fs::create_dir_all(scene.spool().join("00000000000000000001.seg")).unwrap();
    scene.run(End::Graceful);
    scene.finish();
    scene.adds_up();
}
