//! `cargo xtask test`: everything that the tests need, then all of them.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use crate::{
    command::{run, step, timed},
    debian, requirements,
    workspace::Workspace,
};

/// `cargo xtask test`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose names contain this.
    filter: Option<String>,
    /// Build the agent with this kernel object in place of the committed one.
    #[arg(long, value_name = "FILE")]
    object: Option<std::path::PathBuf>,
}

/// What came of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the command: prints the summary and says whether all is well.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let summary = run_all(workspace, args.object.as_deref(), args.filter.as_deref())?;
    summary.print();
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prepares the machine, builds everything once, and runs all tests.
pub(crate) fn run_all(
    workspace: &Workspace,
    object: Option<&Path>,
    filter: Option<&str>,
) -> Result<Summary> {
    prepare()?;
    timed("building the tests and what they test", || {
        // One build for programs and tests, so that both have the same
        // features and nothing is compiled twice.
        run(with_object(workspace.cargo(), object).args(["build", "--workspace", "--all-targets"]))
    })?;
    step("running the tests");
    let mut command = with_object(workspace.cargo(), object);
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    let (summary, status) = observe(&mut command)?;
    Ok(summary.judged_with(status))
}

/// The agent's build takes the kernel object from this variable.
fn with_object(mut cargo: Command, object: Option<&Path>) -> Command {
    if let Some(object) = object {
        cargo.env("SPEEDMIMI_BPF_OBJECT", object);
    }
    cargo
}

fn prepare() -> Result<()> {
    requirements::raise_open_files();
    if !geteuid().is_root() {
        step("without root, tests that load kernel programs are skipped");
        return Ok(());
    }
    if debian::is_debian() {
        debian::install_without_starting("nginx-light", "nginx")?;
    }
    if let Some(missing) = testkit::missing_for_kernel_programs() {
        step(&format!(
            "tests that load kernel programs are skipped: {missing}"
        ));
    }
    Ok(())
}

/// Passes the output on and reads the results in it.
fn observe(command: &mut Command) -> Result<(Summary, ExitStatus)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let mut summary = Summary::default();
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.add(&line);
    }
    Ok((summary, child.wait()?))
}

impl Summary {
    /// Adds what one test program said at its end.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| {
            result
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
                .unwrap_or_default()
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.skipped += count("ignored");
    }

    /// A test program that crashed says nothing: then only cargo's status does.
    fn judged_with(mut self, status: ExitStatus) -> Self {
        if !status.success() && self.failed == 0 {
            self.failed = 1;
        }
        self
    }

    /// Whether a test failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Prints the last line of the command.
    pub(crate) fn print(&self) {
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_results_of_all_programs_are_summed_up() {
        let mut summary = Summary::default();
        summary.add("test result: ok. 10 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.06s");
        summary.add("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        summary.add("test tests::x ... ok");
        assert_eq!(
            summary,
            Summary {
                passed: 13,
                failed: 1,
                skipped: 2
            }
        );
    }

    #[test]
    fn a_crashed_test_program_is_a_failure() {
        let crashed = ExitStatus::from_raw(101 << 8);
        assert!(Summary::default().judged_with(crashed).has_failed());
        assert!(
            !Summary::default()
                .judged_with(ExitStatus::from_raw(0))
                .has_failed()
        );
    }
}
