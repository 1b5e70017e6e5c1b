//! What becomes of a process when nobody reads its log any more.

#![cfg(feature = "log")]
#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

use std::{env, io, process::Command};

use daemon::log::{Line, LogFormat, start};

/// Set in the process that logs; says in which format.
const LOGS_AS: &str = "DAEMON_TEST_LOGS_AS";

#[test]
fn a_log_that_nobody_reads_ends_no_process() {
    if let Some(format) = env::var_os(LOGS_AS) {
        let json = format == "json";
        let format = if json {
            LogFormat::Json
        } else {
            LogFormat::Text
        };
        start(format, Line::Full, &[]);
        (0..100).for_each(|n| tracing::error!(n, "nobody reads this"));
        println!("still running");
        return;
    }
    for format in ["text", "json"] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "a_log_that_nobody_reads_ends_no_process",
                "--nocapture",
            ])
            .env(LOGS_AS, format)
            .env_remove("RUST_LOG")
            .stderr(writer)
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{format}: {stdout}");
        assert!(stdout.contains("still running"), "{format}: {stdout}");
    }
}
