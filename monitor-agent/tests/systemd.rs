//! The units that are shipped, as systemd itself reads them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use libtest_mimic::{Arguments, Completion, Trial};

fn main() {
    let trials = vec![
        Trial::ignorable_test("systemd_takes_the_units", || {
            if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
                let why = format!("systemd-analyze cannot be run: {error}");
                return Ok(Completion::ignored_with(why));
            }
            systemd_takes_the_units();
            Ok(Completion::Completed)
        }),
        Trial::test("the_agent_is_started_again_and_reloads", || {
            the_agent_is_started_again_and_reloads();
            Ok(())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn systemd_takes_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd");
    let dir = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    let mut found = 0;
    for unit in fs::read_dir(units).unwrap() {
        let unit = unit.unwrap().path();
        let text = fs::read_to_string(&unit).unwrap();
        // The programs are not installed where this is tested.
        let here = text.replace("ExecStart=/usr/bin/speedmimi-", "ExecStart=/bin/true ");
        assert_ne!(here, text, "{}", unit.display());
        let copy = dir.path().join(unit.file_name().unwrap());
        fs::write(&copy, here).unwrap();
        verify.arg(copy);
        found += 1;
    }
    assert_eq!(found, 3);
    let output = verify.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It tells unknown keys and values as warnings, and succeeds.
    assert_eq!(said, "");
    assert!(output.status.success());
}

fn the_agent_is_started_again_and_reloads() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = unit.join("../dist/systemd/speedmimi-agent.service");
    let text = fs::read_to_string(unit).unwrap();
    let (head, service) = text.split_once("[Service]").unwrap();
    assert!(head.contains("\nStartLimitIntervalSec=0\n"));
    assert!(service.contains("\nExecReload=/bin/sh -c \"kill -HUP $MAINPID\"\n"));
    assert!(service.contains("\nRestart=on-failure\n"));
    assert!(service.contains("\nRestartPreventExitStatus=64\n"));
}
