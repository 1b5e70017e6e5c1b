//! A disk without room.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
};

use common::{Collector, bulky, trial};
use libtest_mimic::Arguments;
use monitor_proto::v1::ExportOutcome;

fn main() -> ExitCode {
    let disk = Tmpfs::mount("4m");
    let missing = disk
        .is_none()
        .then(|| "a tmpfs cannot be mounted here: run as root".to_owned());
    let run = async move || {
        let disk = disk.expect("without one the test is ignored");
        a_full_disk_is_told_reading_goes_on_and_room_makes_it_well_again(disk).await;
    };
    let name = "a_full_disk_is_told_reading_goes_on_and_room_makes_it_well_again";
    let trials = vec![trial(name, missing, run)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A small file system of its own; unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where this user may not mount.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that was killed may still be ending.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

async fn a_full_disk_is_told_reading_goes_on_and_room_makes_it_well_again(disk: Tmpfs) {
    let data = disk.0.path().join("data");
    let ballast = disk.0.path().join("ballast");
    let collector = Collector::start(&data);
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let mut agent = collector.agent().await;
    let mut acked = 0;
    let refusal = loop {
        agent.send(bulky("web", acked + 1)).await;
        match agent.answer().await {
            Ok(answer) => acked = answer.sequence,
            Err(status) => break status,
        }
        assert!(acked < 100, "the disk does not get full");
    };
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("disk is full"), "{refusal}");
    assert_eq!(
        collector.all_reports("limit=10").len() as u64,
        acked,
        "reading goes on"
    );
    let metrics = collector.get("/metrics").body;
    assert!(metrics.contains("speedmimi_collector_refused_total{reason=\"disk_full\"} 1\n"));

    fs::remove_file(&ballast).unwrap();
    let mut agent = collector.agent().await;
    assert_eq!(
        agent.export(bulky("web", acked + 1)).await,
        ExportOutcome::Stored
    );
    assert_eq!(collector.all_reports("limit=10").len() as u64, acked + 1);
    collector.kill_9();
    let again = Collector::start(&data);
    assert_eq!(again.all_reports("limit=10").len() as u64, acked + 1);
}
