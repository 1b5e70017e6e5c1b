//! The units that are shipped, as systemd itself reads them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

#[test]
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
    let Ok(output) = verify.output() else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // It tells unknown keys and values as warnings, and succeeds.
    assert_eq!(said, "");
    assert!(output.status.success());
}

/// The proxy may start later than the agent, and much later.
#[test]
fn the_agent_is_started_again_until_its_target_is_there() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = unit.join("../dist/systemd/speedmimi-agent.service");
    let text = fs::read_to_string(unit).unwrap();
    let (head, service) = text.split_once("[Service]").unwrap();
    assert!(head.contains("\nStartLimitIntervalSec=0\n"));
    assert!(service.contains("\nRestart=on-failure\n"));
    assert!(service.contains("\nRestartPreventExitStatus=64\n"));
}
