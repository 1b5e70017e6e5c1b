//! `cargo xtask demo`: the whole path once, on loopback, with real traffic.
//!
//! What the load generator and the origin carried is compared with what the
//! kernel counted and with what the collector stored.

mod picture;
mod reconciliation;
mod stack;

use std::{
    io::Write as _,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use testkit::{
    fixtures::Binaries,
    traffic::{Exchange, Load, Outcome},
};

use self::{reconciliation::Reconciliation, stack::Stack};
use crate::{
    command::{run, step, timed},
    requirements,
    workspace::Workspace,
};

/// How long the reports may take after the last request.
const REPORTS_DEADLINE: Duration = Duration::from_secs(30);

/// `cargo xtask demo`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many requests are sent.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: u64,
    /// Over how many connections.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Leave everything running until ^C, and print the addresses.
    #[arg(long)]
    keep: bool,
    /// Build with optimisation, which takes longer; rates and latencies are then those of an optimised build.
    #[arg(long)]
    release: bool,
    /// How to print the reconciliation.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the command; success means that everything is equal.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    requirements::for_kernel_programs("cargo xtask demo")?;
    requirements::raise_open_files();
    let interrupted = watch_signals()?;
    let binaries = build(workspace, args.release)?;

    step("starting origin, collector, proxy and agent");
    let stack = Stack::start(&binaries)?;
    stack.describe();
    let outcome = send(args, &stack)?;
    let reconciliation = wait_for_reports(&stack, &outcome, &interrupted)?;
    print(args, &binaries, &stack, &reconciliation)?;
    if args.keep {
        step("everything keeps running; ^C ends it");
        stack.describe();
        while !interrupted.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
        }
    }
    step("ending what was started");
    stack.stop()?;
    if reconciliation.is_equal() {
        step("all equal");
        explain_next_steps(&binaries)?;
        Ok(ExitCode::SUCCESS)
    } else {
        step("NOT EQUAL");
        Ok(ExitCode::FAILURE)
    }
}

/// The first ^C is for us to end in order, a second one ends us at once.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Builds in the profile of the tests, which shares its dependencies with
/// `cargo xtask` itself and takes half the time of an optimised build.
fn build(workspace: &Workspace, release: bool) -> Result<Binaries> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--bins"]);
    for package in ["monitor-agent", "collector", "proxy", "cli"] {
        cargo.args(["--package", package]);
    }
    let (directory, message) = if release {
        cargo.arg("--release");
        ("release", "building the programs, optimised")
    } else {
        ("debug", "building the programs")
    };
    timed(message, || run(&mut cargo))?;
    Ok(Binaries::at(&workspace.target().join(directory)))
}

fn send(args: &Args, stack: &Stack) -> Result<Outcome> {
    step(&format!(
        "sending {} requests over {} connections",
        args.requests, args.connections
    ));
    let mix = [
        Exchange::get(100),
        Exchange::get(4_000),
        Exchange::post(1_000, 100),
        Exchange::status(404),
        Exchange::get(65_536),
    ];
    let outcome = Load::on(stack.proxy_address())
        .connections(usize::try_from(args.connections).unwrap_or(usize::MAX))
        .requests(args.requests)
        .give_up_after(Duration::from_secs(600))
        .mix(mix)
        .run()?;
    eprintln!(
        "    {:.0} requests/s, {} errors",
        outcome.requests_per_second(),
        outcome.errors.total()
    );
    ensure!(
        outcome.errors.total() == 0,
        "the traffic itself went wrong: {:?}",
        outcome.errors
    );
    Ok(outcome)
}

/// Compares until all is equal, or it is clear that it will not be.
fn wait_for_reports(
    stack: &Stack,
    outcome: &Outcome,
    interrupted: &AtomicBool,
) -> Result<Reconciliation> {
    step("waiting for the reports");
    let start = Instant::now();
    loop {
        let kernel = stack.kernel()?;
        let stored = stack.stored()?;
        let reconciliation = Reconciliation::new(stack, outcome, &kernel, &stored);
        if reconciliation.is_equal() || start.elapsed() > REPORTS_DEADLINE {
            return Ok(reconciliation);
        }
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        thread::sleep(Duration::from_millis(100));
    }
}

/// How the same is done with a proxy of the reader's own.
fn explain_next_steps(binaries: &Binaries) -> Result<()> {
    let path = |name: &str| Ok::<_, anyhow::Error>(binaries.find(name)?.display().to_string());
    let (collector, agent, cli) = (
        path("speedmimi-collector")?,
        path("speedmimi-agent")?,
        path("speedmimi")?,
    );
    eprintln!(
        "
To watch your own nginx, run these two commands as root, each in a terminal of its own
(the first makes the token that the second reads):

    {collector} run
    {agent} run --unit nginx.service --names-from /etc/nginx/nginx.conf \\
        --token-file /var/lib/speedmimi-collector/token

Then read what they report: `{cli} top`, or the web page at http://127.0.0.1:7601/.
To leave the demo's own page open: cargo xtask demo --keep"
    );
    Ok(())
}

fn print(
    args: &Args,
    binaries: &Binaries,
    stack: &Stack,
    reconciliation: &Reconciliation,
) -> Result<()> {
    let mut command = Command::new(binaries.find("speedmimi")?);
    command
        .arg("reports")
        .args(["--collector", &format!("http://{}", stack.collector_http())]);
    let reports = command.output().context("running speedmimi reports")?;
    ensure!(
        reports.status.success(),
        "speedmimi reports failed: {}",
        String::from_utf8_lossy(&reports.stderr)
    );
    match args.output {
        Output::Table => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&reports.stdout)?;
            writeln!(stdout, "\n{reconciliation}")?;
            writeln!(stdout, "\n{}", stack.picture(reconciliation))?;
        }
        Output::Json => {
            std::io::stderr().lock().write_all(&reports.stdout)?;
            println!("{}", reconciliation.json());
        }
    }
    Ok(())
}
