//! `cargo xtask ci`: everything that must hold before a change lands.
//!
//! What is cheap comes first.  All of it shares one target directory and the
//! dev profile, so that nothing is compiled twice.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    codegen,
    command::{output, run},
    ebpf, test, tidy,
    workspace::Workspace,
};

/// Runs every step; the first that fails ends it.
pub(crate) fn main(workspace: &Workspace) -> Result<()> {
    ensure_component(workspace, "fmt", "rustfmt")?;
    ensure_component(workspace, "clippy", "clippy")?;
    let mut steps = Steps::default();
    steps.take("fmt", || fmt(workspace))?;
    steps.take("build-ebpf --check", || ebpf::check(workspace.root()))?;
    steps.take("tidy", || tidy::main(workspace))?;
    let object = steps.take("build-ebpf", || ebpf::build_fresh(workspace))?;
    steps.take("codegen --check", || codegen::check(workspace))?;
    steps.take("clippy", || {
        run(workspace
            .cargo()
            .env("SPEEDMIMI_BPF_OBJECT", &object)
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--locked",
            ])
            .args(["--", "-D", "warnings"]))
    })?;
    let summary = steps.take("test", || test::run_all(workspace, Some(&object), None))?;
    let other = steps.take("test --kernel", || {
        test::in_debians_kernel(workspace, &object)
    })?;
    let summary = summary.and(other);
    steps.print();
    summary.print();
    if summary.has_failed() {
        bail!("tests failed");
    }
    Ok(())
}

/// rustup's minimal profile has neither; elsewhere they come as packages.
fn ensure_component(workspace: &Workspace, subcommand: &str, component: &str) -> Result<()> {
    if output(workspace.cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    run(Command::new("rustup").args(["component", "add", component]))
        .with_context(|| format!("`cargo {subcommand}` is missing; install {component}"))
}

fn fmt(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    run(workspace
        .cargo()
        .args(["fmt", "--check"])
        .arg("--manifest-path")
        .arg(workspace.path("monitor-ebpf/Cargo.toml")))
}

/// How long each step took.
#[derive(Default)]
struct Steps {
    taken: Vec<(&'static str, f64)>,
}

impl Steps {
    fn take<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> ci: {name}");
        let start = Instant::now();
        let result = work().map_err(|error| error.context(format!("ci: {name} failed")))?;
        self.taken.push((name, start.elapsed().as_secs_f64()));
        Ok(result)
    }

    fn print(&self) {
        for (name, seconds) in &self.taken {
            eprintln!("{name:<20} {seconds:>7.1} s");
        }
        let total: f64 = self.taken.iter().map(|(_, seconds)| seconds).sum();
        eprintln!("{:<20} {total:>7.1} s", "total");
    }
}
