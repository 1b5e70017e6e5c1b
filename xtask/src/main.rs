//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Architecture invariant: no product crate is a dependency of this one.  Its
//! commands run the products as a user does, by their flags and their output.

mod bench;
mod ci;
mod codegen;
mod command;
mod debian;
mod demo;
mod dist;
mod ebpf;
mod faults;
mod packages;
mod requirements;
mod rootfs;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, runs, tests and measures the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the kernel programs, and the object that is committed.
    BuildEbpf(ebpf::Args),
    /// Generate the wire types from the .proto files.
    Codegen(codegen::Args),
    /// Run the whole path once and compare what was sent with what was counted.
    Demo(demo::Args),
    /// Set up what the tests need, and run all of them.
    Test(test::Args),
    /// Build everything that a release publishes.
    Dist(dist::Args),
    /// Measure.
    Bench(bench::Args),
    /// Everything that must hold before a change lands.
    Ci,
    /// Check the rules of the tree that no compiler checks.
    Tidy,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match &cli.command {
        Command::BuildEbpf(args) => ebpf::main(&workspace, args)?,
        Command::Codegen(args) => codegen::main(&workspace, args)?,
        Command::Demo(args) => return demo::main(&workspace, args),
        Command::Test(args) => return test::main(&workspace, args),
        Command::Dist(args) => dist::main(&workspace, args)?,
        Command::Bench(args) => bench::main(&workspace, args)?,
        Command::Ci => ci::main(&workspace)?,
        Command::Tidy => tidy::main(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
