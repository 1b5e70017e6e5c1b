//! The `OpenAPI` document against the running collector, by schemathesis (`PyPI`):
//! it asks what the document allows and what it does not, and compares.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use common::{Collector, report, trial};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let program = program();
    let missing = "schemathesis is missing: `cargo xtask test` installs it where pip can be had";
    let trial = trial(
        "the_document_is_what_is_served",
        program.is_none().then(|| missing.to_owned()),
        async move || the_document_is_what_is_served(&program.unwrap()).await,
    );
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

/// Where `cargo xtask test` puts it, else that of the PATH.
fn program() -> Option<PathBuf> {
    let prepared = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("tools")
        .join("schemathesis/bin/schemathesis");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(prepared)
        .chain(env::split_paths(&path).map(|dir| dir.join("schemathesis")))
        .find(|program| program.is_file())
}

async fn the_document_is_what_is_served(program: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let mut agent = collector.agent().await;
    for sequence in 1..=3 {
        agent.export(report("web", sequence)).await;
    }
    let output = Command::new(program)
        .arg("run")
        .arg(collector.url("/api/v1/openapi.json"))
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "10", "--seed", "1", "--no-color"])
        // It has no end; the tests of reading look at it.
        .args(["--exclude-path", "/api/v1/live"])
        // A schema cannot say which days a month has, nor which cursors there are.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--request-timeout", "20"])
        .current_dir(dir.path())
        .env_remove("SCHEMATHESIS_HOOKS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("generated"), "nothing was asked: {said}");
}
