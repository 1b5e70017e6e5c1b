//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Architecture invariant: no product crate is a dependency of this one.  Its
//! commands run the products as a user does, by their flags and their output.

mod codegen;
mod command;
mod debian;
mod ebpf;
mod tidy;
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
        Command::Tidy => tidy::main(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
