//! `cargo xtask test`: everything that the tests need, then all of them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::geteuid;

use crate::{
    command::{output, run, step, timed},
    debian, faults,
    packages::{self, Prepared},
    requirements,
    vm::{self, Image},
    workspace::Workspace,
};

/// Servers that tests run, each with the service that is not to be started.
const DAEMONS: [(&str, &str); 4] = [
    ("nginx-light", "nginx"),
    ("haproxy", "haproxy"),
    ("prometheus", "prometheus"),
    ("victoria-metrics", "victoria-metrics"),
];

/// `cargo xtask test`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose names contain this.
    filter: Option<String>,
    /// Build the agent with this kernel object in place of the committed one.
    #[arg(long, value_name = "FILE")]
    object: Option<std::path::PathBuf>,
    /// Run the kernel's tests alone, in this kernel image, under qemu.
    #[arg(long, value_name = "IMAGE")]
    kernel: Option<std::path::PathBuf>,
    /// Build the packages, and run their tests alone: they are installed, upgraded and
    /// removed in a root file system of Debian.
    #[arg(long, conflicts_with_all = ["filter", "object", "kernel"])]
    packages: bool,
    /// Install the packages in a machine with systemd, boot it under qemu, and run the
    /// units' tests in it.
    #[arg(long, conflicts_with_all = ["filter", "object", "kernel", "packages"])]
    units: bool,
    /// Run the tests of the faults that docs/reliability.md lists, alone.
    #[arg(long, conflicts_with_all = ["filter", "kernel", "packages", "units"])]
    faults: bool,
}

/// What came of the tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// What the programs whose tests failed said of them at their end.
    failures: Vec<String>,
    in_failures: bool,
}

/// Runs the command: prints the summary and says whether all is well.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let object = args.object.as_deref();
    let summary = match &args.kernel {
        Some(image) => {
            let filter = args.filter.as_deref();
            in_kernel(workspace, &Image::at(image)?, object, filter)?
        }
        None if args.packages => of_packages(workspace)?,
        None if args.units => of_units(workspace)?,
        None if args.faults => of_faults(workspace, object)?,
        None => run_all(workspace, object, args.filter.as_deref())?,
    };
    summary.print();
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the packages' tests.
pub(crate) fn of_packages(workspace: &Workspace) -> Result<Summary> {
    match packages::prepare(workspace)? {
        Prepared::Ready(mut command) => {
            let (summary, status) = observe(&mut command)?;
            Ok(summary.judged_with(status))
        }
        Prepared::Missing(reason) => Ok(skipped(&reason)),
    }
}

/// Runs the units' tests under a systemd of their own.
pub(crate) fn of_units(workspace: &Workspace) -> Result<Summary> {
    match vm::test_units(workspace)? {
        Ok(printed) => Summary::of_guest(&printed),
        Err(missing) => Ok(skipped(&missing)),
    }
}

/// Runs the tests that docs/reliability.md names.
fn of_faults(workspace: &Workspace, object: Option<&Path>) -> Result<Summary> {
    let text = fs::read_to_string(workspace.path(faults::FILE))?;
    let named = faults::named(&text)
        .map_err(|row| anyhow!("{} names no test in this row: {row}", faults::FILE))?;
    build(workspace, object)?;
    let mut all = Summary::default();
    for test in &named {
        step(&format!("{}: {}", test.program, test.test));
        let mut command = with_object(workspace.cargo(), object);
        command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
        match test.program.as_str() {
            "lib" => command.arg("--lib"),
            program => command.args(["--test", program]),
        };
        let (summary, status) = observe(command.args(["--", &test.test]))?;
        let ran = summary.passed + summary.failed + summary.skipped;
        ensure!(ran > 0, "{} has no test {}", test.program, test.test);
        all = all.and(summary.judged_with(status));
    }
    Ok(all)
}

fn skipped(reason: &str) -> Summary {
    step(&format!("skipped: {reason}"));
    Summary {
        skipped: 1,
        ..Summary::default()
    }
}

/// Runs the kernel's tests in another kernel.
fn in_kernel(
    workspace: &Workspace,
    image: &Image,
    object: Option<&Path>,
    filter: Option<&str>,
) -> Result<Summary> {
    Summary::of_guest(&vm::run_tests(workspace, image, object, filter)?)
}

/// The same in the kernel of this Debian release; skipped, and counted so, where
/// it cannot be had.
pub(crate) fn in_debians_kernel(workspace: &Workspace, object: &Path) -> Result<Summary> {
    match Image::of_debian(workspace)? {
        Some(image) => in_kernel(workspace, &image, Some(object), None),
        None => Ok(skipped(
            "there is no kernel image to be had from this distribution",
        )),
    }
}

/// Prepares the machine, builds everything once, and runs all tests.
pub(crate) fn run_all(
    workspace: &Workspace,
    object: Option<&Path>,
    filter: Option<&str>,
) -> Result<Summary> {
    build(workspace, object)?;
    step("running the tests");
    let mut command = with_object(workspace.cargo(), object);
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    let (summary, status) = observe(&mut command)?;
    Ok(summary.judged_with(status))
}

fn build(workspace: &Workspace, object: Option<&Path>) -> Result<()> {
    prepare(workspace)?;
    timed("building the tests and what they test", || {
        // One build for programs and tests, so that both have the same
        // features and nothing is compiled twice.
        run(with_object(workspace.cargo(), object).args(["build", "--workspace", "--all-targets"]))
    })
}

/// The agent's build takes the kernel object from this variable.
fn with_object(mut cargo: Command, object: Option<&Path>) -> Command {
    if let Some(object) = object {
        cargo.env("SPEEDMIMI_BPF_OBJECT", object);
    }
    cargo
}

/// What checks the `OpenAPI` document, and what checks the Kubernetes manifests, from
/// `PyPI`, each in its version.
const PYTHON_TOOLS: [(&str, &str); 2] = [
    ("schemathesis", "4.32.5"),
    ("kubernetes-validate", "1.37.0"),
];

/// Installs a tool into the build directory; its test is skipped where that cannot
/// be done.
fn prepare_python_tool(workspace: &Workspace, name: &str, version: &str) {
    let directory = workspace.tools().join(name);
    if directory.join("bin").join(name).exists() {
        return;
    }
    step(&format!("installing {name} {version}"));
    let may_install = debian::is_debian() && geteuid().is_root();
    let has_venv = output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok();
    if !has_venv
        && may_install
        && let Err(error) = debian::ensure_installed(&["python3-venv"])
    {
        step(&format!("python3-venv cannot be installed: {error:#}"));
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&directory);
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    pip.arg(format!("{name}=={version}"));
    if let Err(error) = output(&mut venv).and_then(|_| output(&mut pip)) {
        step(&format!("its test is skipped: {error:#}"));
    }
}

fn prepare(workspace: &Workspace) -> Result<()> {
    requirements::raise_open_files();
    for (name, version) in PYTHON_TOOLS {
        prepare_python_tool(workspace, name, version);
    }
    if !geteuid().is_root() {
        step("without root, tests that load kernel programs are skipped");
        return Ok(());
    }
    if debian::is_debian() {
        for (package, unit) in DAEMONS {
            debian::install_without_starting(package, unit)?;
        }
        debian::ensure_installed(&["chromium", "curl", "openssl"])?;
        if output(Command::new("npm").arg("--version")).is_err() {
            debian::ensure_installed(&["nodejs", "npm"])?;
        }
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
    /// Reads the results in what was printed in a guest.
    fn of_guest(printed: &str) -> Result<Self> {
        let mut summary = Self::default();
        for line in printed.lines() {
            summary.add(line);
        }
        ensure!(summary != Self::default(), "no test ran in the guest");
        Ok(summary)
    }

    /// Adds what one test program said at its end.
    fn add(&mut self, line: &str) {
        self.in_failures |= line == "failures:";
        let Some(result) = line.strip_prefix("test result: ") else {
            if self.in_failures {
                self.failures.push(line.to_owned());
            }
            return;
        };
        self.in_failures = false;
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

    /// Together with another run's.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            failures: [self.failures, other.failures].concat(),
            in_failures: false,
        }
    }

    /// Whether a test failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Prints the failures once more, where they are found, and the last line of
    /// the command.
    pub(crate) fn print(&self) {
        for line in &self.failures {
            println!("{line}");
        }
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
        for line in ["failures:", "", "---- tests::y ----", "left: 1"] {
            summary.add(line);
        }
        summary.add("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        summary.add("test tests::x ... ok");
        assert_eq!(
            summary,
            Summary {
                passed: 13,
                failed: 1,
                skipped: 2,
                failures: ["failures:", "", "---- tests::y ----", "left: 1"]
                    .map(str::to_owned)
                    .into(),
                in_failures: false,
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
